"""Carries out the Trader's commands at the broker and brings the answers back."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, repeat
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog

from orders.events import Rejected, ReplaceRefused, SubmitFailed
from orders.lifecycle import Order, OrderState, OrderType, Role
from orders.reports import BrokerOrderStatus
from risk import store as risk_store
from trading.broker import (
    AccountInfo,
    BrokerError,
    NotAuthorized,
    NotFound,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    RateLimited,
)
from trading.live.ledger import LedgerUnavailable
from trading.messages import AccountReported, CancelFailed, Halted, OrderChanged

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

HALTED_FROM_OUTSIDE = "halted from outside this engine"
MOST_REFUSALS_IN_A_ROW = 5
WASH_TRADE_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long the desk waits before it asks what became of something.

    Without an event of its order for `answer_seconds` the broker is asked, then ever more rarely. An order of unknown
    state is asked for after each of `look_up_seconds`; one that the broker has denied each time was never sent. While
    the engine ends it is asked for every `hurried_seconds` besides. What is refused because the broker's states lag is
    sent again after `lag_seconds`.
    """

    answer_seconds: float = 3.0
    longest_answer_seconds: float = 30.0
    look_up_seconds: tuple[float, ...] = (5.0, 10.0, 15.0)
    hurried_seconds: float = 1.0
    lag_seconds: float = 0.25


class Desk:
    """One method a command. Every outcome ends up in the engine's inbox; nothing here decides about trading."""

    pauses = Pauses()

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._watchers: set[asyncio.Task[None]] = set()
        self._at_work: set[str] = set()
        self._unsettled: set[str] = set()
        self._halt_reading: asyncio.Task[bool] | None = None
        self.account: AccountInfo | None = None
        self._entry_times: deque[float] = deque()
        self._refusals = 0

    def take_up(self, order: Order) -> bool:
        """Whether a new order is sent once it is written down as submitted; from now on it is being worked on."""
        self._at_work.add(order.local_id)
        return order.role is not Role.ENTRY or not self._is_too_many()

    async def submit(self, order: Order) -> None:
        """Sends a new order that was taken up, after it was written down."""
        try:
            await self._send_new(order)
        finally:
            self._at_work.discard(order.local_id)

    def is_at_work_on(self, local_id: str) -> bool:
        """Whether a request about the order is under way, or about to be."""
        return local_id in self._at_work

    async def _send_new(self, order: Order) -> None:
        if order.role is Role.ENTRY and (problem := await self._forbidden(order)):
            await self._not_sent(order, problem)
            return
        await self.send(order, is_first=True)

    async def send(self, order: Order, *, is_first: bool = False) -> None:
        """Sends an order that is written down as submitted; a second time it has the same id, so there is only one.

        Being rate limited is a clear answer: of the first request it says that nothing was sent. The Trader then asks
        anew, and the limiter sends that as soon as the broker takes requests again, stops and exits first.
        """
        engine = self._engine
        self._at_work.add(order.local_id)
        try:
            status = await self._submit(order)
        except RateLimited as error:
            if is_first:
                await self._not_sent(order, f"not sent, rate limited: {error}")
            else:
                self.settle_unknown(order)
        except OrderRefused as refusal:
            await self._refused(order, refusal)
            await self._count_refusal()
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.error("order.outcome_unknown", order=order.local_id, symbol=order.symbol, reason=str(error))
            self.settle_unknown(order)
        else:
            self._refusals = 0
            await engine.report(status)
            if order.order_type is OrderType.MARKET:  # its fill is due at once; other orders may rest for hours
                self._ask_while(order, lambda known: True)
        finally:
            self._at_work.discard(order.local_id)

    async def _refused(self, order: Order, refusal: OrderRefused) -> None:
        engine = self._engine
        if order.role is not Role.ENTRY and await self._is_its_own_twin(order):
            return
        fact = Rejected(local_id=order.local_id, at=engine.clock(), detail=str(refusal))
        await engine.tell(OrderChanged(now=engine.clock(), fact=fact))
        if order.role is not Role.ENTRY:
            engine.recovery.ask()  # what stands in the way is taken over or cancelled; then it is asked for again

    async def _is_its_own_twin(self, order: Order) -> bool:
        """Whether an earlier request of the same order, thought lost, has arrived: that is what the broker refused."""
        try:
            found = await self.all_reports(order)
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            self.settle_unknown(order)
            return True
        for status in found:
            await self._engine.report(status)
        return bool(found)

    async def _forbidden(self, order: Order) -> str:
        """Why an entry that was decided may not leave after all; empty if it may.

        Nothing leaves that the ledger does not have, stops and exits excepted; and somebody may have halted the account
        from outside while this engine hung.
        """
        engine = self._engine
        if engine.trader.orders[order.local_id].state is OrderState.PENDING_SUBMIT:  # it was not taken up
            limit = engine.config["risk.max_orders_per_minute"]
            await self._halt(f"more than {limit} order requests in a minute")
            return "too many order requests a minute"
        try:
            if await self._is_halted_in_ledger() and not engine.trader.halted:
                await engine.tell(Halted(now=engine.clock(), reason=HALTED_FROM_OUTSIDE))
                return HALTED_FROM_OUTSIDE
        except LedgerUnavailable as error:
            return f"the ledger cannot be written: {error}"
        return ""

    async def _is_halted_in_ledger(self) -> bool:
        """Those who ask before a reading has begun share it. Raises LedgerUnavailable."""
        if self._halt_reading is None:
            self._halt_reading = asyncio.create_task(self._read_halt())
        return await asyncio.shield(self._halt_reading)

    async def _read_halt(self) -> bool:
        self._halt_reading = None  # from here on others need another one
        engine = self._engine
        return await engine.writer.read(risk_store.is_halted, engine.trader.account_id)

    async def _not_sent(self, order: Order, reason: str) -> None:
        engine = self._engine
        fact = SubmitFailed(local_id=order.local_id, at=engine.clock(), detail=reason)
        await engine.tell(OrderChanged(now=engine.clock(), fact=fact))

    def _is_too_many(self) -> bool:
        """Whether entries go out faster than any strategy of ours would send them.

        Only by the real clock: a market in this process may play a whole day in a minute.
        """
        if self._engine.lockstep is not None:
            return False
        now = asyncio.get_running_loop().time()
        while self._entry_times and self._entry_times[0] <= now - 60:
            self._entry_times.popleft()
        self._entry_times.append(now)
        limit: int = self._engine.config["risk.max_orders_per_minute"]
        return len(self._entry_times) > limit

    async def _count_refusal(self) -> None:
        self._refusals += 1
        if self._refusals == MOST_REFUSALS_IN_A_ROW:
            await self._halt(f"{MOST_REFUSALS_IN_A_ROW} orders refused in a row")

    async def _halt(self, reason: str) -> None:
        await self._engine.tell(Halted(now=self._engine.clock(), reason=reason, is_alarm=True))

    async def _submit(self, order: Order) -> OrderStatus:
        """Sends a request. Raises LeaseLost: this engine stood still after it was written down, and is replaced."""
        request = OrderRequest(
            symbol=order.symbol,
            buys=order.buys,
            order_type=order.order_type,
            qty=order.qty_requested,
            client_order_id=order.local_id,
            time_in_force=order.time_in_force,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
        )
        protective = order.role is not Role.ENTRY
        arrival = self._engine.bar_arrivals.get(order.symbol)
        log.info(
            "order.request",
            order=order.local_id,
            symbol=order.symbol,
            role=order.role,
            correlation_id=order.correlation_id,
            since_bar_ms=None if arrival is None or protective else round((monotonic() - arrival) * 1000, 3),
            since_decision_seconds=(self._engine.clock() - order.created_at).total_seconds(),
        )
        for _ in range(WASH_TRADE_TRIES - 1):
            await self._engine.writer.confirm()
            try:
                return await self._engine.calls.submit(request, protective=protective)
            except OrderRefused as refusal:
                # The broker's states lag behind the fill or the cancellation that it has just confirmed.
                if not (protective and (refusal.is_wash_trade or refusal.lacks_shares)):
                    raise
            await asyncio.sleep(self.pauses.lag_seconds)
        await self._engine.writer.confirm()
        return await self._engine.calls.submit(request, protective=protective)

    async def cancel(self, order: Order) -> None:
        """Asks for a cancellation; a refusal means looking at the order, which may be filled."""
        engine = self._engine
        if order.broker_id is None:
            await engine.tell(CancelFailed(now=engine.clock(), local_id=order.local_id))
            return
        try:
            await engine.calls.cancel(order.broker_id)
        except (OrderRefused, NotFound) as refusal:
            log.info("cancel.refused", order=order.local_id, reason=str(refusal))
            if not await self.look_up(order):
                await engine.tell(CancelFailed(now=engine.clock(), local_id=order.local_id))
            return
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.error("cancel.failed", order=order.local_id, reason=str(error))
            await engine.tell(CancelFailed(now=engine.clock(), local_id=order.local_id))
            return
        self._ask_while(order, engine.trader.is_being_canceled)

    async def replace_stop(self, order: Order, stop_price: Decimal) -> None:
        """Asks for a new stop price. Accepted is not done: only the stream, or a look-up, says that it was replaced.

        Without an answer the old stop is taken to work, and the replacement to be possible, until the broker tells.
        """
        engine = self._engine
        self._at_work.add(order.local_id)
        try:
            if order.broker_id is None:
                raise OrderRefused("the order has no broker id yet", status=0)
            if engine.writer.problem:
                raise OrderRefused(f"the ledger cannot be written: {engine.writer.problem}", status=0)
            await engine.calls.replace(order.broker_id, stop_price=stop_price, client_order_id=order.client_order_id)
        except NotAuthorized:
            raise
        except (OrderRefused, NotFound) as refusal:
            log.warning("replace.refused", order=order.local_id, symbol=order.symbol, reason=str(refusal))
            is_unsent = isinstance(refusal, OrderRefused) and refusal.status == 0
            if is_unsent:
                await self._keep_old_stop(order, str(refusal))
            if is_unsent or await self.settle_replacement(order, refusal=str(refusal)):
                return
        except RateLimited as error:
            log.warning("replace.not_sent", order=order.local_id, symbol=order.symbol, reason=str(error))
            await self._keep_old_stop(order, f"not sent, rate limited: {error}")
            return
        except BrokerError as error:
            log.error("replace.outcome_unknown", order=order.local_id, symbol=order.symbol, reason=str(error))
        finally:
            self._at_work.discard(order.local_id)
        self._ask_while(order, lambda known: known.requested_stop_price is not None)

    async def refresh_account(self) -> None:
        """Reads the account; the last known figures, marked as not current, when it cannot be read."""
        engine = self._engine
        is_current = True
        try:
            self.account = await engine.calls.account()
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("account.unavailable", reason=str(error))
            is_current = False
        known = self.account
        await engine.tell(
            AccountReported(
                now=engine.clock(),
                equity=known.equity if known else Decimal(0),
                buying_power=known.buying_power if known else Decimal(0),
                is_current=is_current and known is not None,
            )
        )

    async def look_up(self, order: Order) -> bool:
        """Reports what the broker says of the order now, under every id it has; True if it has ended."""
        engine = self._engine
        try:
            found = await self.all_reports(order)
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            return False
        if not found:
            self.settle_unknown(order)
        for status in found:
            await engine.report(status, reconciling=True)
        known = engine.trader.orders.get(order.local_id)
        return known is None or known.is_terminal

    async def all_reports(self, order: Order) -> list[OrderStatus]:
        """The order at the broker, by our id and by the broker's, and whatever took its place there, oldest first.

        Our id alone would not do: it is that of the last replacement asked for, and one that was refused never came
        into being.
        """
        calls = self._engine.calls
        found: dict[str, OrderStatus] = {}
        with suppress(NotFound):
            status = await calls.order_by_client_id(order.client_order_id)
            found[status.broker_order_id] = status
        broker_id = order.broker_id
        while broker_id is not None and broker_id not in found:
            with suppress(NotFound):
                found[broker_id] = await calls.order(broker_id)
            broker_id = found[broker_id].replaced_by if broker_id in found else None
        return sorted(found.values(), key=lambda status: status.submitted_at)

    async def settle_replacement(self, order: Order, *, refusal: str = "the broker has no such replacement") -> bool:
        """Finds out what became of a replacement; True if that is known now."""
        engine = self._engine
        try:
            found = await self.all_reports(order)
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            return False
        for status in found:
            await engine.report(status, reconciling=True)
        known = engine.trader.orders.get(order.local_id)
        if known is None or known.is_terminal or known.requested_stop_price is None:
            return True
        if known.replacements != order.replacements or any(
            status.client_order_id == known.client_order_id for status in found
        ):
            return False
        if not any(status.broker_order_id == known.broker_id and _works(status) for status in found):
            return False
        await self._keep_old_stop(order, refusal)
        return True

    async def _keep_old_stop(self, order: Order, reason: str) -> None:
        engine = self._engine
        fact = ReplaceRefused(local_id=order.local_id, at=engine.clock(), detail=reason)
        await engine.tell(OrderChanged(now=engine.clock(), fact=fact))

    # --- answers that do not come -------------------------------------------------------------------------------------

    def settle_unknown(self, order: Order) -> None:
        """Keeps asking for an order of which the broker has said nothing; its symbol takes no entries meanwhile."""
        if order.local_id not in self._unsettled:
            self._unsettled.add(order.local_id)
            self._watch(self._settle_unknown(order))

    def hurry(self) -> None:
        """Asks often for what is unknown, until `close`: what turns up while the engine ends can still be cancelled.

        It does not count as a denial. Those are half a minute apart because a request may be on its way, and an engine
        that ends has no half minute.
        """
        self._watch(self._hurry())

    async def _hurry(self) -> None:
        orders = self._engine.trader.orders
        while True:
            for local_id in sorted(self._unsettled & orders.keys()):
                if not orders[local_id].is_terminal:
                    await self.look_up(orders[local_id])
            await asyncio.sleep(self.pauses.hurried_seconds)

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watchers.add(task)
        task.add_done_callback(self._watched)

    def _watched(self, task: asyncio.Task[None]) -> None:
        self._watchers.discard(task)
        self._engine.look_at_failure(task)

    def _ask_while(self, order: Order, is_open: Callable[[Order], bool]) -> None:
        """Asks about the order, less and less often, as long as the question is open: the answer may be lost."""
        self._watch(self._ask_again(order.local_id, is_open))

    async def _ask_again(self, local_id: str, is_open: Callable[[Order], bool]) -> None:
        engine, wait_seconds = self._engine, self.pauses.answer_seconds
        while True:
            await asyncio.sleep(wait_seconds)
            known = engine.trader.orders.get(local_id)
            if known is None or known.is_terminal or not is_open(known):
                return
            if known.requested_stop_price is not None:
                await self.settle_replacement(known)
            else:
                await self.look_up(known)
            wait_seconds = min(wait_seconds * 2, self.pauses.longest_answer_seconds)

    async def _settle_unknown(self, order: Order) -> None:
        """Asks until the broker knows the order. One that it denied three times over 30 s counts as never sent.

        Only a request whose arrival was never confirmed can be given up, and only on the broker's word: no answer is
        none. Stops and exits are not only asked for but sent again, under their one id, of which the broker takes one.
        """
        engine, denials = self._engine, 0
        cause = f"order {order.local_id}"
        waits = chain(self.pauses.look_up_seconds, repeat(self.pauses.longest_answer_seconds))
        try:
            for asked, wait_seconds in enumerate(waits):
                reason = f"the state of its {order.role} order is unknown; asked {asked} times"
                await engine.block_symbol(order.symbol, reason, cause=cause, is_alarm=asked > 2)
                await asyncio.sleep(wait_seconds)
                known = engine.trader.orders.get(order.local_id)
                if known is None or known.is_terminal:
                    break
                try:
                    found = await self._ask_or_send(known)
                except OrderRefused as refusal:
                    await self._refused(known, refusal)
                    break
                except NotAuthorized:
                    raise
                except BrokerError as error:
                    log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
                    continue
                for status in found:
                    await engine.report(status, reconciling=True)
                if found:
                    break
                denials += 1
                if denials >= len(self.pauses.look_up_seconds) and known.state is OrderState.SUBMITTED:
                    fact = SubmitFailed(
                        local_id=order.local_id, at=engine.clock(), forced=True, detail="the broker does not know it"
                    )
                    await engine.tell(OrderChanged(now=engine.clock(), fact=fact))
                    break
        finally:
            self._unsettled.discard(order.local_id)
        await engine.block_symbol(order.symbol, "", cause=cause)

    async def _ask_or_send(self, order: Order) -> list[OrderStatus]:
        found = await self.all_reports(order)
        is_needed = order.role is not Role.ENTRY and order.symbol in self._engine.trader.portfolio.positions
        if not found and is_needed and order.state is OrderState.SUBMITTED:
            return [await self._submit(order)]
        return found

    async def verify_protection(self) -> str:
        """Says for every open position whether its stop works at the broker, as the broker tells it; what is wrong."""
        engine = self._engine
        positions = engine.trader.portfolio.positions
        if not positions:
            return ""
        try:
            working = {status.client_order_id for status in await engine.calls.open_orders()}
        except BrokerError as error:
            log.critical("shutdown.stops_not_verified", symbols=sorted(positions), reason=str(error))
            return "the stops of open positions could not be verified"
        unprotected = []
        for symbol, position in sorted(positions.items()):
            stop = engine.trader.stop_of(symbol)
            if stop is not None and stop.client_order_id in working:
                log.warning("shutdown.position_left", symbol=symbol, qty=position.qty, stop=stop.stop_price)
            else:
                log.critical("shutdown.position_unprotected", symbol=symbol, qty=position.qty)
                unprotected.append(symbol)
        return f"no stop works at the broker for {', '.join(unprotected)}" if unprotected else ""

    async def close(self) -> None:
        """Ends the watching of answers."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)


def _works(status: OrderStatus) -> bool:
    """Whether the order is live at the broker and no change of it is under way."""
    return status.replaced_by is None and status.status in (
        BrokerOrderStatus.ACCEPTED,
        BrokerOrderStatus.NEW,
        BrokerOrderStatus.PARTIALLY_FILLED,
    )
