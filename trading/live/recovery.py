"""Starting and recovering are one path: the ledger is read, the broker is asked, and both are made to agree.

Silence proves nothing: an order that cannot be found stays as it is, and is asked for again; a difference in shares
counts only if a second look finds the same.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from orders import store as order_store
from orders.events import Filled, SubmitFailed
from orders.lifecycle import Order, OrderState, Role, Side, local_id_of
from orders.reports import SMALLEST_PRICE_STEP
from trading.broker import BrokerError, NotAuthorized, NotFound, OrderRefused, OrderStatus, TradeUpdate
from trading.live.ledger import LedgerUnavailable
from trading.logbook import Standing
from trading.messages import (
    ExecutionCorrected,
    ForeignHeld,
    OrderChanged,
    PositionAdopted,
    PositionGone,
    Reconciled,
    Restored,
    StopAdopted,
)
from trading.reconcile import ENDED, Findings, Found, compare, covers, is_our_pattern
from trading.trader import correction_id
from trading.wording import dollars

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

LOOK_BACK = timedelta(hours=24)
OVERLAP = timedelta(minutes=5)  # of two listings that follow each other: their times come from another clock
SECOND_LOOK_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
MOST_CASH_READS = 3
FRESH = timedelta(minutes=1)
BUST, CORRECTION = "trade_bust", "trade_correct"  # what the broker calls it when an execution did not happen so
REVISIONS = frozenset({BUST, CORRECTION})
YOUNG_SECONDS = 600.0  # an engine that meets another one this early is the later of the two

# Causes for which a symbol, or every symbol, takes no entries.
UNCOMPARED, FOREIGN, QUANTITY, OTHER_ENGINE = "uncompared", "foreign", "quantity", "other engine"


class Recovery:
    """Keeps ledger and broker in agreement for one engine. `compared_at` is when they last agreed, by `monotonic`."""

    def __init__(self, engine: "Engine") -> None:
        self.compared_at = 0.0
        self._engine = engine
        self._comparing = asyncio.Lock()
        self._is_wanted = False
        self._is_running = False
        self._fills_since: datetime | None = None
        self._orders_since: datetime | None = None
        self._foreign_ids: set[str] = set()  # broker ids of executions that are not ours
        self._busted: dict[str, tuple[Order, Filled]] = {}  # taken back by the exchange and still booked here
        self._undone: set[str] = set()  # ids of those that are booked as taken back
        self._born = monotonic()

    async def restore(self) -> None:
        """Gives the Trader what the ledger holds of this account, then compares; cash begins at the broker's figure.

        Raises BrokerError: nothing is known for sure, the engine must not start.
        """
        engine = self._engine
        orders, fills = await self._open_in_ledger()
        await engine.remember([order.local_id for order in orders])
        await engine.tell(Restored(now=engine.clock(), orders=orders, fills=fills, cash=engine.trader.portfolio.cash))
        engine.measure_again()
        latest = await engine.writer.read(order_store.latest_execution_at, engine.trader.account_id)
        self._fills_since = latest or engine.clock() - LOOK_BACK
        await self.compare(is_start=True)

    def ask(self, *, whole_day: bool = False) -> None:
        """Compares soon, again and again until the broker answers; asking twice before that is asking once.

        With `whole_day` the orders of the last 24 hours are read, otherwise those since the last comparison.
        """
        self._is_wanted = True
        if whole_day:
            self._orders_since = None
        if not self._is_running:
            self._is_running = True
            self._engine.spawn(self._until_answered())

    async def _until_answered(self) -> None:
        engine, pause_seconds = self._engine, FIRST_PAUSE_SECONDS
        try:
            while self._is_wanted and not engine.stop_wanted.is_set():
                self._is_wanted = False
                try:
                    await self.compare()
                except NotAuthorized:
                    raise
                except (BrokerError, LedgerUnavailable) as error:
                    self._is_wanted = True
                    log.error("reconcile.unanswered", reason=str(error), next_seconds=pause_seconds)
                    reason = f"what the account holds cannot be asked: {error}"
                    await engine.block_entries(reason, cause=UNCOMPARED)
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)
                else:
                    await engine.block_entries("", cause=UNCOMPARED)
        finally:
            self._is_running = False

    async def look_for_fills(self) -> None:
        """One question between two comparisons: whether anything was executed that nobody told."""
        if self._comparing.locked():
            return
        async with self._comparing:
            try:
                await self._work_in_fills()
            except NotAuthorized:
                raise
            except (BrokerError, LedgerUnavailable) as error:
                log.warning("fills.unread", reason=str(error))

    async def standing(self) -> Standing:
        """Where the account stands now: what an engine that began here would be given."""
        engine, trader = self._engine, self._engine.trader
        orders, fills = await self._open_in_ledger()
        return Standing(
            now=engine.clock(),
            settings=engine.config.as_texts(),
            symbols=tuple(trader.managed_symbols()),
            cash=trader.portfolio.cash,
            orders=orders,
            fills=fills,
            halted=trader.halted,
            blocked=trader.blocks(),
        )

    async def _open_in_ledger(self) -> tuple[tuple[Order, ...], tuple[tuple[Order, Filled], ...]]:
        """Orders that can still change and those of open round trips, and the executions of these."""
        engine = self._engine
        unfinished = await engine.writer.read(order_store.unfinished_orders, engine.trader.account_id)
        round_trips = await engine.writer.read(order_store.open_round_trips, engine.trader.account_id)
        fills = [(order, fill) for order, executions in round_trips for fill in executions]
        orders = {order.local_id: order for order in [*(order for order, _ in round_trips), *unfinished]}
        return tuple(orders.values()), tuple(fills)

    # --- comparing ----------------------------------------------------------------------------------------------------

    async def compare(self, *, is_start: bool = False) -> None:
        """Asks the broker for executions, orders and positions, works the answers in, and acts on what is left.

        Raises BrokerError: some of it could not be asked.
        """
        async with self._comparing:
            engine, began = self._engine, self._engine.clock()
            await self._work_in_fills()
            listed, open_orders = await self._work_in_orders(is_start=is_start)
            findings = await self._find(open_orders)
            if not findings.shares_agree:
                # An execution between two questions looks the same: it is only believed if it stays.
                await asyncio.sleep(SECOND_LOOK_SECONDS)
                await self._work_in_fills()
                listed, open_orders = await self._work_in_orders(is_start=is_start)
                again = await self._find(open_orders)
                findings = again.confirmed_by(findings)
                if findings != again:
                    self.ask()
            self._orders_since = began - OVERLAP
            await self._act(findings, listed, began)
            cash = await self._cash() if is_start else None
            await engine.tell(Reconciled(now=engine.clock(), cash=cash))
            self.compared_at = monotonic()
            log.info(
                "reconciled",
                orders=len(listed),
                positions=len(engine.trader.portfolio.positions),
                unknown=len(findings.unknown),
                gone=len(findings.gone),
                splits=len(findings.splits),
                strays=len(findings.strays),
            )

    async def _find(self, open_orders: Iterable[OrderStatus]) -> Findings:
        engine = self._engine
        account_id, trader = engine.trader.account_id, engine.trader
        ids = [local_id_of(each.client_order_id) for each in open_orders if is_our_pattern(each.client_order_id)]
        ours = set(await engine.writer.read(order_store.shares_by_order, account_id, ids)) | set(trader.orders)
        known_broker_ids = {order.broker_id for order in trader.orders.values()}
        broker_positions = await engine.calls.positions()
        return compare(
            positions=trader.portfolio.positions,
            last_prices=trader.last_prices,
            our_order_ids=ours,
            broker_positions=broker_positions,
            broker_orders=[each for each in open_orders if each.broker_order_id not in known_broker_ids],
        )

    async def _cash(self) -> Decimal:
        """The broker's cash at a moment without executions that we do not know."""
        for _ in range(MOST_CASH_READS):
            cash = (await self._engine.calls.account()).cash
            if not await self._work_in_fills():
                break
        return cash

    # --- executions ---------------------------------------------------------------------------------------------------

    async def _work_in_fills(self) -> int:
        """Books every execution since the last one seen, each once, by its order's id; how many there were."""
        engine = self._engine
        since = self._fills_since or engine.clock() - LOOK_BACK
        fills = [fill for fill in await engine.calls.fills(since=since - OVERLAP) if not self._is_foreign(fill)]
        fresh = 0
        for fill in fills:
            client_order_id = await self._client_order_id(fill.order.broker_order_id)
            if client_order_id is None:
                self._foreign_ids.add(fill.order.broker_order_id)
                log.info("fill.foreign", symbol=fill.order.symbol, broker_id=fill.order.broker_order_id)
                continue
            fresh += fill.timestamp > since
            ours = replace(fill, order=replace(fill.order, client_order_id=client_order_id))
            await engine.report(ours, reconciling=True)
        if fills:
            self._fills_since = max(since, fills[-1].timestamp)
        return fresh

    async def revise(self, update: TradeUpdate) -> None:
        """An execution of ours was taken back, or its price was corrected, which is booked once.

        Of shares that are not there any more, or there again, the broker's position is the evidence: what is known of
        the execution says at which price they were, so that the money is right as well. One that the ledger does not
        know by its id leaves the comparison alone.
        """
        engine, account_id = self._engine, self._engine.trader.account_id
        ids = [each for each in (update.previous_execution_id, update.execution_id) if each]
        try:
            async with self._comparing:
                found = await engine.writer.read(order_store.find_execution, account_id, ids)
                if found is None:
                    await self._cannot_revise(update)
                elif update.event == BUST and found[1].execution_id not in self._undone:
                    self._busted[found[1].execution_id] = found
                elif update.event == CORRECTION and update.execution_price and update.execution_id:
                    await self._correct(*found, price=update.execution_price, correction=update.execution_id)
        except LedgerUnavailable as error:
            log.error("execution.revision_unread", event_name=update.event, reason=str(error))
        self.ask()

    async def _cannot_revise(self, update: TradeUpdate) -> None:
        """Nobody knows what the money should be now, if the order was ours: somebody has to look at the statement."""
        if is_our_pattern(update.order.client_order_id):
            words = f"the exchange changed an execution that the ledger does not know ({update.event})"
            await self._engine.block_symbol(update.order.symbol, words, cause=QUANTITY, is_alarm=True)
        else:
            log.info("revision.foreign", event_name=update.event, symbol=update.order.symbol)

    async def _correct(self, order: Order, fill: Filled, *, price: Decimal, correction: str) -> None:
        engine = self._engine
        booked = [f"{correction_id(correction)}{role}" for role in Role]
        is_known = await engine.writer.read(order_store.find_execution, engine.trader.account_id, booked)
        if price != fill.price and is_known is None:
            await engine.tell(
                ExecutionCorrected(
                    now=engine.clock(), symbol=order.symbol, side=order.side, buys=order.buys, strategy=order.strategy,
                    qty=fill.qty, old_price=fill.price, price=price, execution_id=correction,
                )
            )  # fmt: skip

    def _undo(self, found: Found, *, bought: bool) -> tuple[Decimal, str] | None:
        """What the shares of a difference cost, and why they differ, if purchases or sales taken back explain it."""
        executions = [each for each in self._busted.values() if each[0].symbol == found.symbol]
        fills = [fill for order, fill in executions if order.buys == bought]
        if not fills or sum(fill.qty for fill in fills) != found.qty:
            return None
        for fill in fills:
            del self._busted[fill.execution_id]
            self._undone.add(fill.execution_id)
        value = sum((fill.qty * fill.price for fill in fills), Decimal(0))
        price = value / found.qty
        if price * found.qty != value:
            price = price.quantize(SMALLEST_PRICE_STEP)
        did = "bought" if bought else "sold"
        return price, f"{found.qty} {found.symbol} {did} at {dollars(price)} were taken back by the exchange (a bust)"

    def _is_foreign(self, fill: TradeUpdate) -> bool:
        return fill.order.broker_order_id in self._foreign_ids

    async def _client_order_id(self, broker_id: str) -> str | None:
        """Our id of the order that has, or had, this id at the broker; None if it is not ours."""
        engine = self._engine
        for order in engine.trader.orders.values():
            if order.broker_id == broker_id:
                return order.local_id
        known = await engine.writer.read(order_store.find_order_by_broker_id, engine.trader.account_id, broker_id)
        if known is not None:
            return known.local_id
        status = await engine.calls.order(broker_id)
        return status.client_order_id if await self._is_ours(status.client_order_id) else None

    async def _is_ours(self, client_order_id: str) -> bool:
        if not is_our_pattern(client_order_id):
            return False
        local_id = local_id_of(client_order_id)
        engine = self._engine
        return local_id in engine.trader.orders or bool(
            await engine.writer.read(order_store.shares_by_order, engine.trader.account_id, [local_id])
        )

    # --- orders -------------------------------------------------------------------------------------------------------

    async def _work_in_orders(self, *, is_start: bool) -> tuple[dict[str, OrderStatus], list[OrderStatus]]:
        """Works in what the broker lists; by broker id everything it listed, legs included, and what is open there."""
        engine = self._engine
        since = engine.clock() - LOOK_BACK if is_start else self._orders_since or engine.clock() - LOOK_BACK
        open_orders = await engine.calls.open_orders()
        recent = await engine.calls.recent_orders(since=since)
        listed: dict[str, OrderStatus] = {}
        for status in (*recent, *open_orders):
            for each in (status, *status.legs):
                listed[each.broker_order_id] = each
        await self._work_in_ended(listed.values())
        by_order: dict[str, list[OrderStatus]] = {}
        for status in listed.values():
            by_order.setdefault(local_id_of(status.client_order_id), []).append(status)
        for order in [order for order in engine.trader.orders.values() if not order.is_terminal]:
            await self._settle(order, by_order.get(order.local_id, []), is_start=is_start)
        return listed, [status for status in listed.values() if status.status not in ENDED]

    async def _work_in_ended(self, listed: Iterable[OrderStatus]) -> None:
        """An order that has ended here may have been given up too early, or have filled more than was told."""
        engine = self._engine
        reports: dict[str, list[OrderStatus]] = {}
        for status in listed:
            if is_our_pattern(status.client_order_id):
                reports.setdefault(local_id_of(status.client_order_id), []).append(status)
        known = await engine.writer.read(order_store.shares_by_order, engine.trader.account_id, reports)
        for local_id, (qty, has_ended) in known.items():
            works = any(status.status not in ENDED for status in reports[local_id])
            filled = sum(status.filled_qty for status in reports[local_id])
            if has_ended and (works or filled > qty):
                for status in sorted(reports[local_id], key=_submitted_at):
                    await engine.report(status, reconciling=True)

    async def _settle(self, order: Order, found: list[OrderStatus], *, is_start: bool) -> None:
        """Works in what the broker says of one order of ours, asking for it by its ids if no list had it.

        A stop or an exit of a dead process that the broker does not show is sent at once, under the id it has: shares
        wait for it, and should the first request turn up after all, the broker refuses the second.
        """
        engine = self._engine
        if not is_start and (order.state is OrderState.PENDING_SUBMIT or engine.desk.is_at_work_on(order.local_id)):
            return  # its request is under way: whoever sends it waits for the answer
        try:
            if not any(status.broker_order_id == order.broker_id for status in found):
                found = [*found, *await engine.desk.all_reports(order)]
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            engine.desk.settle_unknown(order)
            return
        if not found and order.state is OrderState.PENDING_SUBMIT:
            detail = "never sent: the broker does not know it"
            await engine.tell(
                OrderChanged(
                    now=engine.clock(),
                    fact=SubmitFailed(local_id=order.local_id, at=engine.clock(), detail=detail),
                )
            )
        elif not found and is_start and order.state is OrderState.SUBMITTED and order.role is not Role.ENTRY:
            engine.spawn(engine.desk.send(order))
        elif not found:
            engine.desk.settle_unknown(order)
        for status in sorted(found, key=_submitted_at):
            await engine.report(status, reconciling=True)
        if is_start and order.requested_stop_price is not None:
            await engine.desk.settle_replacement(order)

    # --- acting -------------------------------------------------------------------------------------------------------

    async def _act(self, findings: Findings, listed: dict[str, OrderStatus], began: datetime) -> None:
        engine = self._engine
        now = engine.clock()
        adopts = engine.config["adopt_positions"]
        changed = {split.symbol for split in findings.splits}
        changed |= {found.symbol for found in findings.unknown if found.held}
        changed |= {found.symbol for found in findings.gone if abs(found.held) > found.qty}
        undone_in = {order.symbol for order, _ in self._busted.values()}
        for symbol in sorted(changed):
            reason = "the broker holds another number of shares, and no order of ours tells why"
            if symbol in undone_in:
                reason = "the exchange took an execution of ours back (a bust)"
            await engine.block_symbol(symbol, reason, cause=QUANTITY, is_alarm=True)
        for split in findings.splits:
            words = f"{split.held_qty} {split.symbol} became {split.qty} at the same cost (a split?)"
            await engine.tell(
                PositionGone(
                    now=now, symbol=split.symbol, qty=split.held_qty, price=split.cost, held=split.held, detail=words
                )
            )
            await engine.tell(
                PositionAdopted(
                    now=now, symbol=split.symbol, side=split.side, qty=split.qty, price=split.price,
                    stop_price=split.stop_price, held=Decimal(0), detail=words,
                )
            )  # fmt: skip
        for gone in findings.gone:
            undone = self._undo(gone, bought=gone.side is Side.LONG)
            price, words = undone or (gone.price, "")
            await engine.tell(
                PositionGone(
                    now=now, symbol=gone.symbol, qty=gone.qty, price=price, held=gone.held, detail=words,
                    estimated=undone is None,
                )
            )  # fmt: skip
        if adopts:
            for found in findings.unknown:
                price, words = self._undo(found, bought=found.side is Side.SHORT) or (found.price, "")
                await engine.tell(
                    PositionAdopted(
                        now=now, symbol=found.symbol, side=found.side, qty=found.qty, price=price, held=found.held,
                        detail=words,
                    )
                )  # fmt: skip
        await self._act_on_strays(findings, listed, began)
        if not adopts:
            await self._show_foreign(findings)

    async def _act_on_strays(self, findings: Findings, listed: dict[str, OrderStatus], began: datetime) -> None:
        """Orders of nobody: a stop that covers a position is taken over, the others are cancelled, if we may."""
        engine = self._engine
        for order in listed.values():
            is_fresh = order.submitted_at >= began - FRESH
            if is_fresh and is_our_pattern(order.client_order_id) and not await self._is_ours(order.client_order_id):
                await self._meet_another_engine(order)
        if not engine.config["adopt_positions"]:
            return
        for stray in findings.strays:
            if OTHER_ENGINE in engine.trader.blocks_of(stray.symbol):
                continue
            position, stop_price = engine.trader.portfolio.positions.get(stray.symbol), stray.stop_price
            has_stop = engine.trader.stop_of(stray.symbol) is not None
            if position is not None and not has_stop and stop_price is not None and covers(stray, position):
                await engine.tell(
                    StopAdopted(
                        now=engine.clock(), symbol=stray.symbol, broker_id=stray.broker_order_id,
                        qty=stray.qty - stray.filled_qty, stop_price=stop_price,
                    )
                )  # fmt: skip
                continue
            log.warning("reconcile.stray_order", symbol=stray.symbol, broker_id=stray.broker_order_id)
            try:
                await engine.calls.cancel(stray.broker_order_id)
            except (OrderRefused, NotFound) as refusal:
                log.info("cancel.refused", broker_id=stray.broker_order_id, reason=str(refusal))

    async def _show_foreign(self, findings: Findings) -> None:
        """What is not ours is shown, counted in equity and never touched; its symbols take no entries."""
        engine, trader = self._engine, self._engine.trader
        now = engine.clock()
        shares = {
            found.symbol: ForeignHeld(
                now=now,
                symbol=found.symbol,
                qty=found.qty if found.side is Side.LONG else -found.qty,
                price=found.price,
            )
            for found in findings.unknown
        }
        sold = {symbol: replace(known, now=now, qty=Decimal(0)) for symbol, known in trader.foreign.items()}
        for symbol, held in sorted((sold | shares).items()):
            known = trader.foreign.get(symbol)
            if known is None or known.qty != held.qty:
                await engine.tell(held)
        reasons = {stray.symbol: "foreign orders on the account" for stray in findings.strays}
        reasons |= dict.fromkeys(shares, "foreign shares on the account")
        blocked = {symbol for symbol, causes in trader.blocks().items() if FOREIGN in causes}
        for symbol in sorted(reasons.keys() | blocked):
            await engine.block_symbol(symbol, reasons.get(symbol, ""), cause=FOREIGN)

    async def _meet_another_engine(self, order: OrderStatus) -> None:
        """An order that an engine of this program has just sent, and not this one: the later of the two stops."""
        engine = self._engine
        log.critical("engine.not_alone", symbol=order.symbol, client_order_id=order.client_order_id)
        words = f"another engine trades on this account: it has sent {order.client_order_id} for {order.symbol}"
        if monotonic() - self._born < YOUNG_SECONDS or not engine.trade_stream_up.is_set():
            engine.stop(words, failed=True)
        else:
            await engine.block_symbol(order.symbol, words, cause=OTHER_ENGINE, is_alarm=True)


def _submitted_at(status: OrderStatus) -> datetime:
    return status.submitted_at
