"""What the Trader keeps for each symbol: its candles, its strategies, and the orders at work on it."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from orders.lifecycle import Role, Side
from trading.candles import Candle, CandleAggregator
from trading.indicators import IndicatorCalculator, IndicatorSet
from trading.market import MINUTE, Session
from trading.settings import TraderSettings
from trading.strategy import Strategy, strategy_class


@dataclass(slots=True, kw_only=True)
class Line:
    """One strategy at work on one symbol."""

    strategy: Strategy
    indicators: IndicatorCalculator
    latest: IndicatorSet | None = None
    latest_candle: Candle | None = None


@dataclass(slots=True, kw_only=True)
class Feed:
    """Candles of one length for one symbol and the strategies that read them; `scheduled`: its timer's time."""

    interval_minutes: int
    aggregator: CandleAggregator
    lines: list[Line] = field(default_factory=list)
    scheduled: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A strategy's wish to enter, waiting for the way to be clear; `is_held`: it came while a position was open."""

    line: Line
    side: Side
    candle: Candle
    indicators: IndicatorSet
    entry_price: Decimal
    stop_price: Decimal
    is_live: bool
    is_held: bool


@dataclass(slots=True, kw_only=True)
class Book:
    """Everything about one symbol; `index` is its place in the watchlist, `seen` the minutes already told today.

    `signals` wait to be judged, in their order. `blocks` are the reasons for which it takes no entries, by cause.
    `exit_reason` is set while the position is being left, `wanted_stop` while a better stop is asked for. `refused`
    and `retry_at` are about the last refusal by the broker.
    """

    symbol: str
    index: int
    feeds: list[Feed] = field(default_factory=list)
    seen: set[datetime] = field(default_factory=set)
    latest_bar_at: datetime | None = None
    blocks: dict[str, str] = field(default_factory=dict)
    entries_today: int = 0
    signals: list[Signal] = field(default_factory=list)
    entry_id: str = ""
    stop_id: str = ""
    exit_id: str = ""
    exit_reason: str = ""
    wanted_stop: Decimal | None = None
    failures: int = 0
    retry_at: datetime | None = None
    refused: Role | None = None

    @property
    def blocked(self) -> str:
        """Why the symbol takes no entries, empty if it does."""
        return "; ".join(self.blocks.values())

    @property
    def is_waiting(self) -> bool:
        """Whether a signal or a better stop is still to be acted on."""
        return bool(self.signals) or self.wanted_stop is not None

    def lines(self) -> list[Line]:
        """All strategies of the symbol."""
        return [line for feed in self.feeds for line in feed.lines]

    def position_closed(self) -> None:
        """Forgets everything about the position; its strategies are told by the Trader."""
        self.exit_reason = ""
        self.wanted_stop = None
        self.failures = 0
        self.retry_at = None


def open_book(
    symbol: str, *, index: int, settings: TraderSettings, session: Session | None, blocks: dict[str, str]
) -> Book:
    """A new book with one instance of every active strategy; strategies of one candle length share their candles."""
    book = Book(symbol=symbol, index=index, blocks=blocks)
    for name, parameters in settings.strategies.items():
        strategy = strategy_class(name)(symbol, parameters)
        averages = IndicatorCalculator(fast=strategy.parameters["sma_fast"], slow=strategy.parameters["sma_slow"])
        minutes = strategy.candle_interval // MINUTE
        feed = next((feed for feed in book.feeds if feed.interval_minutes == minutes), None)
        if feed is None:
            aggregator = CandleAggregator(symbol=symbol, interval_minutes=minutes, grace_seconds=settings.grace_seconds)
            if session is not None:
                aggregator.start_session(session)
            feed = Feed(interval_minutes=minutes, aggregator=aggregator)
            book.feeds.append(feed)
        feed.lines.append(Line(strategy=strategy, indicators=averages))
    return book
