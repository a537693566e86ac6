"""Drives one Trader through recorded minutes, bar by bar, with the simulated exchange in the broker's place.

This is the plain way and the one that counts: `backtests/leaps.py` comes to the same results faster.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from backtests.desk import Desk, Result
from backtests.metrics import Drawdown
from trading.exchange import Exchange
from trading.market import Bar, Session
from trading.messages import (
    BarDelivered,
    CandleClosed,
    Command,
    Event,
    HistoryDelivered,
    Record,
    SessionStarted,
    TimerFired,
)
from trading.trader import Trader
from trading.warmup import WarmUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A session with at least one bar: its sound bars, by time and within a minute in watchlist order."""

    session: Session
    bars: tuple[Bar, ...]


def run(
    *,
    trader: Trader,
    exchange: Exchange,
    days: Iterable[Day],
    warm_ups: Mapping[str, WarmUp],
    on_day: Callable[[Day], None] = lambda day: None,
) -> Result:
    """Works off all days and closes what is left at the end. The Trader's cash is the initial capital.

    `warm_ups` are fed before the first day; `on_day` is called after each.
    """
    return _Run(trader, exchange).through(days, warm_ups, on_day)


def days_of(bars: Mapping[str, Sequence[Bar]], sessions: Iterable[Session]) -> list[Day]:
    """The days among `sessions`. `bars` are per symbol in watchlist order, each symbol's sound, unique and in order."""
    starts = {symbol: [bar.timestamp for bar in those] for symbol, those in bars.items()}
    days: list[Day] = []
    for session in sessions:
        within = [
            bar
            for symbol, those in bars.items()
            for bar in those[bisect_left(starts[symbol], session.open) : bisect_left(starts[symbol], session.close)]
        ]
        if within:  # sorting is stable: within a minute the watchlist's order stays
            days.append(Day(session=session, bars=tuple(sorted(within, key=lambda bar: bar.timestamp))))
    return days


class _Run(Desk):
    """One run in progress."""

    def __init__(self, trader: Trader, exchange: Exchange) -> None:
        super().__init__(trader, exchange)
        self._drawdown = Drawdown(trader.equity())

    def through(self, days: Iterable[Day], warm_ups: Mapping[str, WarmUp], on_day: Callable[[Day], None]) -> Result:
        sessions: list[Session] = []
        daily_equity: list[Decimal] = []
        bars = 0
        for day in days:
            session = day.session
            if sessions:
                self._end_session(sessions[-1], until=session.open)
                daily_equity.append(self.note_equity(sessions[-1].close))
            else:
                self._warm_up(warm_ups, session.open)
                self.note_equity(session.open)
            self.tell(SessionStarted(now=session.open, session=session))
            self._work_off_bars(day.bars)
            sessions.append(session)
            bars += len(day.bars)
            on_day(day)
        if sessions:
            now = self.trader.now
            self._fire_timers(until=now)
            self.end_data(now)
            self._mark()
            daily_equity.append(self.note_equity(now))
        return self.result(sessions=sessions, daily_equity=daily_equity, bars=bars, max_drawdown=self._drawdown.largest)

    def tell(self, event: Event) -> list[Command | Record]:
        """Marks equity after every completed candle, its orders worked."""
        answers = super().tell(event)
        if any(isinstance(answer, CandleClosed) for answer in answers):
            self._mark()
        return answers

    def _mark(self) -> None:
        self._drawdown.mark(self.trader.equity())

    # --- the order of events ------------------------------------------------------------------------------------------

    def _warm_up(self, warm_ups: Mapping[str, WarmUp], now: datetime) -> None:
        for symbol, history in warm_ups.items():
            if history.bars:
                self.tell(
                    HistoryDelivered(
                        now=now, symbol=symbol, bars=history.bars, rebuilds=True, sessions=history.sessions
                    )
                )

    def _work_off_bars(self, bars: Iterable[Bar]) -> None:
        now: datetime | None = None
        for bar in bars:
            if bar.delivered_at != now:
                now = bar.delivered_at
                self._fire_timers(before=now)  # those of the last minute's own time come after all of its bars
            for execution in self.exchange.match(bar):
                self.fill(execution, now)
            self.tell(BarDelivered(now=now, bar=bar))

    def _fire_timers(self, *, before: datetime | None = None, until: datetime | None = None) -> None:
        """Fires timers due before, or at the latest at, a moment, one by one.

        Equity is marked once more when an end-of-day flatten is through.
        """
        while (due := self.trader.next_due()) is not None and (
            (before is not None and due < before) or (until is not None and due <= until)
        ):
            closed = len(self.trades)
            self.tell(TimerFired(now=due))
            if any(trade.exit_reason == "end_of_day" for trade in self.trades[closed:]):
                self._mark()

    def _end_session(self, session: Session, *, until: datetime) -> None:
        """Fires what is due before the next session."""
        self._fire_timers(until=session.close)
        self.end_day(session)
        self._fire_timers(before=until)
