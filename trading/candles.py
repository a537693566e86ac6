"""Candles of 1, 2, 5 or 10 minutes, built from one stream of minute bars."""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from trading.market import MINUTE, Bar, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Candle:
    """Open of the first bar, highest high, lowest low, close of the last bar, sum of volumes of one window.

    `timestamp` is the window's start and `end` its end, UTC. `bars` counts the minute bars it was made of.
    """

    symbol: str
    timestamp: datetime
    end: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int
    bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window of the session, `[start, end)`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """What became of a window whose grace ran out, and the candles that are complete now, in order of time.

    One of three is set: `partial`, it lacked minutes and its candle comes first in `candles`; `missing`, it had no bar
    at all, so history is to be asked and `answer` called; `skipped`, it had none and the session no longer runs.
    None of them is set when no window was due.
    """

    candles: list[Candle]
    partial: Window | None = None
    missing: Window | None = None
    skipped: Window | None = None


class CandleAggregator:
    """The candles of one symbol and interval, always in order of time, each window closed exactly once.

    A window closes as soon as all its minutes inside the session are there. Otherwise it closes `grace_seconds` after
    its end, and until then the bars of later windows are held back. Counters run on over all sessions.
    """

    def __init__(self, *, symbol: str, interval_minutes: int, grace_seconds: int) -> None:
        self.symbol = symbol
        self.interval_minutes = interval_minutes
        self.late_bars = 0
        self.duplicate_bars = 0
        self.partial_candles = 0
        self.skipped_windows = 0
        self._grace = timedelta(seconds=grace_seconds)
        self._interval = interval_minutes * MINUTE
        self._session: Session | None = None

    def start_session(self, session: Session) -> None:
        """Counts windows from this session's open; whatever the last session left unfinished is dropped."""
        self._session = session
        self._minutes = -((session.open - session.close) // MINUTE)
        self._seen = bytearray(self._minutes)
        self._held: dict[int, list[Bar]] = {}
        self._awaiting_history = False
        self._index = 0
        self._start = session.open
        self._close = session.close
        self._end = min(session.open + self._interval, session.close)

    @property
    def session(self) -> Session | None:
        """The session whose windows are being filled."""
        return self._session

    def is_late(self, bar: Bar) -> bool:
        """Whether the bar belongs to a window of this session that is closed already."""
        return self._session is not None and self._session.open <= bar.timestamp < self._start

    def add(self, bar: Bar) -> list[Candle]:
        """The candles that this bar completes, in order of time.

        A bar outside the session is ignored, one whose minute was seen before is ignored and counted in
        `duplicate_bars`, one of a window that is closed already is ignored and counted in `late_bars`.
        """
        session = self._session
        if session is None or not session.open <= bar.timestamp < session.close:
            return []
        minute = (bar.timestamp - session.open).seconds // 60
        if self._seen[minute]:
            self.duplicate_bars += 1
            return []
        self._seen[minute] = True
        index = minute // self.interval_minutes
        if index < self._index:
            self.late_bars += 1
            return []
        bars = self._held.setdefault(index, [])
        if not bars or bar.timestamp > bars[-1].timestamp:
            bars.append(bar)
        else:
            insort(bars, bar, key=_timestamp)
        return self._complete_candles() if index == self._index else []

    def due(self) -> datetime | None:
        """When the first window that is still open closes by grace; None without one, or while history is asked."""
        if self._session is None or self._awaiting_history or self._start >= self._session.close:
            return None
        return self._end + self._grace

    def expire(self, now: datetime) -> Expired:
        """Closes the first window whose grace has run out, and only that one."""
        session, due = self._session, self.due()
        if session is None or due is None or due > now:
            return Expired(candles=[])
        window = Window(start=self._start, end=self._end)
        if self._index in self._held:
            return Expired(candles=self._close_window(), partial=window)
        if due < session.close:
            self._awaiting_history = True
            return Expired(candles=[], missing=window)
        return Expired(candles=self._close_window(), skipped=window)

    def answer(self, window_start: datetime, bars: Iterable[Bar]) -> list[Candle]:
        """Closes the window that waits for history with the bars found there, or skips it if there are none.

        Nothing happens when that window does not wait any more: its minutes came after all.
        """
        if self._session is None or not self._awaiting_history or window_start != self._start:
            return []
        end = self._end
        candles = [candle for bar in bars if window_start <= bar.timestamp < end for candle in self.add(bar)]
        return candles if self._start >= end else self._close_window()

    def _close_window(self) -> list[Candle]:
        """Closes the first open window with what it has, and those after it that are complete."""
        candles = []
        if bars := self._held.pop(self._index, None):
            self.partial_candles += 1
            candles.append(self._candle(bars))
        else:
            self.skipped_windows += 1
        self._next_window()
        return candles + self._complete_candles()

    def _complete_candles(self) -> list[Candle]:
        """Closes the first open window and those after it as long as they have all their minutes."""
        candles: list[Candle] = []
        while bars := self._held.get(self._index):
            first_minute = self._index * self.interval_minutes
            if len(bars) < min(self.interval_minutes, self._minutes - first_minute):
                break
            del self._held[self._index]
            candles.append(self._candle(bars))
            self._next_window()
        return candles

    def _next_window(self) -> None:
        self._index += 1
        self._awaiting_history = False
        self._start = self._end
        self._end = min(self._start + self._interval, self._close)

    def _candle(self, bars: list[Bar]) -> Candle:
        first, last = bars[0], bars[-1]
        high, low, volume = first.high, first.low, first.volume
        for bar in bars[1:]:
            if bar.high > high:
                high = bar.high
            if bar.low < low:
                low = bar.low
            volume += bar.volume
        return Candle(
            symbol=self.symbol,
            timestamp=self._start,
            end=self._end,
            open=first.open,
            high=high,
            low=low,
            close=last.close,
            volume=volume,
            bars=len(bars),
        )


def _timestamp(bar: Bar) -> datetime:
    return bar.timestamp
