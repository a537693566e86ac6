"""The live engine: one inbox, one Trader, and the order in which things happen around it.

An event is handled, everything it changed is written in one transaction, and only then the commands it led to are
carried out, each in a task of its own; their answers come back into the inbox. Events that wait one behind the other
are written together. Nothing else touches the Trader.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from time import monotonic
from typing import Any, NamedTuple, Protocol

import structlog

from orders import store as order_store
from orders.events import Fact, Submitted
from orders.lifecycle import Order, OrderState, local_id_of
from orders.reports import Execution, OrderReport, facts
from risk.config import Config
from trading import store
from trading.batch import Batch
from trading.broker import CorrectedBar, NotAuthorized, OrderStatus, StreamState, TradeUpdate, TradingStatus
from trading.cover import Cover, CoverMeter
from trading.live import meters
from trading.live.broadcast import MOST_SYMBOLS_SHOWN, Broadcaster
from trading.live.calls import BrokerCalls
from trading.live.desk import Desk
from trading.live.emergency import EmergencyJournal
from trading.live.ledger import Ledger, LedgerUnavailable
from trading.live.recording import Recorder
from trading.live.recovery import REVISIONS, Recovery
from trading.live.sessions import Sessions
from trading.live.watch import Watch
from trading.live.writer import LedgerWriter
from trading.logbook import Entry, is_told
from trading.market import Bar
from trading.messages import (
    ActivityRecorded,
    BarDelivered,
    CancelOrder,
    CandleClosed,
    CloseRequested,
    Command,
    CompareWithBroker,
    CoverMeasured,
    DataEnded,
    DecisionRecorded,
    EntriesBlocked,
    Event,
    LedgerLost,
    LedgerRegained,
    Level,
    NakedTooLong,
    Noted,
    OrderChanged,
    OrderRecorded,
    OrdersRecalled,
    Record,
    RefreshAccount,
    ReplaceStop,
    RequestHistory,
    SessionStarted,
    ShuttingDown,
    SubmitOrder,
    SymbolBlocked,
    TimerFired,
)
from trading.reconcile import is_our_pattern
from trading.trader import HALT, Trader

log = structlog.get_logger("engine")

ROUTINE_EVENTS = frozenset(
    {"new", "accepted", "pending_new", "fill", "partial_fill", "canceled", "expired", "replaced"}
)
# They say that something is not as it was thought to be, but not what it is now.
EVENTS_TO_ASK_ABOUT = frozenset({"order_replace_rejected", "order_cancel_rejected"})
ON_TIME = timedelta(seconds=2)  # a bar this little late counts as delivered at its minute's end
IN_FLIGHT_SECONDS = 5.0
LONGEST_SLEEP_SECONDS = 0.25
MOST_BARS_WAITING = 1000  # read from the stream and not worked off
MOST_TAKEN_TOGETHER = 100  # entries of the inbox, before others have their turn
RECORDING_SECONDS = 1.0
NOT_KNOWN = "whether the broker has an order is not known, the next start asks again"


class Lockstep(Protocol):
    """The engine's side of the handshake with a market in the same process."""

    def worked_off(self, kind: str) -> None:
        """One frame of that kind has been handled, whatever it led to."""

    def changed(self) -> None:
        """The engine may have become idle."""

    async def settled(self) -> None:
        """Returns when every frame was worked off and the engine is idle."""

    def between_steps(self) -> AbstractAsyncContextManager[None]:
        """Holds the market between two of its steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One entry of the inbox: an event, or the broker's report on an order, from which events follow."""

    event: Event | None = None
    report: OrderReport | None = None
    reconciling: bool = False
    frame: str = ""
    done: asyncio.Future[None] | None = None


class _Thought(NamedTuple):
    """An event and what the Trader made of it."""

    event: Event
    answers: Sequence[Command | Record]
    records: Sequence[Record]


class Engine:
    """Runs one Trader against one broker account.

    `clock` tells market time. `lockstep` is set when the market runs in this process and waits for us; then the market
    also says when timers are due. Start with `start`, then keep `run` going until `stopped` is set.
    """

    longest_sleep_seconds = LONGEST_SLEEP_SECONDS  # between two looks at the clock

    def __init__(
        self,
        *,
        config: Config,
        trader: Trader,
        calls: BrokerCalls,
        ledger: Ledger,
        journal: EmergencyJournal,
        token: str,
        recorder: Recorder,
        broadcaster: Broadcaster,
        sessions: Sessions,
        clock: Callable[[], datetime],
        run_id: int,
        lockstep: Lockstep | None = None,
        times_fills: bool = True,
    ) -> None:
        self.config = config
        self.trader = trader
        self.calls = calls
        self.ledger = ledger
        self.writer = LedgerWriter(
            ledger,
            journal,
            token=token,
            patience_seconds=config["db_busy_timeout_ms"] / 1000,
            on_lost=self._ledger_lost,
            on_regained=self._ledger_regained,
            on_full=lambda: self.stop("the ledger cannot be written, and its journal is full", failed=True),
        )
        self.recorder = recorder
        self.broadcaster = broadcaster
        self.sessions = sessions
        self.clock = clock
        self.run_id = run_id
        self.lockstep = lockstep
        self.desk = Desk(self)
        self.recovery = Recovery(self)
        self.watch = Watch(self)
        self.stop_wanted = asyncio.Event()
        self.stop_reason = ""
        self.stop_failed = False
        self.trade_stream_up = asyncio.Event()
        self.bar_stream_up = asyncio.Event()
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._busy = False
        self._in_flight: set[asyncio.Task[None]] = set()
        self._questions: set[asyncio.Task[None]] = set()  # those of them that ask for bars
        self._idle = asyncio.Event()
        self._progress = asyncio.Event()
        self.cover = CoverMeter(times_fills=times_fills)
        broadcaster.show_cover(self.cover)
        broadcaster.give_way_until(self.landed)
        self._alarmed: set[tuple[str, int]] = set()  # stretches without cover that were told of
        self._history: dict[str, list[Fact]] = {}
        self._put_aside: list[_Item] = []  # reports that only the ledger can explain, while it cannot be read
        self._unwritten_activities = 0
        self._bars_waiting = 0
        self._room_for_bars = asyncio.Event()
        self._room_for_bars.set()
        self.bar_arrivals: dict[str, float] = {}
        self.heard_bars_at: datetime | None = None  # market time of the latest message of each stream
        self.heard_updates_at = 0.0  # by the loop's clock
        self.untold_at: float | None = None  # since when there is news that the trade update stream did not bring

    # --- the inbox ----------------------------------------------------------------------------------------------------

    def post(self, event: Event, *, frame: str = "") -> None:
        """Leaves an event for the Trader."""
        self._inbox.put_nowait(_Item(event=event, frame=frame))

    async def tell(self, event: Event) -> None:
        """Leaves an event and returns when it is handled and written down."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Item(event=event, done=done))
        await done

    async def block_entries(self, reason: str, *, cause: str) -> None:
        """No symbol takes entries for this reason; an empty one ends what the cause had stopped."""
        if self.trader.entry_blocks.get(cause, "") != reason:
            await self.tell(EntriesBlocked(now=self.clock(), cause=cause, reason=reason))

    async def block_symbol(self, symbol: str, reason: str, *, cause: str, is_alarm: bool = False) -> None:
        """The same for one symbol."""
        if self.trader.blocks_of(symbol).get(cause, "") != reason:
            await self.tell(
                SymbolBlocked(now=self.clock(), symbol=symbol, reason=reason, cause=cause, is_alarm=is_alarm)
            )

    async def report(self, status: OrderStatus | TradeUpdate, *, frame: str = "", reconciling: bool = False) -> None:
        """Hands in the broker's view of an order; returns when what follows from it is written down."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        report = order_report(status)
        self._inbox.put_nowait(_Item(report=report, frame=frame, reconciling=reconciling, done=done))
        await done

    def between_steps(self) -> AbstractAsyncContextManager[None]:
        """For what comes from outside the market: one in this process does not move on until it is handled."""
        return self.lockstep.between_steps() if self.lockstep is not None else nullcontext()

    def is_idle(self) -> bool:
        """Whether nothing is waiting, being handled, or on its way to or from the broker."""
        return not self._busy and self._inbox.empty() and not self._in_flight

    async def work(self) -> None:
        """Takes the inbox's entries in their order, for ever; events that wait one behind the other share a write."""
        while True:
            items = [await self._inbox.get()]
            while len(items) < MOST_TAKEN_TOGETHER and not self._inbox.empty():
                items.append(self._inbox.get_nowait())
            self._busy = True
            self._idle.clear()
            for is_event, some in groupby(items, key=lambda item: item.event is not None):
                for together in [list(some)] if is_event else ([item] for item in some):
                    await self._take(together)
            self._busy = False
            self._settle()
            if len(items) == MOST_TAKEN_TOGETHER:
                await asyncio.sleep(0)  # whoever else has something to do

    async def _take(self, items: Sequence[_Item]) -> None:
        """Handles events together, or one report."""
        try:
            if items[0].report is not None:
                await self._take_report(items[0], items[0].report)
            else:
                await self._handle(*(item.event for item in items if item.event is not None))
        except Exception as error:  # whatever it is: nothing goes on with money after a half-handled event
            log.critical("engine.event_failed", exc_info=error)
            self.stop(f"an event could not be handled: {type(error).__name__}: {error}", failed=True)
        finally:
            for item in items:
                self._done_with(item)

    def _done_with(self, item: _Item) -> None:
        if item.done is not None and not item.done.done():
            item.done.set_result(None)
        if self.lockstep is not None and item.frame:
            self.lockstep.worked_off(item.frame)
        if item.frame == "bar":
            self._bars_waiting -= 1
            if self._bars_waiting < MOST_BARS_WAITING:
                self._room_for_bars.set()

    async def _take_report(self, item: _Item, report: OrderReport) -> None:
        try:
            news = await self._facts(report, reconciling=item.reconciling)
        except LedgerUnavailable:
            self._put_aside.append(_Item(report=report, reconciling=item.reconciling))
            return
        for fact in news:
            await self._handle(OrderChanged(now=self.clock(), fact=fact))

    async def _facts(self, report: OrderReport, *, reconciling: bool) -> Sequence[Any]:
        account_id = self.trader.account_id
        order = self._known_order(report)
        is_forgotten = order is None
        if order is None and is_our_pattern(report.client_order_id):
            local_id = local_id_of(report.client_order_id)
            order = await self.writer.read(order_store.find_order, account_id, local_id)
        if order is None:
            order = await self.writer.read(order_store.find_order_by_broker_id, account_id, report.broker_id)
        if order is None:
            log.info("order.foreign", client_order_id=report.client_order_id, broker_id=report.broker_id)
            self.recovery.ask()
            return ()
        history = self._history.get(order.local_id)
        if history is None:
            await self.remember([order.local_id])
            history = self._history[order.local_id]
        news = facts(order, report, history=history, now=self.clock(), reconciling=reconciling)
        if news and reconciling and self.untold_at is None:
            self.untold_at = asyncio.get_running_loop().time()
        if news and is_forgotten:
            orders = await self.writer.read(order_store.orders_by_correlation, account_id, order.correlation_id)
            await self._handle(OrdersRecalled(now=self.clock(), orders=tuple(orders)))
        return news

    async def remember(self, local_ids: Sequence[str]) -> None:
        """Reads the history of these orders, so that news of them can be understood while the ledger is lost."""
        self._history |= await self.writer.read(order_store.facts_of, self.trader.account_id, local_ids)

    def _known_order(self, report: OrderReport) -> Order | None:
        """The order of ours that a report is about; one that was taken over has a client id that is not ours."""
        orders = self.trader.orders
        order = orders.get(local_id_of(report.client_order_id))
        return order or next((each for each in orders.values() if each.broker_id == report.broker_id), None)

    async def _handle(self, *events: Event) -> None:
        """Think, write down, act: in this order."""
        thoughts: list[_Thought] = []
        try:
            for event in events:
                thought = self._think(event)
                thoughts.append(thought)
        finally:  # what was thought before one that cannot be handled holds
            thoughts += self._send_off(thoughts)
            await self._write_and_act(thoughts)

    def _think(self, event: Event) -> _Thought:
        answers = self.trader.handle(event)
        records = [answer for answer in answers if isinstance(answer, Record)]
        return _Thought(event, answers, records + self._measure_cover(records))

    def _send_off(self, thoughts: Sequence[_Thought]) -> list[_Thought]:
        """New orders that leave as soon as this is written down are written down as submitted with it."""
        answers = [answer for thought in thoughts for answer in thought.answers]
        orders = [answer.order for answer in answers if isinstance(answer, SubmitOrder)]
        now = self.clock()
        return [
            self._think(OrderChanged(now=now, fact=Submitted(local_id=order.local_id, at=now)))
            for order in orders
            if self.desk.take_up(order)
        ]

    async def _write_and_act(self, thoughts: Sequence[_Thought]) -> None:
        rows = [
            record for thought in thoughts for record in thought.records if not isinstance(record, CandleClosed | Noted)
        ]
        if rows:
            await self._write(rows, urgent=any(_protects(answer) for thought in thoughts for answer in thought.answers))
        elif any(isinstance(answer, Command) for thought in thoughts for answer in thought.answers):
            await self.writer.confirm()
        for thought in thoughts:
            self._publish(thought.event, thought.records)
            for answer in thought.answers:
                if isinstance(answer, Command):
                    self._carry_out(answer)

    def _measure_cover(self, records: Sequence[Record]) -> list[Record]:
        """What is to be written down of the positions that these records close."""
        measured: list[Record] = []
        for record in records:
            if isinstance(record, OrderRecorded):
                cover = self.cover.take(record.order, record.fact)
                if cover is not None:
                    measured.append(CoverMeasured(at=self.trader.now, cover=cover))
                    log.info("cover.measured", symbol=cover.symbol, seconds=cover.seconds, dollars=cover.most_dollars)
                elif record.order.is_terminal and not record.order.qty_filled:
                    self.cover.forget(record.order.correlation_id)
                cover = cover or self.cover.open(self.trader.now).get(record.order.symbol)
                if cover is not None and cover.since is None:  # it is over; it may have been too long all the same
                    self._alarm_if_naked_too_long(cover)
        return measured

    def measure_again(self) -> None:
        """Begins to measure from the history of the orders that the ledger gave us."""
        self.cover.start_again((order, self._history.get(order.local_id, ())) for order in self.trader.orders.values())

    async def note(self, record: ActivityRecorded) -> None:
        """Writes down, logs and shows what is no consequence of an event."""
        await self._write([record], urgent=False)
        _log_record(record)

    async def _write(self, records: Sequence[Record], *, urgent: bool) -> None:
        started = monotonic()
        batch = Batch(
            account_id=self.trader.account_id,
            run_id=self.run_id,
            settings_hash=self.config.fingerprint(),
            real_at=datetime.now(UTC),
            records=tuple(records),
        )
        activity_ids = await self.writer.write(batch, urgent=urgent)
        log.debug("ledger.write", records=len(records), duration_ms=round((monotonic() - started) * 1000, 3))
        activities = [record for record in records if isinstance(record, ActivityRecorded)]
        if activity_ids is None:  # the pages show what happens, under ids that no row has
            self._unwritten_activities += len(activities)
            first = -self._unwritten_activities
            activity_ids = list(range(first, first + len(activities)))
        for activity_id, activity in zip(activity_ids, activities, strict=True):
            self.broadcaster.activity(activity_id, activity)

    def _publish(self, event: Event, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, OrderRecorded):
                self._history.setdefault(record.order.local_id, []).append(record.fact)
            elif isinstance(record, DecisionRecorded):
                meters.DECISIONS.labels(record.refused_by or "none").inc()
            elif isinstance(record, CandleClosed):
                if record.is_live or self._is_worth_recording(record):
                    self.recorder.add_candle(record)
                self.broadcaster.candle_closed(record)
            elif isinstance(record, ActivityRecorded | Noted):
                _log_record(record)
        if isinstance(event, SessionStarted):  # the Trader has forgotten the orders of earlier days
            self._history = {
                local_id: facts for local_id, facts in self._history.items() if local_id in self.trader.orders
            }
        if isinstance(event, BarDelivered):
            self.recorder.add_bar(event.bar, delivered_at=event.now, received_real_at=datetime.now(UTC))
            self.broadcaster.bar(event.bar)
        elif is_told(event):
            self.log_told(event)
        self.broadcaster.changed()

    def _is_worth_recording(self, closed: CandleClosed) -> bool:
        """Charts begin with the days before, which of thousands of symbols would be hundreds of megabytes."""
        session = self.trader.session
        is_of_today = session is not None and closed.candle.timestamp >= session.open
        return is_of_today or len(self.trader.books) <= MOST_SYMBOLS_SHOWN

    def log_told(self, entry: Entry) -> None:
        """Keeps what the Trader was told, so that the run can be repeated."""
        self.recorder.add_told(entry, datetime.now(UTC), self.config.as_texts())

    def _carry_out(self, command: Command) -> None:
        match command:
            case SubmitOrder():
                self.spawn(self.desk.submit(command.order))
            case CancelOrder():
                self.spawn(self.desk.cancel(command.order))
            case ReplaceStop():
                self.spawn(self.desk.replace_stop(command.order, command.stop_price))
            case RefreshAccount():
                self.spawn(self.desk.refresh_account())
            case CompareWithBroker():
                self.recovery.ask()
            case RequestHistory():
                self.ask_history(self.sessions.answer_window(self, command))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts an action that the engine counts as in flight until it ends; protective ones are never cancelled."""
        task = asyncio.create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._landed)
        return task

    def ask_history(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a question for bars, in flight like an action. An engine that ends neither asks nor waits for one."""
        if self.stop_wanted.is_set():
            work.close()
            return
        task = self.spawn(work)
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def abandon(self) -> None:
        """Ends what is still in flight when its time is up: its outcome is for the next start to find out."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self.look_at_failure(task)
        self._settle()

    def look_at_failure(self, task: asyncio.Task[None]) -> None:
        """An action that failed in a way nobody foresaw ends the engine; refused keys do."""
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, NotAuthorized):
                self.stop(f"the broker refuses our keys: {error}", failed=True)
            else:
                log.error("engine.action_failed", exc_info=error)
                self.stop(f"an action failed unexpectedly: {type(error).__name__}: {error}", failed=True)

    def _settle(self) -> None:
        """Notes whether the engine is idle, for whoever waits for that."""
        self._progress.set()
        if self.is_idle():
            self._idle.set()
        else:
            self._idle.clear()
        if self.lockstep is not None:
            self.lockstep.changed()

    # --- a ledger that cannot be written ------------------------------------------------------------------------------

    async def keep_ledger(self) -> None:
        """Writes down what waits as soon as that works again, for ever."""
        try:
            await self.writer.run()
        except (store.LeaseLost, *store.DOES_NOT_FIT) as error:
            self.stop(f"what waited for the ledger cannot be written: {error}", failed=True)
            await asyncio.Event().wait()

    async def keep_pulse(self) -> None:
        """Notices, for ever, when this process has stood still: somebody may have taken over meanwhile."""
        await self.writer.keep_pulse()

    def _ledger_lost(self, reason: str) -> None:
        self.broadcaster.ledger(reason)
        self.post(LedgerLost(now=self.clock(), reason=reason))

    def _ledger_regained(self) -> None:
        self.broadcaster.ledger("")
        self.post(LedgerRegained(now=self.clock()))
        put_aside, self._put_aside = self._put_aside, []
        for item in put_aside:
            self._inbox.put_nowait(item)
        if not self.stop_wanted.is_set():
            self.recovery.ask(whole_day=True)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def on_bar(self, bar: Bar) -> None:
        """A bar from the stream. One that is on time counts as delivered at its minute's end."""
        now = self.clock()
        self.watch.look_at_jump(bar)
        self.bar_arrivals[bar.symbol] = monotonic()
        meters.BARS.inc()
        meters.BAR_LAG.observe(max((now - bar.delivered_at).total_seconds(), 0))
        is_on_time = bar.delivered_at <= now < bar.delivered_at + ON_TIME
        self._bars_waiting += 1
        if self._bars_waiting >= MOST_BARS_WAITING:
            self._room_for_bars.clear()
        self.post(BarDelivered(now=bar.delivered_at if is_on_time else now, bar=bar), frame="bar")

    async def follow_bars(self) -> None:
        """Reads the bar stream until it ends, no faster than it is worked off: what waits, waits there, bounded."""
        async for item in self.sessions.data.subscribe_bars(self.trader.managed_symbols()):
            self.heard_bars_at = self.clock()
            match item:
                case Bar():
                    await self._room_for_bars.wait()
                    self.on_bar(item)
                case CorrectedBar():
                    self.recorder.add_correction(item.bar, received_real_at=datetime.now(UTC))
                case TradingStatus():
                    reason = f"halted by the exchange: {item.reason}" if item.halted else ""
                    self.post(SymbolBlocked(now=self.clock(), symbol=item.symbol, reason=reason, cause=HALT))
                case StreamState():
                    self._stream_changed(self.bar_stream_up, item, "bars")
                    if item.missed:
                        self.ask_history(self.sessions.fetch_missed(self, item.missed))
                    elif item.connected:
                        self.ask_history(self.sessions.fill_gap(self))

    async def follow_trade_updates(self) -> None:
        """Reads the trade update stream until it ends; after every connect ledger and broker are compared."""
        async for item in self.calls.broker.subscribe_trade_updates():
            self.heard_updates_at = asyncio.get_running_loop().time()
            if isinstance(item, TradeUpdate):
                self._inbox.put_nowait(_Item(report=order_report(item), frame="update"))
                if item.event in REVISIONS:
                    self.spawn(self.recovery.revise(item))
                elif item.event in EVENTS_TO_ASK_ABOUT:
                    self.recovery.ask()
            else:
                self._stream_changed(self.trade_stream_up, item, "trade updates")
                if item.connected:
                    self.recovery.ask(whole_day=True)

    def read_meters(self) -> str:
        """What the engine has counted so far, in Prometheus' text format. Any thread may ask."""
        meters.QUEUE_DEPTH.set(self._inbox.qsize())
        return meters.text()

    def _stream_changed(self, flag: asyncio.Event, state: StreamState, name: str) -> None:
        if state.connected:
            flag.set()
            log.info("stream.connected", stream=name)
        else:
            flag.clear()
            meters.LOST_STREAMS.labels(name).inc()
            log.warning("stream.lost", stream=name, reason=state.detail, retry_seconds=state.retry_seconds)
        meters.STREAM_UP.labels(name).set(state.connected)
        self.watch.stream_changed(name, state)
        self.broadcaster.streams(
            bars=self.bar_stream_up.is_set(),
            trade_updates=self.trade_stream_up.is_set(),
            detail=state.detail,
            retry_seconds=state.retry_seconds,
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_due(self) -> datetime | None:
        """When something is to be done without being told: the Trader's earliest timer, or the next session's open.

        A session begins with what the ledger knows of it: not before that can be read.
        """
        opens = None if self.writer.problem else self.sessions.next_due
        moments = (self.trader.next_due(), opens, self._next_naked_alarm())
        return min((moment for moment in moments if moment is not None), default=None)

    def _next_naked_alarm(self) -> datetime | None:
        """When the shares that have been naked longest will have been so for too long."""
        allowed = timedelta(seconds=float(self.config["orders.naked_alarm_seconds"]))
        covers = self.cover.open(self.clock()).values()
        return min((cover.since + allowed for cover in covers if cover.since and self._is_news(cover)), default=None)

    def _alarm_if_naked_too_long(self, cover: Cover) -> None:
        """Tells the Trader, once a stretch."""
        if self._is_news(cover) and cover.latest_seconds >= float(self.config["orders.naked_alarm_seconds"]):
            self._alarmed.add((cover.correlation_id, cover.stretches))
            self.post(
                NakedTooLong(
                    now=self.clock(),
                    symbol=cover.symbol,
                    seconds=cover.latest_seconds,
                    dollars=cover.dollars or cover.most_dollars,
                )
            )

    def _is_news(self, cover: Cover) -> bool:
        return (cover.correlation_id, cover.stretches) not in self._alarmed

    async def fire_timers(self, now: datetime) -> None:
        """Fires everything due at or before `now`, one after another, each worked off to its end."""
        while (due := self.next_due()) is not None and due <= now:
            if self.sessions.next_due == due and not self.writer.problem:
                try:
                    await self.sessions.fire(self, due)
                except LedgerUnavailable as error:
                    log.error("session.waits_for_the_ledger", reason=str(error))
            elif self.trader.next_due() == due:
                await self.tell(TimerFired(now=due))
            else:
                for cover in self.cover.open(now).values():
                    self._alarm_if_naked_too_long(cover)
            if self.lockstep is not None:
                await self.lockstep.settled()
        if self.lockstep is not None:
            await self.watch.look()

    async def keep_time(self) -> None:
        """Fires timers by the clock, where no market in this process says when."""
        while True:
            due, now = self.next_due(), self.clock()
            if due is not None and due <= now:
                await self.fire_timers(now)
            delay = self.longest_sleep_seconds if due is None else (due - now).total_seconds()
            await asyncio.sleep(min(max(delay, 0.0), self.longest_sleep_seconds))

    async def keep_recording(self) -> None:
        """Writes what the recorder has collected, about every second."""
        while True:
            await asyncio.sleep(RECORDING_SECONDS)
            if self.recorder.is_behind:
                await self.recorder.flush()

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self, reason: str, *, failed: bool = False) -> None:
        """Asks for a graceful shutdown; `failed` makes the process exit 1."""
        if not self.stop_wanted.is_set():
            self.stop_reason = reason
            self.stop_failed = failed
            self.stop_wanted.set()

    def fail(self, *problems: str) -> None:
        """Makes the stop that was asked for one in bad order, for these reasons."""
        self.stop_failed = True
        self.stop_reason = "; ".join([self.stop_reason, *problems])

    async def end_data(self) -> None:
        """The recorded data is over: closes what is open, as a backtest does, and stops."""
        await self.tell(DataEnded(now=self.clock()))
        await self.landed()
        self.stop("the recorded data is over")

    async def wind_down(self, *, flatten: bool = False) -> None:
        """No new signals, time for orders in flight and exits begun, entries cancelled; stops stay and are verified.

        An entry that may still fill, one that the broker may have or not, or shares that the broker shows no stop for,
        make it a stop in bad order. The next start finds out what became of them.
        """
        self.broadcaster.shutting_down()
        await self.tell(ShuttingDown(now=self.clock()))
        if flatten:
            await self.tell(CloseRequested(now=self.clock()))
        for question in self._questions:
            question.cancel()
        self.desk.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(IN_FLIGHT_SECONDS):
                while self._working(flatten=flatten) or not self.is_idle():
                    self._progress.clear()
                    await self._progress.wait()
        left = self._working(flatten=flatten)
        unknown = {each.symbol for each in left if isinstance(each, Order) and each.state is OrderState.SUBMITTED}
        unfinished = {each.symbol for each in left} - unknown
        for symbol in sorted(unknown | unfinished):
            log.critical("shutdown.unfinished", symbol=symbol, is_unknown=symbol in unknown)
        problems = [
            *([f"{NOT_KNOWN}: {', '.join(sorted(unknown))}"] if unknown else []),
            *([f"not finished in time: {', '.join(sorted(unfinished))}"] if unfinished else []),
        ]
        if problem := await self.desk.verify_protection():
            problems.append(problem)
        if problems:
            self.fail(*problems)

    def _working(self, *, flatten: bool) -> list[Any]:
        orders = [order for order in self.trader.orders.values() if not order.is_terminal]
        if flatten:
            return [*orders, *self.trader.portfolio.positions.values()]
        leaving = [book for book in self.trader.books.values() if book.exit_reason]
        return [*(order for order in orders if order.role == "entry"), *leaving]

    async def landed(self) -> None:
        """Returns when nothing is waiting or in flight any more."""
        await self._idle.wait()


def order_report(news: OrderStatus | TradeUpdate) -> OrderReport:
    """An answer or a stream message as a report on one order."""
    update = news if isinstance(news, TradeUpdate) else None
    order = news.order if isinstance(news, TradeUpdate) else news
    execution = None
    if (
        update
        and update.event not in REVISIONS
        and update.execution_id
        and update.execution_qty
        and update.execution_price
    ):
        execution = Execution(execution_id=update.execution_id, qty=update.execution_qty, price=update.execution_price)
    return OrderReport(
        client_order_id=order.client_order_id,
        broker_id=order.broker_order_id,
        status=order.status,
        at=update.timestamp if update else order.filled_at or order.updated_at,
        filled_qty=order.filled_qty,
        avg_fill_price=order.avg_fill_price,
        execution=execution,
        stop_price=order.stop_price,
        replaced_by=order.replaced_by,
        detail=update.event if update and update.event not in ROUTINE_EVENTS else "",
    )


def _protects(answer: Command | Record) -> bool:
    """Whether it is a stop or an exit on its way, which the ledger must not hold up."""
    return isinstance(answer, SubmitOrder) and answer.order.role != "entry"


def _log_record(record: ActivityRecorded | Noted) -> None:
    levels = {Level.INFO: log.info, Level.WARNING: log.warning, Level.ERROR: log.error, Level.CRITICAL: log.critical}
    if isinstance(record, Noted):
        levels[record.level]("note", symbol=record.symbol, message=record.message, market_time=record.at.isoformat())
    else:
        levels[record.level](
            record.type,
            symbol=record.symbol,
            message=record.message,
            correlation_id=record.correlation_id,
            market_time=record.at.isoformat(),
        )
