"""What of the market's bars can be known at a moment: minutes that are over, and what follows from them."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from trading.market import Bar, Session
from trading.simulator.orders import NEW_YORK

LOOK_BACK = timedelta(days=14)


class BarSource(Protocol):
    """Where a market's bars come from. `first` is the market time to start at, `description` names the bars."""

    is_endless: bool
    description: str
    symbols: tuple[str, ...]
    first: datetime

    def knows(self, symbol: str) -> bool: ...

    def sessions(self, start: date, end: date) -> list[Session]: ...

    def next_session(self, after: datetime) -> Session | None: ...

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]: ...


@dataclass(slots=True, kw_only=True)
class Halt:
    """A span in which a symbol does not trade; `end` None while it lasts."""

    start: datetime
    end: datetime | None = None


class History:
    """The bars of a source, without those that fell into a halt."""

    def __init__(self, source: BarSource) -> None:
        self._source = source
        self.halts: dict[str, list[Halt]] = {}

    def has_traded(self, bar: Bar) -> bool:
        """Whether the bar's minute was free of halts."""
        return not any(_falls_into(bar, halt) for halt in self.halts.get(bar.symbol, ()))

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """The minutes of one session in which the symbol traded."""
        bars = self._source.session_bars(symbol, session)
        return [bar for bar in bars if self.has_traded(bar)] if symbol in self.halts else bars

    def bars(self, symbol: str, *, start: datetime, end: datetime, now: datetime) -> list[Bar]:
        """Minutes with `start <= timestamp <= end` that are over at `now`, oldest first."""
        if not self._source.knows(symbol):
            return []
        found: list[Bar] = []
        for session in self._source.sessions(_day(start), _day(min(end, now))):
            if session.close > start:
                found += [
                    bar
                    for bar in self.session_bars(symbol, session)
                    if start <= bar.timestamp <= end and bar.delivered_at <= now
                ]
        return found

    def latest(self, symbol: str, *, now: datetime) -> Bar | None:
        """The last minute that is over at `now`."""
        for session in self._sessions_back(now):
            bars = self.session_bars(symbol, session) if self._source.knows(symbol) else ()
            over = bisect_left(bars, True, key=lambda bar: bar.delivered_at > now)
            if over:
                return bars[over - 1]
        return None

    def days(self, symbol: str, *, now: datetime) -> list[Bar]:
        """Today's and yesterday's bar so far, the newest first; fewer if the symbol did not trade."""
        days = []
        for session in self._sessions_back(now):
            over = [bar for bar in self.session_bars(symbol, session) if bar.delivered_at <= now]
            if over:
                days.append(whole(over, timestamp=midnight(session.date)))
            if len(days) == 2:
                break
        return days

    def last_close_before(self, symbol: str, day: date) -> Decimal | None:
        """The close of the last session before a date."""
        return next(
            (bar.close for bar in self.days(symbol, now=midnight(day))),
            None,
        )

    def _sessions_back(self, now: datetime) -> Iterator[Session]:
        today = _day(now)
        return reversed(self._source.sessions(today - LOOK_BACK, today))


def whole(bars: Sequence[Bar], *, timestamp: datetime) -> Bar:
    """Several minutes as one bar."""
    return Bar(
        symbol=bars[0].symbol,
        timestamp=timestamp,
        open=bars[0].open,
        high=max(bar.high for bar in bars),
        low=min(bar.low for bar in bars),
        close=bars[-1].close,
        volume=sum(bar.volume for bar in bars),
    )


def midnight(day: date) -> datetime:
    """The start of a New York date."""
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)


def _day(moment: datetime) -> date:
    return moment.astimezone(NEW_YORK).date()


def _falls_into(bar: Bar, halt: Halt) -> bool:
    return bar.delivered_at > halt.start and (halt.end is None or bar.timestamp < halt.end)
