"""Carries out the Trader's commands at the broker and brings the answers back."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog

from orders.events import Rejected, ReplaceRefused, SubmitFailed, Submitted
from orders.lifecycle import Order, OrderType, Role
from risk import store as risk_store
from trading.broker import (
    AccountInfo,
    BrokerError,
    NotAuthorized,
    NotFound,
    OrderRefused,
    OrderRequest,
    OrderStatus,
)
from trading.live.ledger import LedgerUnavailable
from trading.messages import AccountReported, CancelFailed, Halted, OrderChanged

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

HALTED_FROM_OUTSIDE = "halted from outside this engine"
ANSWER_SECONDS = 3.0  # without an event of its order for this long, the broker is asked
MOST_REFUSALS_IN_A_ROW = 5
WASH_TRADE_TRIES = 20
WASH_TRADE_WAIT_SECONDS = 0.25
UNKNOWN_LOOK_UPS_SECONDS = (5.0, 10.0, 15.0)


class Desk:
    """One method a command. Every outcome ends up in the engine's inbox; nothing here decides about trading."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._watchers: set[asyncio.Task[None]] = set()
        self.account: AccountInfo | None = None
        self._entry_times: deque[float] = deque()
        self._refusals = 0

    async def submit(self, order: Order) -> None:
        """Sends a new order, after it was written down as submitted."""
        engine = self._engine
        if order.role is Role.ENTRY and await self._is_too_many():
            await self._not_sent(order, "too many order requests a minute")
            return
        await engine.tell(OrderChanged(now=engine.clock(), fact=Submitted(local_id=order.local_id, at=engine.clock())))
        if order.role is Role.ENTRY and (problem := await self._forbidden()):
            await self._not_sent(order, problem)
            return
        await self.send(order)

    async def send(self, order: Order) -> None:
        """Sends an order that is written down as submitted; a second time it has the same id, so there is only one."""
        engine = self._engine
        try:
            status = await self._submit(order)
        except OrderRefused as refusal:
            fact = Rejected(local_id=order.local_id, at=engine.clock(), detail=str(refusal))
            await engine.tell(OrderChanged(now=engine.clock(), fact=fact))
            await self._count_refusal()
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.error("order.outcome_unknown", order=order.local_id, symbol=order.symbol, reason=str(error))
            self.settle_unknown(order)
        else:
            self._refusals = 0
            await engine.report(status)
            if order.order_type is OrderType.MARKET:
                self._watch_answer(order)  # its fill is due at once; other orders may rest for hours

    async def _forbidden(self) -> str:
        """Why an entry that was decided may not leave after all; empty if it may.

        Nothing leaves that the ledger does not have, stops and exits excepted; and somebody may have halted the account
        from outside while this engine hung.
        """
        engine = self._engine
        try:
            if await engine.writer.read(risk_store.is_halted, engine.trader.account_id) and not engine.trader.halted:
                await engine.tell(Halted(now=engine.clock(), reason=HALTED_FROM_OUTSIDE))
                return HALTED_FROM_OUTSIDE
        except LedgerUnavailable as error:
            return f"the ledger cannot be written: {error}"
        return ""

    async def _not_sent(self, order: Order, reason: str) -> None:
        engine = self._engine
        fact = SubmitFailed(local_id=order.local_id, at=engine.clock(), detail=reason)
        await engine.tell(OrderChanged(now=engine.clock(), fact=fact))

    async def _is_too_many(self) -> bool:
        """Whether entries go out faster than any strategy of ours would send them; halts then.

        Only by the real clock: a market in this process may play a whole day in a minute.
        """
        if self._engine.lockstep is not None:
            return False
        now = asyncio.get_running_loop().time()
        while self._entry_times and self._entry_times[0] <= now - 60:
            self._entry_times.popleft()
        self._entry_times.append(now)
        limit = self._engine.config["risk.max_orders_per_minute"]
        if len(self._entry_times) <= limit:
            return False
        await self._halt(f"more than {limit} order requests in a minute")
        return True

    async def _count_refusal(self) -> None:
        self._refusals += 1
        if self._refusals == MOST_REFUSALS_IN_A_ROW:
            await self._halt(f"{MOST_REFUSALS_IN_A_ROW} orders refused in a row")

    async def _halt(self, reason: str) -> None:
        await self._engine.tell(Halted(now=self._engine.clock(), reason=reason, is_alarm=True))

    async def _submit(self, order: Order) -> OrderStatus:
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
            try:
                return await self._engine.calls.submit(request, protective=protective)
            except OrderRefused as refusal:
                # The broker's states lag behind the fill or the cancellation that it has just confirmed.
                if not (protective and refusal.is_wash_trade):
                    raise
            await asyncio.sleep(WASH_TRADE_WAIT_SECONDS)
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
        self._watch_answer(order)

    async def replace_stop(self, order: Order, stop_price: Decimal) -> None:
        """Asks for a new stop price. Accepted is not done: only the stream, or a look-up, says that it was replaced."""
        engine = self._engine
        try:
            if order.broker_id is None:
                raise OrderRefused("the order has no broker id yet", status=0)
            if engine.writer.problem:
                raise OrderRefused(f"the ledger cannot be written: {engine.writer.problem}", status=0)
            await engine.calls.replace(order.broker_id, stop_price=stop_price, client_order_id=order.client_order_id)
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("replace.failed", order=order.local_id, symbol=order.symbol, reason=str(error))
            is_unsent = isinstance(error, OrderRefused) and error.status == 0
            if is_unsent or not await self.look_up(order):
                fact = ReplaceRefused(local_id=order.local_id, at=engine.clock(), detail=str(error))
                await engine.tell(OrderChanged(now=engine.clock(), fact=fact))
            return
        self._watch_answer(order)

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
        """Reports what the broker says of the order now; True if that settled what was asked of it."""
        engine = self._engine
        try:
            statuses = await self._found(order)
        except NotFound:
            return False
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            return False
        for status in statuses:
            await engine.report(status, reconciling=True)
        now_known = engine.trader.orders.get(order.local_id)
        return (
            now_known is None
            or now_known.is_terminal
            or (now_known.requested_stop_price is None and (order.requested_stop_price is not None))
        )

    async def _found(self, order: Order) -> list[OrderStatus]:
        """The order at the broker, and whatever took its place there, oldest first.

        By the broker's own id if it is known: the client id is that of the last replacement asked for, and one that
        was refused never came into being.
        """
        calls = self._engine.calls
        if order.broker_id is None:
            return [await calls.order_by_client_id(order.client_order_id)]
        statuses = [await calls.order(order.broker_id)]
        while (successor := statuses[-1].replaced_by) is not None:
            statuses.append(await calls.order(successor))
        return statuses

    # --- answers that do not come -------------------------------------------------------------------------------------

    def settle_unknown(self, order: Order) -> None:
        """Keeps asking for an order whose request may or may not have arrived."""
        self._watch(self._settle_unknown(order))

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _watch_answer(self, order: Order) -> None:
        known = self._engine.trader.orders.get(order.local_id)
        if known is not None and not known.is_terminal:
            self._watch(self._ask_later(known))

    async def _ask_later(self, order: Order) -> None:
        await asyncio.sleep(ANSWER_SECONDS)
        known = self._engine.trader.orders.get(order.local_id)
        if known is not None and known.version == order.version and not known.is_terminal:
            await self.look_up(known)

    async def _settle_unknown(self, order: Order) -> None:
        """The request may or may not have arrived: asked three times over 30 s, then it counts as never sent."""
        engine = self._engine
        for wait_seconds in UNKNOWN_LOOK_UPS_SECONDS:
            await asyncio.sleep(wait_seconds)
            known = engine.trader.orders.get(order.local_id)
            if known is None or known.state != "submitted":
                return
            try:
                status = await engine.calls.order_by_client_id(order.local_id)
            except NotFound:
                continue
            except BrokerError as error:
                log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
                continue
            await engine.report(status, reconciling=True)
            return
        fact = SubmitFailed(
            local_id=order.local_id, at=engine.clock(), forced=True, detail="the broker does not know the order"
        )
        await engine.tell(OrderChanged(now=engine.clock(), fact=fact))

    async def verify_protection(self) -> None:
        """Says for every open position whether its stop works at the broker, as the broker tells it."""
        engine = self._engine
        positions = engine.trader.portfolio.positions
        if not positions:
            return
        try:
            working = {status.client_order_id for status in await engine.calls.open_orders()}
        except BrokerError as error:
            log.critical("shutdown.stops_not_verified", symbols=sorted(positions), reason=str(error))
            return
        for symbol, position in sorted(positions.items()):
            stop = engine.trader.stop_of(symbol)
            if stop is not None and stop.client_order_id in working:
                log.warning("shutdown.position_left", symbol=symbol, qty=position.qty, stop=stop.stop_price)
            else:
                log.critical("shutdown.position_unprotected", symbol=symbol, qty=position.qty)

    async def close(self) -> None:
        """Ends the watching of answers."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
