"""What the Trader is told (events, with their own time) and what it answers (commands to do, records to keep)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from orders.events import Fact, Filled
from orders.lifecycle import Order, Side
from orders.portfolio import Trade
from risk.rules import Check
from trading.candles import Candle
from trading.cover import Cover
from trading.indicators import IndicatorSet
from trading.market import Bar, Session
from trading.settings import TraderSettings
from trading.strategy import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something the Trader is told; `now` is market time and never goes back."""

    now: datetime


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(Event):
    """A trading day begins (or the engine starts inside one). `start_equity` None: take our own equity now.

    The rest is what an earlier process left of the same session: tripped breakers (comma-separated), losing trades in a
    row, and entries submitted per symbol.
    """

    session: Session
    start_equity: Decimal | None = None
    breaker: str = ""
    tripped_at: datetime | None = None
    losses_in_a_row: int = 0
    entries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BarDelivered(Event):
    """A minute bar from the live stream (or the backtest's data)."""

    bar: Bar


class CompletedCandle(NamedTuple):
    """A candle that is complete, with its averages; without `may_signal` no signal is looked for.

    Its last bar completes it, unless it had to wait until `late_at` for the end of a window's grace. That may complete
    more than one candle: all but the last one of them have `more_follow`.
    """

    candle: Candle
    indicators: IndicatorSet
    may_signal: bool
    late_at: datetime | None = None
    more_follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CandlesDelivered(Event):
    """Candles of `session`, one after the other, from a driver that makes them itself instead of sending bars.

    They are taken until one leads to an answer; the driver delivers the others once that is carried out. Those of
    warm-up are not `is_live`: they are only observed.
    """

    symbol: str
    session: Session
    candles: Iterable[CompletedCandle]
    is_live: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseDelivered(Event):
    """The close of a bar that completed no candle, from such a driver."""

    symbol: str
    close: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryDelivered(Event):
    """Bars from history, oldest first: they update state only; no entry comes of them.

    With `window_start` it answers `RequestHistory` for that window. With `rebuilds` it is warm-up: averages start anew
    from these bars, which are whole sessions as listed in `sessions`. Otherwise it is what a lost stream missed today.
    """

    symbol: str
    bars: tuple[Bar, ...]
    rebuilds: bool = False
    sessions: tuple[Session, ...] = ()
    interval_minutes: int = 0
    window_start: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Event):
    """The earliest timer is due: `now` is its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChanged(Event):
    """A fact about one of the Trader's orders."""

    fact: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelFailed(Event):
    """A cancellation could not be carried out; the order is as it was."""

    local_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReported(Event):
    """The broker's account, read just now (`is_current`) or the last known one when it cannot be read."""

    equity: Decimal
    buying_power: Decimal
    is_current: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted(Event):
    """The operator stops new entries, or a safety rule does and raises the alarm; `reason` is shown."""

    reason: str
    is_alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """New entries are allowed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuttingDown(Event):
    """No new signals; working entries are cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLost(Event):
    """What is decided from now on may not be in the ledger: no entries, no trailing; protection and exits go on."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRegained(Event):
    """The ledger has everything again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NakedTooLong(Event):
    """Shares worth `dollars` have been without a stop for `seconds`, longer than is allowed."""

    symbol: str
    seconds: float
    dollars: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRequested(Event):
    """Close one position at market, or all of them when `symbol` is empty, and cancel working entries there."""

    symbol: str = ""
    reason: str = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMoveRequested(Event):
    """The operator moves the protective stop of one position."""

    symbol: str
    stop_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged(Event):
    """New settings apply from the next evaluation on."""

    settings: TraderSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchlistChanged(Event):
    """The symbols to trade; one that is gone stays managed while it has a position or a working order."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Event):
    """What the ledger holds of this account at start: orders, the executions of open round trips, and the cash.

    Everything else follows from these; the broker's answers have already been worked into them.
    """

    orders: tuple[Order, ...]
    fills: tuple[tuple[Order, Filled], ...]
    cash: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersRecalled(Event):
    """The broker has news of an order that was forgotten here: all orders of its round trip, from the ledger."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionAdopted(Event):
    """The broker holds shares we know nothing of: `qty` of them, at `price` dollars on average.

    `held` is what was held here when that was found, negative for a short: by now it may be explained. `stop_price` is
    where they are to be protected, if that is known; `detail` says what happened, if it is known.
    """

    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    held: Decimal | None = None
    stop_price: Decimal | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionGone(Event):
    """The broker holds `qty` shares less than we do and no order of ours tells why; `price` is the best guess.

    `held` and `detail` as in `PositionAdopted`; `estimated` unless the price is known to be right.
    """

    symbol: str
    qty: Decimal
    price: Decimal
    held: Decimal | None = None
    detail: str = ""
    estimated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCorrected(Event):
    """An execution of ours was for `price` dollars, not for `old_price`, says the exchange afterwards.

    `side` and `strategy` are those of its order, `buys` whether that bought; `execution_id` names the correction.
    """

    symbol: str
    side: Side
    buys: bool
    strategy: str
    qty: Decimal
    old_price: Decimal
    price: Decimal
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAdopted(Event):
    """A stop that is not ours works at the broker and covers shares of ours that have none: it is ours from now on."""

    symbol: str
    broker_id: str
    qty: Decimal
    stop_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHeld(Event):
    """Shares on the account that are none of our business, negative for a short: counted in equity, never touched."""

    symbol: str
    qty: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled(Event):
    """Ledger and broker agree: whatever is missing - a stop, a cancellation, an exit - is asked for now.

    `cash` is the broker's, given at start, when ours begins from it.
    """

    cash: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolBlocked(Event):
    """The symbol takes no entries until the reason of every cause is empty again."""

    symbol: str
    reason: str
    cause: str = ""
    is_alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EntriesBlocked(Event):
    """No symbol takes entries until the reason of every cause is empty again. Unlike a halt it ends by itself."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEnded(Event):
    """The recorded data is over: what is still open is closed at the last price."""


# --- commands: to be carried out by whoever drives the Trader ------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOrder:
    """Send a new order."""

    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """Ask the broker to cancel; the answer comes as a fact."""

    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceStop:
    """Ask the broker to move a stop to `stop_price`; `order` already carries the number of the replacement."""

    order: Order
    stop_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshAccount:
    """Read the broker's account and answer with `AccountReported`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareWithBroker:
    """Something does not add up: compare ledger and broker now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHistory:
    """No bar came for this window: ask the provider's history once and answer with `HistoryDelivered`."""

    symbol: str
    interval_minutes: int
    start: datetime
    end: datetime


# --- records: to be written down in one transaction before any command is carried out ------------------------------


class ActivityType(StrEnum):
    """What the activity feed shows."""

    SIGNAL = "signal"
    ORDER_SUBMITTED = "order_submitted"
    ORDER_FILLED = "order_filled"
    ORDER_CANCELED = "order_canceled"
    ORDER_REJECTED = "order_rejected"
    STOP_MOVED = "stop_moved"
    CIRCUIT_BREAKER = "circuit_breaker"
    ERROR = "error"
    TRADE_CLOSED = "trade_closed"
    HALTED = "halted"
    RESUMED = "resumed"
    RECONCILED = "reconciled"
    NAKED = "naked"
    SETTINGS_CHANGED = "settings_changed"
    SUMMARY = "summary"


class Level(StrEnum):
    """How loud an activity is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecorded:
    """An order changed by `fact`; `before` is None for a new one."""

    order: Order
    fact: Fact
    before: Order | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeRecorded:
    """A round trip is complete."""

    trade: Trade


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecorded:
    """A signal with its conditions and risk checks; `refused_by` is the risk code, empty if it became an order."""

    at: datetime
    symbol: str
    strategy: str
    side: Side
    candle: Candle
    conditions: tuple[Condition, ...]
    checks: tuple[Check, ...]
    refused_by: str
    qty: Decimal
    entry_price: Decimal
    stop_price: Decimal
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRecorded:
    """One line of the activity feed (and of the log, at `level`)."""

    at: datetime
    type: ActivityType
    symbol: str
    message: str
    correlation_id: str = ""
    level: Level = Level.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecorded:
    """The session's risk state: start equity, breaker (`daily_loss`, `consecutive_losses` or empty) and halt."""

    session: Session
    start_equity: Decimal
    breaker: str
    tripped_at: datetime | None
    halted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltRecorded:
    """The account is halted from now on, or not any more; of all that stops entries this alone outlives the engine."""

    at: datetime
    halted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleClosed:
    """A completed candle with its averages; `is_live` is False for history."""

    candle: Candle
    interval_minutes: int
    strategy: str
    indicators: IndicatorSet
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverMeasured:
    """A position is closed: how long and for how much it was without full stop cover."""

    at: datetime
    cover: Cover


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something for the log alone."""

    at: datetime
    symbol: str
    message: str
    level: Level = Level.WARNING


Command = SubmitOrder | CancelOrder | ReplaceStop | RefreshAccount | CompareWithBroker | RequestHistory
Record = (
    OrderRecorded
    | TradeRecorded
    | DecisionRecorded
    | ActivityRecorded
    | SessionRecorded
    | HaltRecorded
    | CandleClosed
    | CoverMeasured
    | Noted
)
