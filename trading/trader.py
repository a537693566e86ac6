"""The one machine: told what happened, it answers what to do and what to write down.

The live engine, the backtester and the fault simulation feed it the same events; there is no other place where a
trading rule lives. After every event that touches a symbol, `_advance` looks at what is held and what is working and
asks for whatever is missing: a stop, a cancellation, an exit. Recovering from a crash is that same look.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from orders.events import (
    Accepted,
    Canceled,
    Expired,
    Fact,
    Filled,
    Rejected,
    Replaced,
    ReplaceRefused,
    ReplaceRequested,
    SubmitFailed,
    Submitted,
)
from orders.lifecycle import TERMINAL, WORKING, Order, OrderState, OrderType, Role, Side, TimeInForce
from orders.portfolio import ImpossibleFill, Portfolio, Position, Trade
from orders.values import quick
from risk.rules import Assessment, EntryRequest, assess
from trading.blotter import Blotter, intent_id
from trading.books import Book, Line, Signal, open_book
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.journal import Journal
from trading.market import Session, round_down, round_up
from trading.messages import (
    AccountReported,
    ActivityType,
    BarDelivered,
    CancelFailed,
    CandlesDelivered,
    CloseDelivered,
    CloseRequested,
    Command,
    CompareWithBroker,
    DataEnded,
    DecisionRecorded,
    EntriesBlocked,
    Event,
    ExecutionCorrected,
    ForeignHeld,
    Halted,
    HaltRecorded,
    HistoryDelivered,
    LedgerLost,
    LedgerRegained,
    Level,
    NakedTooLong,
    OrderChanged,
    OrdersRecalled,
    PositionAdopted,
    PositionGone,
    Reconciled,
    Record,
    RefreshAccount,
    ReplaceStop,
    Restored,
    Resumed,
    SessionRecorded,
    SessionStarted,
    SettingsChanged,
    ShuttingDown,
    StopAdopted,
    StopMoveRequested,
    SubmitOrder,
    SymbolBlocked,
    TimerFired,
    TradeRecorded,
    WatchlistChanged,
)
from trading.settings import TraderSettings
from trading.strategy import Condition, Holding, Strategy
from trading.tape import Tape
from trading.timers import Kind, Timers
from trading.wording import dollars, fill_in_words, in_words, trade_in_words

Answer = TypeVar("Answer")

ZERO = Decimal(0)
LATEST = datetime.max.replace(tzinfo=UTC)
STANDING_MARGIN = Decimal("0.01")  # of the session's start equity, so that a refusal stands for a while
SMALLEST_PROTECTED_QTY = 5
ACCOUNT_MAX_AGE = timedelta(seconds=30)
FIRST_RETRY = timedelta(seconds=1)
LAST_RETRY = timedelta(seconds=30)
ADOPTED = "adopted"  # the strategy of positions that no strategy of ours opened
NOT_WATCHED = "not on the watchlist any more"
GIVE_UP_BEFORE_CLOSE = timedelta(seconds=10)  # an exit that did not fill by then makes way for the stop
END_OF_DATA = "end_of_data"

# Why a symbol takes no entries. Each cause is lifted by whoever named it.
HALT, UNKNOWN, STRATEGY, WATCHLIST = "halt", "unknown", "strategy", "watchlist"


_entry_request = quick(EntryRequest)
_holding = quick(Holding)
_signal = quick(Signal)
_replace_requested, _replace_stop = quick(ReplaceRequested), quick(ReplaceStop)
_submit_order = quick(SubmitOrder)


class Standing(NamedTuple):
    """A refusal that meets every signal before `until` while the equity is above `floor`; no code if there is none."""

    code: str
    until: datetime
    floor: Decimal


class Proposal(NamedTuple):
    """An entry and its protection, and what the rules say to it: `qty` shares, or the code that refuses it."""

    side: Side
    entry_price: Decimal
    stop_price: Decimal
    qty: Decimal
    refused_by: str


class StrategyFailed(Exception):
    """A strategy raised: its symbol takes no more entries, everything else goes on."""


class Trader:
    """Decides for one account.

    `account_id` seeds the ids of all orders. `asks_broker` is True where a broker's account can be asked before an
    entry; a backtest has none. `now` is the market time of the latest event. `decisions` counts the signals by the risk
    code that refused them, "" for those that became orders.

    A driver that has all bars in advance may make the candles itself: with `makes_candles` False it delivers those that
    matter (`CandlesDelivered`), and no bars. Without `keeps_records` the answers are commands and trades alone.
    """

    def __init__(
        self,
        *,
        settings: TraderSettings,
        symbols: Iterable[str],
        cash: Decimal,
        account_id: str,
        asks_broker: bool,
        makes_candles: bool = True,
        keeps_records: bool = True,
    ) -> None:
        self.settings = settings
        self.account_id = account_id
        self.portfolio = Portfolio(cash=cash)
        self.start_equity = cash
        self.halted = ""
        self.shutting_down = False
        self.ledger_problem = ""
        self.tripped: dict[str, datetime] = {}
        self.losses_in_a_row = 0
        self.entry_blocks: dict[str, str] = {}
        self.foreign: dict[str, ForeignHeld] = {}
        self.decisions: Counter[str] = Counter()
        self._blocks: dict[str, dict[str, str]] = {}
        self._asks_broker = asks_broker
        self._account: AccountReported | None = None
        self._account_asked = False
        self._journal = Journal(keeps_records=keeps_records)
        self._timers = Timers()
        self._blotter = Blotter(self._journal)
        self._tape = Tape(
            journal=self._journal, timers=self._timers, on_candle=self._on_candle, makes_candles=makes_candles
        )
        self.books: dict[str, Book] = {}
        for symbol in symbols:
            self._book(symbol)
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            BarDelivered: self._on_bar,
            CandlesDelivered: self._on_candles,
            CloseDelivered: self._on_close,
            OrderChanged: self._on_order,
            TimerFired: self._on_timer,
            HistoryDelivered: self._on_history,
            SessionStarted: self._on_session,
            AccountReported: self._on_account,
            CancelFailed: self._on_cancel_failed,
            Halted: self._on_halted,
            Resumed: self._on_resumed,
            ShuttingDown: self._on_shutting_down,
            LedgerLost: self._on_ledger_lost,
            LedgerRegained: self._on_ledger_regained,
            NakedTooLong: self._on_naked_too_long,
            CloseRequested: self._on_close_requested,
            StopMoveRequested: self._on_stop_move_requested,
            SymbolBlocked: self._on_symbol_blocked,
            EntriesBlocked: self._on_entries_blocked,
            SettingsChanged: self._on_settings_changed,
            WatchlistChanged: self._on_watchlist_changed,
            Restored: self._on_restored,
            OrdersRecalled: self._on_orders_recalled,
            PositionAdopted: self._on_position_adopted,
            PositionGone: self._on_position_gone,
            ExecutionCorrected: self._on_execution_corrected,
            StopAdopted: self._on_stop_adopted,
            ForeignHeld: self._on_foreign_held,
            Reconciled: self._on_reconciled,
            DataEnded: self._on_data_ended,
        }
        self._consequences: dict[type[Fact], Callable[[Book, Order, Any], None]] = {
            Filled: self._on_fill,
            Accepted: self._on_accepted,
            Replaced: self._on_replaced,
            Canceled: self._on_ended,
            Expired: self._on_ended,
            Rejected: self._on_refused,
            SubmitFailed: self._on_refused,
            ReplaceRefused: self._on_replace_refused,
        }

    # --- the two doors ------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Command | Record]:
        """Takes in one event; the answer is in the order in which it is to be written down and carried out.

        Raises:
            UnknownOrder: a fact about an order that is not ours.
            IllegalTransition, ImpossibleFill: the fact contradicts what is known; start again from the ledger.
        """
        answers = self._journal.open(event.now)
        self._handlers[type(event)](event)
        return answers

    def next_due(self) -> datetime | None:
        """When the earliest timer is due: the driver answers with one `TimerFired` at that time."""
        timer = self._timers.next()
        return timer[0] if timer else None

    def next_timer(self) -> tuple[datetime, Kind, int] | None:
        """The first timer, with its kind and its symbol's place in the watchlist: its rank within a moment.

        It may have lost its reason; `next_due` is not before it.
        """
        return self._timers.first

    # --- what others may ask ------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Market time of the latest event."""
        return self._journal.now

    @property
    def keeps_records(self) -> bool:
        """Whether the answers hold records besides commands and trades."""
        return self._journal.keeps_records

    @property
    def session(self) -> Session | None:
        """The session of the latest bar, running or over."""
        return self._tape.session

    @property
    def orders(self) -> dict[str, Order]:
        """Orders by local id: all that can still change, and those of open round trips and of this session."""
        return self._blotter.orders

    @property
    def last_prices(self) -> dict[str, Decimal]:
        """Each symbol's last delivered close."""
        return self._tape.last_prices

    @property
    def rejected_bars(self) -> int:
        """Bars that could not be true."""
        return self._tape.rejected_bars

    @property
    def late_bars(self) -> int:
        """Bars that came after their candle was closed."""
        return self._tape.late_bars

    def equity(self) -> Decimal:
        """Cash folded from our fills plus open positions at the last delivered close, dollars; foreign shares count."""
        equity = self.portfolio.equity(self.last_prices)
        for foreign in self.foreign.values():
            equity += foreign.qty * self.last_prices.get(foreign.symbol, foreign.price)
        return equity

    def blocks(self) -> dict[str, dict[str, str]]:
        """Reasons by cause for which symbols take no entries; those of all symbols under an empty one."""
        every = {"": self.entry_blocks, **self._blocks}
        return {symbol: dict(reasons) for symbol, reasons in every.items() if reasons}

    def blocks_of(self, symbol: str) -> Mapping[str, str]:
        """The same of one symbol alone."""
        return self._blocks.get(symbol, {})

    def block_of(self, symbol: str) -> str:
        """Why the symbol takes no entries, empty if it does."""
        return "; ".join([*self.entry_blocks.values(), *self._blocks.get(symbol, {}).values()])

    def buying_power(self) -> Decimal:
        """What an entry may cost: our cash less what working entries reserve, never more than the broker's figure."""
        reserved = sum([e.qty_left * (e.stop_price or ZERO) for e in self._blotter.entries.values()], ZERO)
        if self.settings.risk.allow_margin:
            exposure = sum(
                (
                    abs(p.market_value(self.last_prices.get(p.symbol, p.avg_entry_price)))
                    for p in self.portfolio.positions.values()
                ),
                ZERO,
            )
            ours = 2 * self.equity() - exposure - reserved  # Regulation T: half of every position is borrowed
        else:
            ours = self.portfolio.cash - reserved
        return ours if self._account is None else min(ours, self._account.buying_power)

    def working_entries(self) -> int:
        """Entries at work in symbols without a position: with the open positions they count against the limit."""
        return sum([entry.symbol not in self.portfolio.positions for entry in self._blotter.entries.values()])

    def stop_of(self, symbol: str) -> Order | None:
        """The protective stop of a symbol's position, as long as it can still fill."""
        book = self.books.get(symbol)
        return self._blotter.live(book.stop_id) if book else None

    def is_being_canceled(self, order: Order) -> bool:
        """Whether a cancellation was asked for and has not been answered."""
        return self._blotter.is_being_canceled(order)

    def entry_of(self, symbol: str) -> Order | None:
        """The symbol's entry order, as long as it can still fill."""
        book = self.books.get(symbol)
        return self._blotter.live(book.entry_id) if book else None

    def lines(
        self, symbols: Iterable[str] | None = None
    ) -> Iterator[tuple[str, Strategy, IndicatorSet | None, Candle | None, str]]:
        """Per symbol (all without any) and strategy: averages, last candle, and the status in the page's words."""
        for book in (
            self.books.values() if symbols is None else [self.books[each] for each in symbols if each in self.books]
        ):
            for line in book.lines():
                yield book.symbol, line.strategy, line.latest, line.latest_candle, self._status(book, line)

    def equity_at_stops(self) -> Decimal | None:
        """Equity if every position were worth what its stop would bring: no bar that reaches no stop leaves less.

        None while a position has no stop.
        """
        equity = self.portfolio.cash
        for symbol, position in self.portfolio.positions.items():
            stop = self._blotter.live(self.books[symbol].stop_id)
            if stop is None or stop.stop_price is None:
                return None
            equity += position.market_value(stop.stop_price)
        return equity

    def standing_refusal(self) -> Standing:
        """The code with which every live signal of a symbol that is held would be refused, whatever its prices.

        It holds until something happens: an order is sent, filled or cancelled, a timer fires, a bar reaches a stop.
        The more equity, the fewer refusals: so what is refused at two equities is refused between them.
        """
        equity = self.equity_at_stops()
        return Standing("", self.now, ZERO) if equity is None else self._standing_refusal(self.now, equity)

    def _standing_refusal(self, now: datetime, equity: Decimal, *, more_positions: int = 0) -> Standing:
        session = self.session
        if session is None:
            return Standing("", now, ZERO)
        until = session.close - timedelta(minutes=self.settings.risk.flatten_minutes_before_close)
        for floor in (equity - self.start_equity * STANDING_MARGIN, equity):
            request = self._request(
                now=now, candle_end=now, is_live=True, is_taken=True, equity=floor, more_positions=more_positions
            )
            code = assess(request, self.settings.risk).refused_by
            if code != "daily_loss" or code in self.tripped:
                return Standing(code, LATEST if code == "session" else until, floor)
        return Standing("", now, ZERO)

    def flatten_due(self) -> datetime | None:
        """When the session's positions are closed; None where they are held overnight."""
        minutes = self.settings.risk.flatten_minutes_before_close
        return self.session.close - timedelta(minutes=minutes) if self.session and minutes else None

    def managed_symbols(self) -> list[str]:
        """Symbols whose bars are needed."""
        return list(self.books)

    # --- for a driver that works out for itself what becomes of an order ----------------------------------------------

    def proposal(self, symbol: str, candle: Candle, indicators: IndicatorSet | None) -> Proposal | None:
        """What a live signal on a candle that ends now comes to, of a symbol with neither order nor position.

        Without `indicators` it is known to be a long one. None if there is no signal or the strategy fails; nothing is
        changed.
        """
        book = self.books[symbol]
        strategy = book.feeds[0].lines[0].strategy
        try:
            side = Side.LONG if indicators is None else _side_of_signal(strategy, candle, indicators)
            if side is None:
                return None
            entry_price, stop_price = _prices_of_signal(strategy, candle, side)
        except StrategyFailed:
            return None
        request = self._request(
            now=candle.end,
            candle_end=candle.end,
            is_live=True,
            is_taken=False,
            equity=self.equity(),
            symbol_problem=book.blocked,
            entries_today=book.entries_today,
            entry_price=entry_price,
            stop_price=stop_price,
        )
        assessment = assess(request, self.settings.risk)
        return Proposal(side, entry_price, stop_price, assessment.qty, assessment.refused_by)

    def refusal_once_taken(self, now: datetime, equity: Decimal) -> Standing:
        """The standing refusal, from `now` on, of a symbol that has neither order nor position, once it had one.

        `equity` is the lowest that there will be.
        """
        return self._standing_refusal(now, equity, more_positions=1)

    def round_trip_over(self, now: datetime, trade: Trade) -> list[Command | Record]:
        """Takes in a round trip that the driver has worked out and paid: the answers are those of its last fill."""
        answers = self._journal.open(now)
        self._on_trade(self.books[trade.symbol], trade)
        return answers

    def correlation_id(self, strategy: Strategy, candle: Candle) -> str:
        """The id of the round trip that a signal on this candle begins."""
        return intent_id(self.account_id, strategy.name, candle.symbol, candle.timestamp.isoformat())

    # --- time, bars and candles ---------------------------------------------------------------------------------------

    def _on_session(self, event: SessionStarted) -> None:
        session = event.session
        self._blotter.prune({position.correlation_id for position in self.portfolio.positions.values()})
        self._tape.start_session(session, self.books.values())
        self.start_equity = self.equity() if event.start_equity is None else event.start_equity
        tripped_at = event.tripped_at or event.now
        self.tripped = {name: tripped_at for name in event.breaker.split(",") if name}
        self.losses_in_a_row = event.losses_in_a_row
        for book in self.books.values():
            book.entries_today = event.entries.get(book.symbol, 0)
        self._record_session()
        self._schedule_flatten()
        if self.settings.risk.flatten_minutes_before_close:
            for book in self.books.values():
                position = self.portfolio.positions.get(book.symbol)
                if position and position.entry_at < session.open:
                    self._close(book, "end_of_day")  # yesterday's flatten was missed
        for book in self.books.values():
            if book.exit_reason:
                self._schedule_giving_up(book)
        self._advance_all()

    def _on_bar(self, event: BarDelivered) -> None:
        book = self.books.get(event.bar.symbol)
        if book is None or not self._tape.take(book, event.bar):
            return
        self._expire_entry(book)
        self._tape.feed(book, event.bar, is_live=True)
        if book.is_waiting:
            self._advance(book)

    def _on_candles(self, event: CandlesDelivered) -> None:
        book, session, is_live = self.books[event.symbol], event.session, event.is_live
        (line,) = book.feeds[0].lines
        journal, last_prices = self._journal, self._tape.last_prices
        for candle, indicators, may_signal, late_at, more_follow in event.candles:
            if late_at is None:
                journal.now = candle.end
                last_prices[book.symbol] = candle.close
                self._expire_entry(book)
            else:
                journal.now = late_at
            line.latest_candle, line.latest = candle, indicators
            self._on_candle(book, line, candle, indicators, session, is_live=is_live, may_signal=may_signal)
            if late_at is None and book.is_waiting:
                self._advance(book)
            if journal.answers and not more_follow:
                return

    def _on_close(self, event: CloseDelivered) -> None:
        book = self.books[event.symbol]
        self.last_prices[book.symbol] = event.close
        self._expire_entry(book)
        if book.is_waiting:
            self._advance(book)

    def _on_history(self, event: HistoryDelivered) -> None:
        if book := self.books.get(event.symbol):
            self._tape.take_history(book, event)
            self._advance(book)

    def _on_timer(self, event: TimerFired) -> None:
        self._timers.fire_one(self.now)

    def _on_candle(
        self,
        book: Book,
        line: Line,
        candle: Candle,
        indicators: IndicatorSet,
        session: Session,
        *,
        is_live: bool,
        may_signal: bool,
    ) -> None:
        position = self.portfolio.positions.get(book.symbol)
        was_leaving = bool(book.exit_reason)
        try:
            if line.strategy.observes:
                _ask(line.strategy.observe, candle, session)
            if position is not None and not was_leaving:
                if position.strategy == line.strategy.name and candle.end > position.entry_at:
                    self._manage(book, line, candle, position, indicators, is_live=is_live)
                if book.exit_reason:
                    return  # the candle that closes a position is not one to enter on
            if may_signal:
                self._look_for_signal(book, line, candle, indicators, is_live=is_live)
        except StrategyFailed as failure:
            self._pause(book, failure)

    def _pause(self, book: Book, failure: StrategyFailed) -> None:
        book.blocks[STRATEGY] = str(failure)
        text = f"{failure}; entries of {book.symbol} are paused"
        self._journal.say(ActivityType.ERROR, book.symbol, text, level=Level.ERROR)

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _look_for_signal(
        self, book: Book, line: Line, candle: Candle, indicators: IndicatorSet, *, is_live: bool
    ) -> None:
        strategy = line.strategy
        if not strategy.parameters["enabled"] or (side := _side_of_signal(strategy, candle, indicators)) is None:
            return
        entry_price, stop_price = _prices_of_signal(strategy, candle, side)
        is_held = book.symbol in self.portfolio.positions and not book.exit_reason
        signal = _signal(
            line=line,
            side=side,
            candle=candle,
            indicators=indicators,
            entry_price=entry_price,
            stop_price=stop_price,
            is_live=is_live,
            is_held=is_held,
        )
        book.signals.append(signal)
        if is_held and self._blotter.live(book.entry_id) is None:
            self._decide(book)  # nothing else has changed
        else:
            self._advance(book)

    def _correlation_id(self, signal: Signal) -> str:
        return self.correlation_id(signal.line.strategy, signal.candle)

    def _decide(self, book: Book) -> None:
        """Lets the risk rules judge the waiting signals; asks for the broker's account first if it is too old."""
        while book.signals:
            signal = book.signals[0]
            assessment = assess(self._entry_request(book, signal), self.settings.risk)
            if assessment.refused_by == "account" and self._asks_broker and not self._account_is_fresh():
                if not self._account_asked:
                    self._account_asked = True
                    self._journal.add(RefreshAccount())
                return
            del book.signals[0]
            if assessment.refused_by == "daily_loss":
                self._trip("daily_loss", assessment)
            self._record_decision(book, signal, assessment)
            if not assessment.refused_by:
                self._enter(book, signal, assessment.qty)

    def _entry_request(self, book: Book, signal: Signal) -> EntryRequest:
        is_taken = signal.is_held or book.symbol in self.portfolio.positions or bool(self._blotter.live(book.entry_id))
        return self._request(
            now=self.now,
            candle_end=signal.candle.end,
            is_live=signal.is_live,
            is_taken=is_taken,
            equity=self.equity(),
            symbol_problem=book.blocked,
            entries_today=book.entries_today,
            entry_price=signal.entry_price,
            stop_price=signal.stop_price,
        )

    def _request(
        self,
        *,
        now: datetime,
        candle_end: datetime,
        is_live: bool,
        is_taken: bool,
        equity: Decimal,
        symbol_problem: str = "",
        entries_today: int = 0,
        entry_price: Decimal = ZERO,
        stop_price: Decimal = ZERO,
        more_positions: int = 0,
    ) -> EntryRequest:
        """What the risk rules look at, the account's part of it added."""
        session, account = self._tape.session, self._account
        return _entry_request(
            now=now,
            halted=self._why_no_entries(),
            session_close=session.close if session is not None and session.contains(now) else None,
            candle_end=candle_end,
            is_live=is_live,
            grace_seconds=self.settings.grace_seconds,
            symbol_problem=symbol_problem,
            equity=equity,
            broker_equity=account.equity if account else None,
            broker_is_current=not self._asks_broker or (account is not None and self._account_is_usable(account)),
            start_equity=self.start_equity,
            tripped=frozenset(self.tripped),
            open_positions=len(self.portfolio.positions) + more_positions,
            working_entries=self.working_entries(),
            symbol_is_taken=is_taken,
            entries_today=entries_today,
            entry_price=entry_price,
            stop_price=stop_price,
            buying_power=self.buying_power(),
        )

    def _why_no_entries(self) -> str:
        """What stops all entries, empty if nothing does."""
        if self.shutting_down:
            return "the engine is shutting down"
        ledger = f"the ledger cannot be written: {self.ledger_problem}" if self.ledger_problem else ""
        return self.halted or ledger or "; ".join(self.entry_blocks.values())

    def _account_is_fresh(self) -> bool:
        return self._account is not None and self._account_asked is False and self._account_is_usable(self._account)

    def _account_is_usable(self, account: AccountReported) -> bool:
        return account.is_current and self.now - account.now <= ACCOUNT_MAX_AGE

    def _enter(self, book: Book, signal: Signal, qty: Decimal) -> None:
        book.entries_today += 1
        order = self._submit(
            book,
            role=Role.ENTRY,
            side=signal.side,
            order_type=OrderType.STOP,
            qty=qty,
            correlation_id=self._correlation_id(signal),
            strategy=signal.line.strategy.name,
            stop_price=signal.entry_price,
            planned_stop_price=signal.stop_price,
            expires_at=self.now + signal.line.strategy.entry_validity,
        )
        book.entry_id = order.local_id
        self._schedule_expiry(book, order)

    def _manage(
        self, book: Book, line: Line, candle: Candle, position: Position, indicators: IndicatorSet, *, is_live: bool
    ) -> None:
        """First the trail, then the exit."""
        strategy = line.strategy
        holding = self._holding(book, position)
        better = _ask(strategy.should_update_stop, candle, holding, indicators)
        if better is not None:
            self._want_stop(book, position, better)
            if is_live:
                self._advance(book)
        if not book.exit_reason and _ask(strategy.should_exit, candle, holding, indicators):
            self._close(book, strategy.exit_reason, now=is_live)

    def _want_stop(self, book: Book, position: Position, price: Decimal) -> None:
        rounded = round_down(price) if position.side is Side.LONG else round_up(price)
        stop = self._blotter.live(book.stop_id)
        current = book.wanted_stop or (stop.stop_price if stop else None) or position.initial_stop_price
        if current is None or _is_tighter(rounded, current, position.side):
            book.wanted_stop = rounded

    def _holding(self, book: Book, position: Position) -> Holding:
        average = position.avg_entry_price
        last = self._tape.last_prices.get(book.symbol, average)
        stop = self._blotter.live(book.stop_id)
        return _holding(
            side=position.side,
            qty=position.qty,
            avg_entry_price=average,
            current_price=last,
            unrealized_pnl=position.unrealized_pnl(last),
            stop_price=stop.stop_price if stop else position.initial_stop_price,
        )

    # --- acting: what is held against what is working -----------------------------------------------------------------

    def _advance_all(self) -> None:
        for book in list(self.books.values()):
            self._advance(book)

    def _advance(self, book: Book) -> None:
        """Asks for whatever the symbol is missing. Safe to call at any time, any number of times."""
        entry = self._blotter.live(book.entry_id)
        if entry is not None:
            if book.exit_reason:
                self._blotter.cancel(entry)
            if book.signals and not self._blotter.is_being_canceled(entry):
                self._decide(book)  # they are duplicates: the rules say so
            return  # until the entry is terminal the broker takes no opposite stop
        position = self.portfolio.positions.get(book.symbol)
        if position is None:
            leftovers = [
                order for order in (self._blotter.live(book.stop_id), self._blotter.live(book.exit_id)) if order
            ]
            for order in leftovers:
                self._blotter.cancel(order)
            if not leftovers:
                self._decide(book)
            return
        if book.exit_reason:
            self._leave(book, position)  # signals wait until the symbol is free
        else:
            self._decide(book)
            self._protect(book, position)

    def _leave(self, book: Book, position: Position) -> None:
        """Cancel the stop, wait for the confirmation, sell; if the stop filled meanwhile nothing is left to sell.

        While the exchange halts the symbol nothing can be sold: the stop stays, or goes back, until it trades again.
        """
        stop = self._blotter.live(book.stop_id)
        if HALT in book.blocks:
            self._protect(book, position)
        elif stop is not None:
            self._blotter.cancel(stop)
        elif self._blotter.live(book.exit_id) is None and not self._must_wait(book, Role.EXIT):
            order = self._submit(
                book,
                role=Role.EXIT,
                side=position.side,
                order_type=OrderType.MARKET,
                qty=position.qty,
                correlation_id=position.correlation_id,
                strategy=position.strategy,
                parent_id=position.entry_order_id,
                exit_reason=book.exit_reason,
            )
            book.exit_id = order.local_id

    def _protect(self, book: Book, position: Position) -> None:
        """One working stop for exactly the shares held, at the best price asked for so far."""
        stop = self._blotter.live(book.stop_id)
        if stop is None:
            if self._blotter.live(book.exit_id) is None and not self._must_wait(book, Role.STOP_LOSS):
                self._place_stop(book, position)
        elif stop.qty_left != position.qty:
            self._blotter.cancel(stop)  # its confirmation brings us back here
        elif book.wanted_stop is not None and stop.state in WORKING and stop.requested_stop_price is None:
            self._move_stop(book, position, stop, book.wanted_stop)

    def _place_stop(self, book: Book, position: Position) -> None:
        entry = self.orders.get(position.entry_order_id)
        is_partial = entry is not None and entry.qty_filled < entry.qty_requested
        if is_partial and position.qty < SMALLEST_PROTECTED_QTY:
            self._close(book, "partial_entry")
            return
        price = book.wanted_stop or position.initial_stop_price or self._default_stop(book, position)
        order = self._submit(
            book,
            role=Role.STOP_LOSS,
            side=position.side,
            order_type=OrderType.STOP,
            qty=position.qty,
            correlation_id=position.correlation_id,
            strategy=position.strategy,
            parent_id=position.entry_order_id,
            stop_price=price,
            time_in_force=TimeInForce.GTC,
            moved_at=position.entry_at if book.wanted_stop not in (None, position.initial_stop_price) else None,
        )
        book.stop_id = order.local_id
        book.wanted_stop = None

    def _default_stop(self, book: Book, position: Position) -> Decimal:
        """For a position nobody planned a stop for: a fixed percentage beyond the worse of average and last price."""
        average = position.avg_entry_price
        last = self.last_prices.get(book.symbol, average)
        share = self.settings.risk.default_stop_pct / 100
        if position.side is Side.LONG:
            return round_down(min(average, last) * (1 - share))
        return round_up(max(average, last) * (1 + share))

    def _move_stop(self, book: Book, position: Position, stop: Order, price: Decimal) -> None:
        if stop.stop_price is None or not _is_tighter(price, stop.stop_price, position.side):
            book.wanted_stop = None
            return
        last = self.last_prices.get(book.symbol)
        if last is not None and not _is_tighter(last, price, position.side):
            book.wanted_stop = None
            self._close(book, "trailing_stop")
            return
        if self.ledger_problem or self._must_wait(book, Role.STOP_LOSS):
            return  # the better price is kept; the stop that works goes on protecting
        asked = self._blotter.apply(
            _replace_requested(local_id=stop.local_id, at=self.now, number=stop.replacements + 1, stop_price=price)
        )
        self._journal.add(_replace_stop(order=asked, stop_price=price))

    def _close(self, book: Book, reason: str, *, now: bool = True) -> None:
        if book.exit_reason or book.symbol not in self.portfolio.positions or self._is_too_late_to_leave(reason):
            return
        book.exit_reason = reason
        self._schedule_giving_up(book)
        if now:
            self._advance(book)

    def _is_too_late_to_leave(self, reason: str) -> bool:
        session = self.session
        return (
            reason != END_OF_DATA
            and session is not None
            and session.close - GIVE_UP_BEFORE_CLOSE <= self.now < session.close
        )

    def _give_up_leaving(self, book: Book) -> None:
        """The exit did not fill in time (a halt, a refusal): it makes way for the stop, which protects overnight."""
        position = self.portfolio.positions[book.symbol]
        text = f"{position.qty} {book.symbol} could not be closed before the market closes; the stop goes back"
        self._journal.say(
            ActivityType.ERROR,
            book.symbol,
            text,
            correlation_id=position.correlation_id,
            level=Level.CRITICAL,
        )
        book.exit_reason = ""
        book.retry_at = None
        if order := self._blotter.live(book.exit_id):
            self._blotter.cancel(order)
        self._advance(book)

    def _expire_entry(self, book: Book) -> None:
        entry = self._blotter.live(book.entry_id)
        if entry is not None and entry.expires_at is not None and entry.expires_at <= self.now:
            self._blotter.cancel(entry)

    def _submit(self, book: Book, **fields: Any) -> Order:
        order = self._blotter.write(symbol=book.symbol, **fields)
        self._journal.add(_submit_order(order=order))
        return order

    # --- what became of it --------------------------------------------------------------------------------------------

    def _on_order(self, event: OrderChanged) -> None:
        fact = event.fact
        order = self._blotter.apply(fact)
        book = self.books.get(order.symbol) or self._book(order.symbol)
        follow = self._consequences.get(type(fact))
        if follow is None:
            return  # it was sent: nothing new is missing
        follow(book, order, fact)
        if order.state in TERMINAL or type(fact) is Filled:
            self._account = None  # the broker's last report is older than this
        self._advance(book)

    def _on_accepted(self, book: Book, order: Order, fact: Accepted) -> None:
        book.failures = 0
        self._journal.say_of(order, ActivityType.ORDER_SUBMITTED, lambda: f"{in_words(order)} accepted")
        self._blotter.cancel_if_wanted(order)
        self._find_place(book, order)

    def _on_ended(self, book: Book, order: Order, fact: Canceled | Expired) -> None:
        self._journal.say_of(order, ActivityType.ORDER_CANCELED, lambda: f"{in_words(order)} {order.state}")

    def _on_replace_refused(self, book: Book, order: Order, fact: ReplaceRefused) -> None:
        self._schedule_retry(book, Role.STOP_LOSS)
        self._blotter.cancel_if_wanted(order)

    def _find_place(self, book: Book, order: Order) -> None:
        """An order that had been given up works after all: it takes the place of one that is missing, or it goes."""
        if order.local_id in (book.entry_id, book.stop_id, book.exit_id):
            return
        is_held = book.symbol in self.portfolio.positions
        if order.role is Role.ENTRY and not is_held and self._blotter.live(book.entry_id) is None:
            book.entry_id = order.local_id
            self._expire_entry(book)
            self._schedule_expiry(book, order)
        elif order.role is Role.STOP_LOSS and is_held and self._blotter.live(book.stop_id) is None:
            book.stop_id = order.local_id
        elif order.role is Role.EXIT and book.exit_reason and self._blotter.live(book.exit_id) is None:
            book.exit_id = order.local_id
        else:
            self._blotter.cancel(order)

    def _on_fill(self, book: Book, order: Order, fill: Filled) -> None:
        self._journal.say_of(order, ActivityType.ORDER_FILLED, lambda: fill_in_words(order, fill))
        try:
            trade = self.portfolio.apply(order, fill)
        except ImpossibleFill as problem:
            # It happened all the same: it is written down, and the broker is asked what the account holds now.
            self._journal.say_of(order, ActivityType.ERROR, f"{problem}; the broker is asked", level=Level.CRITICAL)
            book.blocks[UNKNOWN] = str(problem)
            self._journal.add(CompareWithBroker())
            return
        if order.role is Role.ENTRY and order.state is OrderState.PARTIALLY_FILLED:
            self._schedule_protection(book, order)
        if trade is not None:
            self._on_trade(book, trade)

    def _on_trade(self, book: Book, trade: Trade) -> None:
        self._journal.add(TradeRecorded(trade=trade))
        self._journal.say(
            ActivityType.TRADE_CLOSED,
            trade.symbol,
            lambda: trade_in_words(trade),
            correlation_id=trade.correlation_id,
        )
        book.position_closed()
        for line in book.lines():
            try:
                _ask(line.strategy.position_closed)
            except StrategyFailed as failure:
                self._pause(book, failure)
        if trade.pnl < 0:
            self.losses_in_a_row += 1
        elif trade.pnl > 0:
            self.losses_in_a_row = 0
        if self.losses_in_a_row >= self.settings.risk.consecutive_loss_pause:
            self._trip("consecutive_losses", None)

    def _on_replaced(self, book: Book, order: Order, fact: Replaced) -> None:
        position = self.portfolio.positions.get(book.symbol)
        if (
            book.wanted_stop is not None
            and position
            and not _is_tighter(book.wanted_stop, fact.stop_price, position.side)
        ):
            book.wanted_stop = None
        self._journal.say_of(
            order, ActivityType.STOP_MOVED, lambda: f"{order.symbol} stop moved to {dollars(fact.stop_price)}"
        )
        self._blotter.cancel_if_wanted(order)

    def _on_refused(self, book: Book, order: Order, fact: Rejected | SubmitFailed) -> None:
        protective = order.role is not Role.ENTRY
        self._journal.say_of(
            order,
            ActivityType.ORDER_REJECTED,
            f"{in_words(order)} {'refused' if isinstance(fact, Rejected) else 'could not be sent'}: {fact.detail}",
            level=Level.CRITICAL if protective else Level.WARNING,
        )
        if not order.submit_attempts:
            return  # a crash came before it was sent: nobody has refused anything, so there is nothing to wait for
        if order.role is Role.EXIT:
            book.exit_reason = ""  # the stop goes back; the exit is tried again when the retry is due
            self._schedule_retry(book, Role.EXIT, then=lambda: self._close(book, order.exit_reason))
        elif protective:
            self._schedule_retry(book, Role.STOP_LOSS)

    def _on_cancel_failed(self, event: CancelFailed) -> None:
        self._blotter.cancel_failed(event.local_id)
        order = self.orders.get(event.local_id)
        if order is not None and not order.is_terminal:
            self._schedule_retry(self.books[order.symbol], order.role, then=lambda: self._cancel_again(event.local_id))

    def _cancel_again(self, local_id: str) -> None:
        """Whatever an entry was to be cancelled for holds until it is gone; stops and exits are looked at anew."""
        order = self._blotter.live(local_id)
        if order is not None and order.role is Role.ENTRY:
            self._blotter.cancel(order)

    # --- operator, account, settings ----------------------------------------------------------------------------------

    def _on_account(self, event: AccountReported) -> None:
        self._account = event
        self._account_asked = False
        usable = self._account_is_usable(event)
        for book in list(self.books.values()):
            if usable:
                if book.signals:
                    self._advance(book)
            else:
                signals, book.signals = book.signals, []
                for signal in signals:
                    self._record_decision(book, signal, assess(self._entry_request(book, signal), self.settings.risk))

    def _on_halted(self, event: Halted) -> None:
        self.halted = event.reason
        self._cancel_entries()
        self._record_halt(event.now)
        level = Level.CRITICAL if event.is_alarm else Level.WARNING
        self._journal.say(ActivityType.HALTED, "", f"new entries are halted: {event.reason}", level=level)
        self._advance_all()

    def _on_resumed(self, event: Resumed) -> None:
        self.halted = ""
        self._record_halt(event.now)
        self._journal.say(ActivityType.RESUMED, "", "new entries are allowed again")

    def _on_shutting_down(self, event: ShuttingDown) -> None:
        self.shutting_down = True
        self._cancel_entries()
        self._advance_all()

    def _on_ledger_lost(self, event: LedgerLost) -> None:
        self.ledger_problem = event.reason
        self._cancel_entries()
        text = f"the ledger cannot be written ({event.reason}): no entries and no trailing until it can; stops stay"
        self._journal.say(ActivityType.ERROR, "", text, level=Level.CRITICAL)
        self._advance_all()

    def _on_ledger_regained(self, event: LedgerRegained) -> None:
        self.ledger_problem = ""
        self._journal.say(ActivityType.RECONCILED, "", "the ledger is written again, nothing is missing in it")
        self._advance_all()

    def _on_naked_too_long(self, event: NakedTooLong) -> None:
        text = f"{event.symbol}: shares for {dollars(event.dollars)} without a stop for {event.seconds:.1f} s"
        self._journal.say(ActivityType.NAKED, event.symbol, text, level=Level.CRITICAL)
        if book := self.books.get(event.symbol):
            self._advance(book)

    def _cancel_entries(self) -> None:
        for entry in list(self._blotter.entries.values()):
            self._blotter.cancel(entry)

    def _on_close_requested(self, event: CloseRequested) -> None:
        for book in [self.books[event.symbol]] if event.symbol in self.books else list(self.books.values()):
            if event.symbol and book.symbol != event.symbol:
                continue
            self._flatten(book, event.reason)

    def _flatten(self, book: Book, reason: str) -> None:
        entry = self._blotter.live(book.entry_id)
        if entry is not None:
            self._blotter.cancel(entry)
        self._close(book, reason)

    def _on_stop_move_requested(self, event: StopMoveRequested) -> None:
        book = self.books.get(event.symbol)
        position = self.portfolio.positions.get(event.symbol)
        if book is not None and position is not None:
            self._want_stop(book, position, event.stop_price)
            self._advance(book)

    def _on_symbol_blocked(self, event: SymbolBlocked) -> None:
        blocks = self._blocks.setdefault(event.symbol, {})
        if event.reason and blocks.get(event.cause) != event.reason:
            blocks[event.cause] = event.reason
            level = Level.CRITICAL if event.is_alarm else Level.WARNING
            text = f"{event.symbol} takes no entries: {event.reason}"
            self._journal.say(ActivityType.HALTED, event.symbol, text, level=level)
        elif not event.reason and blocks.pop(event.cause, "") and not blocks:
            self._journal.say(ActivityType.RESUMED, event.symbol, f"{event.symbol} takes entries again")
        if book := self.books.get(event.symbol):
            self._advance(book)

    def _on_entries_blocked(self, event: EntriesBlocked) -> None:
        if event.reason and self.entry_blocks.get(event.cause) != event.reason:
            self.entry_blocks[event.cause] = event.reason
            self._journal.say(ActivityType.HALTED, "", f"no entries: {event.reason}", level=Level.WARNING)
        elif not event.reason and self.entry_blocks.pop(event.cause, "") and not self.entry_blocks:
            self._journal.say(ActivityType.RESUMED, "", "entries are possible again")

    def _on_foreign_held(self, event: ForeignHeld) -> None:
        if event.qty:
            self.foreign[event.symbol] = event
        else:
            self.foreign.pop(event.symbol, None)

    def _on_settings_changed(self, event: SettingsChanged) -> None:
        self.settings = event.settings
        for book in self.books.values():
            for line in book.lines():
                line.strategy.parameters.update(event.settings.strategies.get(line.strategy.name, {}))
        self._schedule_flatten()
        self._journal.say(ActivityType.SETTINGS_CHANGED, "", "settings changed")

    def _on_watchlist_changed(self, event: WatchlistChanged) -> None:
        busy = self._blotter.working_symbols() | set(self.portfolio.positions)
        for symbol in [s for s in self.books if s not in event.symbols]:
            if symbol in busy:
                self.books[symbol].blocks[WATCHLIST] = NOT_WATCHED
            else:
                del self.books[symbol]
        for symbol in event.symbols:
            if symbol not in self.books:
                self._book(symbol)
            else:
                self.books[symbol].blocks.pop(WATCHLIST, None)
        for index, symbol in enumerate(event.symbols):
            self.books[symbol].index = index

    def _on_restored(self, event: Restored) -> None:
        self.portfolio = Portfolio(cash=ZERO)
        for order, fill in event.fills:
            try:
                self.portfolio.apply(order, fill)
            except ImpossibleFill as problem:  # as it was when it happened: see `_on_fill`
                self._journal.note(order.symbol, str(problem))
        self.portfolio.cash = event.cash
        for order in event.orders:
            self._blotter.keep(order)
            book = self._book(order.symbol)
            if order.is_terminal:
                continue
            if order.role is Role.ENTRY:
                book.entry_id = order.local_id
                self._schedule_expiry(book, order)
            elif order.role is Role.STOP_LOSS:
                book.stop_id = order.local_id
            else:
                book.exit_id, book.exit_reason = order.local_id, order.exit_reason

    def _on_orders_recalled(self, event: OrdersRecalled) -> None:
        for order in event.orders:
            if order.local_id not in self.orders:
                self._blotter.keep(order)

    def _is_explained(self, event: PositionAdopted | PositionGone) -> bool:
        """Whether what is held here has changed since the difference was found: it is looked at again later."""
        held = self.portfolio.positions.get(event.symbol)
        qty = ZERO if held is None else held.qty if held.side is Side.LONG else -held.qty
        return event.held is not None and event.held != qty

    def _on_position_adopted(self, event: PositionAdopted) -> None:
        if self._is_explained(event):
            return
        found = event.detail or f"{event.qty} {event.symbol} {event.side} found at the broker"
        text = f"{found}; adopted at {dollars(event.price)}"
        self._journal.say(ActivityType.RECONCILED, event.symbol, text, level=Level.WARNING)
        held = self.portfolio.positions.get(event.symbol)
        new_id = intent_id(self.account_id, ADOPTED, event.symbol, event.now.isoformat())
        correlation_id = held.correlation_id if held else new_id
        self._book_found(
            event.symbol,
            role=Role.ENTRY,
            side=event.side,
            qty=event.qty,
            price=event.price,
            correlation_id=correlation_id,
            strategy=held.strategy if held else ADOPTED,
            estimated=False,
            stop_price=event.stop_price,
        )

    def _on_position_gone(self, event: PositionGone) -> None:
        held = self.portfolio.positions.get(event.symbol)
        if held is None or self._is_explained(event):
            return
        gone = event.detail or f"{event.qty} {event.symbol} are gone at the broker"
        text = f"{gone}; closed here at {dollars(event.price)}{' (estimated)' if event.estimated else ''}"
        self._journal.say(ActivityType.RECONCILED, event.symbol, text, level=Level.WARNING)
        self._book_found(
            event.symbol,
            role=Role.EXIT,
            side=held.side,
            qty=event.qty,
            price=event.price,
            correlation_id=held.correlation_id,
            strategy=held.strategy,
            estimated=event.estimated,
        )

    def _on_execution_corrected(self, event: ExecutionCorrected) -> None:
        """The same shares bought at one price and sold at the other: the difference in money, and no other in shares.

        It belongs to the position if there is one, else it is a round trip of its own.
        """
        held = self.portfolio.positions.get(event.symbol)
        done, old, new = "bought" if event.buys else "sold", dollars(event.old_price), dollars(event.price)
        text = f"{event.qty} {event.symbol} were {done} at {new}, not at {old}: corrected by the exchange"
        self._journal.say(ActivityType.RECONCILED, event.symbol, text, level=Level.WARNING)
        side = held.side if held else event.side
        bought, sold = (event.price, event.old_price) if event.buys else (event.old_price, event.price)
        new_id = intent_id(self.account_id, "corrected", event.symbol, event.execution_id)
        entered, left = (bought, sold) if side is Side.LONG else (sold, bought)
        for role, price in ((Role.ENTRY, entered), (Role.EXIT, left)):
            self._book_found(
                event.symbol,
                role=role,
                side=side,
                qty=event.qty,
                price=price,
                correlation_id=held.correlation_id if held else new_id,
                strategy=held.strategy if held else event.strategy,
                estimated=False,
                execution_id=f"{correction_id(event.execution_id)}{role}",
            )

    def _book_found(
        self,
        symbol: str,
        *,
        role: Role,
        side: Side,
        qty: Decimal,
        price: Decimal,
        correlation_id: str,
        strategy: str,
        estimated: bool,
        stop_price: Decimal | None = None,
        execution_id: str = "",
    ) -> None:
        """Writes down an order that was never ours to send, filled: the broker's word is the evidence."""
        book = self._book(symbol)
        order = self._blotter.write(
            symbol=symbol,
            role=role,
            side=side,
            order_type=OrderType.MARKET,
            qty=qty,
            correlation_id=correlation_id,
            strategy=strategy,
            exit_reason="manual" if role is Role.EXIT else "",
            planned_stop_price=stop_price,
        )
        fill = Filled(
            local_id=order.local_id,
            at=self.now,
            forced=True,
            detail="found by reconciliation",
            qty=qty,
            price=price,
            filled_at=self.now,
            execution_id=execution_id or f"found-{order.local_id}",
            estimated=estimated,
        )
        self._on_fill(book, self._blotter.apply(fill), fill)

    def _on_stop_adopted(self, event: StopAdopted) -> None:
        position, book = self.portfolio.positions.get(event.symbol), self._book(event.symbol)
        if position is None or book.exit_reason or self._blotter.live(book.stop_id) is not None:
            return
        order = self._blotter.write(
            symbol=event.symbol,
            role=Role.STOP_LOSS,
            side=position.side,
            order_type=OrderType.STOP,
            qty=event.qty,
            correlation_id=position.correlation_id,
            strategy=position.strategy,
            parent_id=position.entry_order_id,
            stop_price=event.stop_price,
            time_in_force=TimeInForce.GTC,
        )
        found = "found at the broker, where it covers the position"
        self._blotter.apply(Submitted(local_id=order.local_id, at=self.now, detail=found))
        book.stop_id = order.local_id
        accepted = Accepted(local_id=order.local_id, at=self.now, broker_id=event.broker_id, detail=found)
        self._journal.say_of(
            self._blotter.apply(accepted), ActivityType.RECONCILED, f"{in_words(order)} {found}", level=Level.WARNING
        )
        self._advance(book)

    def _on_reconciled(self, event: Reconciled) -> None:
        if event.cash is not None:
            self.portfolio.cash = event.cash
        for order in [order for order in self.orders.values() if not order.is_terminal]:
            self._find_place(self._book(order.symbol), order)
        for book in self.books.values():
            self._expire_entry(book)
            position = self.portfolio.positions.get(book.symbol)
            if position and not book.exit_reason and not any(map(self._blotter.live, (book.stop_id, book.entry_id))):
                text = f"{position.qty} {book.symbol} have no working stop; placing one now"
                self._journal.say(ActivityType.NAKED, book.symbol, text, level=Level.CRITICAL)
        self._run_missed_flatten()
        self._advance_all()

    def _on_data_ended(self, event: DataEnded) -> None:
        for book in list(self.books.values()):
            self._flatten(book, END_OF_DATA)

    # --- timers -------------------------------------------------------------------------------------------------------

    def _schedule_expiry(self, book: Book, entry: Order) -> None:
        if entry.expires_at is not None:
            self._cancel_at(entry.expires_at, Kind.EXPIRY, book, entry)

    def _schedule_protection(self, book: Book, entry: Order) -> None:
        deadline = self.now + timedelta(seconds=float(self.settings.protect_deadline_seconds))
        self._cancel_at(deadline, Kind.PROTECT, book, entry)

    def _cancel_at(self, due: datetime, kind: Kind, book: Book, order: Order) -> None:
        """Cancels what is still working then."""

        def cancel() -> None:
            if live := self._blotter.live(order.local_id):
                self._blotter.cancel(live)

        self._timers.add(
            due,
            kind,
            index=book.index,
            still_wanted=lambda: (
                self._blotter.live(order.local_id) is not None and not self._blotter.is_being_canceled(order)
            ),
            fire=cancel,
        )

    def _schedule_giving_up(self, book: Book) -> None:
        session, reason = self.session, book.exit_reason
        if session is None or self.now >= session.close - GIVE_UP_BEFORE_CLOSE or reason == END_OF_DATA:
            return
        left = self.portfolio.positions[book.symbol].correlation_id

        def still_wanted() -> bool:
            held = self.portfolio.positions.get(book.symbol)
            return book.exit_reason == reason and held is not None and held.correlation_id == left

        self._timers.add(
            session.close - GIVE_UP_BEFORE_CLOSE,
            Kind.GIVE_UP,
            index=book.index,
            still_wanted=still_wanted,
            fire=lambda: self._give_up_leaving(book),
        )

    def _schedule_flatten(self) -> None:
        due, session = self.flatten_due(), self.session
        if due is not None and self.now <= due:
            self._timers.add(
                due,
                Kind.FLATTEN,
                index=0,
                still_wanted=lambda: self.session is session and self.flatten_due() == due,
                fire=self._flatten_all,
            )
        else:
            self._run_missed_flatten()

    def _run_missed_flatten(self) -> None:
        due = self.flatten_due()
        if due is not None and self.now > due and self._is_open():
            self._flatten_all()

    def _flatten_all(self) -> None:
        for book in sorted(self.books.values(), key=lambda book: book.index):
            self._flatten(book, "end_of_day")

    def _schedule_retry(self, book: Book, refused: Role, *, then: Callable[[], None] = lambda: None) -> None:
        """What was refused is asked for again after a pause that grows; whatever else is missing goes out now."""
        book.refused = refused
        due = book.retry_at = self.now + min(FIRST_RETRY * 2**book.failures, LAST_RETRY)
        book.failures += 1

        def fire() -> None:
            book.retry_at = None
            then()
            self._advance(book)

        self._timers.add(due, Kind.RETRY, index=book.index, still_wanted=lambda: book.retry_at == due, fire=fire)

    def _must_wait(self, book: Book, role: Role) -> bool:
        return book.refused is role and book.retry_at is not None and self.now < book.retry_at

    # --- small things -------------------------------------------------------------------------------------------------

    def _book(self, symbol: str) -> Book:
        """The symbol's book, a new one if there is none."""
        book = self.books.get(symbol)
        if book is None:
            blocks = self._blocks.setdefault(symbol, {})
            book = open_book(symbol, index=len(self.books), settings=self.settings, session=self.session, blocks=blocks)
            self.books[symbol] = book
        return book

    def _is_open(self) -> bool:
        return self.session is not None and self.session.open <= self.now < self.session.close

    def _trip(self, breaker: str, assessment: Assessment | None) -> None:
        if breaker not in self.tripped:
            self.tripped[breaker] = self.now
            self._record_session()
            losses = f"{self.losses_in_a_row} losing trades in a row"
            why = assessment.checks[-1].detail if assessment else losses
            text = f"no more entries today: {breaker.replace('_', ' ')} ({why})"
            self._journal.say(ActivityType.CIRCUIT_BREAKER, "", text, level=Level.WARNING)

    def _status(self, book: Book, line: Line) -> str:
        strategy = line.strategy
        position = self.portfolio.positions.get(book.symbol)
        if position is not None and position.strategy == strategy.name:
            return "in_position"
        is_paused = self._why_no_entries() or self.tripped or book.blocks
        if not strategy.parameters["enabled"] or is_paused:
            return "paused"
        if self._blotter.live(book.entry_id) is not None:
            return "signal_active"
        if line.latest is None:
            return "cold"
        return "watching" if line.latest.bar_count >= strategy.parameters["sma_slow"] else "warming_up"

    def _record_session(self) -> None:
        if (session := self.session) is not None:
            self._journal.record(
                lambda: SessionRecorded(
                    session=session,
                    start_equity=self.start_equity,
                    breaker=",".join(self.tripped),
                    tripped_at=min(self.tripped.values(), default=None),
                    halted=bool(self.halted),
                )
            )

    def _record_halt(self, now: datetime) -> None:
        self._record_session()
        self._journal.record(lambda: HaltRecorded(at=now, halted=bool(self.halted)))

    def _conditions(self, book: Book, signal: Signal) -> tuple[Condition, ...]:
        try:
            return tuple(_ask(signal.line.strategy.conditions, signal.candle, signal.indicators))
        except StrategyFailed as failure:
            self._pause(book, failure)
            return ()

    def _record_decision(self, book: Book, signal: Signal, assessment: Assessment) -> None:
        self.decisions[assessment.refused_by] += 1
        self._journal.record(
            lambda: DecisionRecorded(
                at=self.now,
                symbol=book.symbol,
                strategy=signal.line.strategy.name,
                side=signal.side,
                candle=signal.candle,
                conditions=self._conditions(book, signal),
                checks=assessment.checks,
                refused_by=assessment.refused_by,
                qty=assessment.qty,
                entry_price=signal.entry_price,
                stop_price=signal.stop_price,
                correlation_id=self._correlation_id(signal),
            )
        )
        if signal.is_held and assessment.refused_by == "duplicate":
            return  # recorded, but no news: it came for the position that is already there
        if self._journal.keeps_records:
            self._journal.say(
                ActivityType.SIGNAL,
                book.symbol,
                _decision_in_words(book.symbol, signal, assessment),
                correlation_id=self._correlation_id(signal),
            )


def _decision_in_words(symbol: str, signal: Signal, assessment: Assessment) -> str:
    if assessment.refused_by:
        check = assessment.checks[-1]
        return f"{symbol} {signal.side} signal refused: {check.code} ({check.detail})"
    prices = f"entry {dollars(signal.entry_price)}, stop {dollars(signal.stop_price)}"
    return f"{symbol} {signal.side} signal: {assessment.qty} shares, {prices}"


def correction_id(execution_id: str) -> str:
    """How the executions begin, followed by their role, that book a correction."""
    return f"found-corrected-{execution_id}-"


def _ask(question: Callable[..., Answer], *about: Any) -> Answer:
    """A strategy's answer. Raises StrategyFailed for whatever it raises: strategies are other people's code."""
    try:
        return question(*about)
    except Exception as error:
        raise StrategyFailed(f"{question.__qualname__} failed: {type(error).__name__}: {error}") from error


def _side_of_signal(strategy: Strategy, candle: Candle, indicators: IndicatorSet) -> Side | None:
    if _ask(strategy.should_long, candle, indicators):
        return Side.LONG
    if strategy.parameters["allow_short"] and _ask(strategy.should_short, candle, indicators):
        return Side.SHORT
    return None


def _prices_of_signal(strategy: Strategy, candle: Candle, side: Side) -> tuple[Decimal, Decimal]:
    """The entry's stop price and that of its protection, on the tick grid."""
    up_for_long, down_for_long = (round_up, round_down) if side is Side.LONG else (round_down, round_up)
    entry_price = up_for_long(_ask(strategy.entry_price, candle, side))
    return entry_price, down_for_long(_ask(strategy.stop_loss_price, candle, side))


def _is_tighter(price: Decimal, than: Decimal, side: Side) -> bool:
    """Whether a stop at `price` gives back less than one at `than`."""
    return price > than if side is Side.LONG else price < than
