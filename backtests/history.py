"""One symbol's past as a backtest needs it: its bars, and the candles and averages that are made of them once."""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np

from trading.columns import (
    AverageColumns,
    BarColumns,
    CandleColumns,
    Flags,
    Integers,
    averages_of,
    candles_of,
    session_times,
)
from trading.market import Session

HIGHEST = 2**63 - 1  # of all prices
MOST_DERIVED = 32

Derived = TypeVar("Derived")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The moments at which candles of one length are completed: one, or several that waited for the same window.

    Step `i` completes the candles from `first[i]` up to, not including, `first[i + 1]`, when the last bar of them is
    delivered or, `is_late`, when the grace of a window ends. By then `bars_known[i]` bars are delivered; `low` and
    `high` are what those span that came since the step before. One more step, which never comes, spans the bars left.
    """

    candles: CandleColumns
    first: Integers
    is_late: Flags
    bars_known: Integers
    low: Integers
    high: Integers

    def __len__(self) -> int:
        return len(self.is_late)

    def containing(self, candles: Integers) -> Integers:
        """The steps that complete these candles, each once, in order."""
        if len(self) == len(self.candles):
            return candles
        found: Integers = np.unique(np.searchsorted(self.first, candles, side="right") - 1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The bars of one symbol: those of whole sessions before the run warm it up, then come those of the run.

    `sessions` are the ones that the bars lie in; `begins` is the open of the run's first. Candles and averages are kept
    for other runs on the same bars.
    """

    bars: BarColumns
    sessions: tuple[Session, ...]
    begins: datetime
    _steps: dict[tuple[int, int], Steps] = field(default_factory=dict, repr=False)
    _averages: dict[tuple[int, int, int, int], AverageColumns] = field(default_factory=dict, repr=False)
    _derived: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def traded(self) -> BarColumns:
        """The bars of the run."""
        return self.bars.part(slice(self.bars.index_at(self.begins), None))

    def session_at(self, moment: datetime) -> Session:
        """The session that a moment lies in."""
        return self.sessions[bisect_right(self.sessions, moment, key=lambda session: session.open) - 1]

    def steps(self, *, interval_minutes: int, grace_seconds: int) -> Steps:
        """The candles of one length, in the steps in which they come."""
        key = interval_minutes, grace_seconds
        if key not in self._steps:
            candles = candles_of(
                self.bars, self.sessions, interval_minutes=interval_minutes, grace_seconds=grace_seconds
            )
            self._steps[key] = _steps_of(candles, self.bars)
        return self._steps[key]

    def averages(self, *, interval_minutes: int, grace_seconds: int, fast: int, slow: int) -> AverageColumns:
        """The averages of these candles.

        Raises:
            TooLarge: the prices are too high for exact sums.
        """
        key = interval_minutes, grace_seconds, fast, slow
        if key not in self._averages:
            candles = self.steps(interval_minutes=interval_minutes, grace_seconds=grace_seconds).candles
            self._averages[key] = averages_of(candles.close, fast=fast, slow=slow)
        return self._averages[key]

    def derived(self, name: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` makes of these bars, made once for each name; of many names the latest are kept."""
        if name not in self._derived:
            while len(self._derived) >= MOST_DERIVED:
                del self._derived[next(iter(self._derived))]
            self._derived[name] = make()
        found: Derived = self._derived[name]
        return found


def history_of(bars: BarColumns, warm_up: Sequence[Session], sessions: Sequence[Session]) -> History:
    """The part of `bars` that a run over `sessions` needs after a warm-up over the sessions before them."""
    used = (*warm_up, *sessions)
    return History(bars=bars.within(used), sessions=used, begins=sessions[0].open)


def sessions_with_bars(histories: Iterable[History], sessions: Sequence[Session]) -> list[Session]:
    """The days of a run: those of its sessions in which at least one symbol has a bar."""
    opens, closes = session_times(sessions)
    bars = np.zeros(len(sessions), dtype=np.int64)
    for history in histories:
        stamps = history.bars.timestamps
        bars += np.searchsorted(stamps, closes) - np.searchsorted(stamps, opens)
    return [session for session, count in zip(sessions, bars.tolist(), strict=True) if count]


def _steps_of(candles: CandleColumns, bars: BarColumns) -> Steps:
    firsts = np.flatnonzero(np.diff(candles.completed_at, prepend=-1) != 0)
    bars_known = np.append(candles.bars_known[firsts], len(bars))
    since = np.append(0, bars_known[:-1])
    return Steps(
        candles=candles,
        first=np.append(firsts, len(candles)),
        is_late=candles.waited[firsts],
        bars_known=bars_known,
        low=np.minimum.reduceat(np.append(bars.low, HIGHEST), since),
        high=np.maximum.reduceat(np.append(bars.high, 0), since),
    )
