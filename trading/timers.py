"""Timers in market time: which one is due next, and in which order those of one moment fire."""

import heapq
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum


class Kind(IntEnum):
    """Timers of one moment fire in this order, and within a kind in watchlist order."""

    PROTECT = 0
    EXPIRY = 1
    GRACE = 2
    FLATTEN = 3
    RETRY = 4
    GIVE_UP = 5


class Timers:
    """A heap of timers. None is ever taken out early: one that lost its reason says so and is passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, Kind, int, int, Callable[[], bool], Callable[[], None]]] = []
        self._count = 0

    def add(
        self, due: datetime, kind: Kind, *, index: int, still_wanted: Callable[[], bool], fire: Callable[[], None]
    ) -> None:
        """A timer for `fire`; `index` is its symbol's place in the watchlist."""
        self._count += 1
        heapq.heappush(self._heap, (due, kind, index, self._count, still_wanted, fire))

    @property
    def first(self) -> tuple[datetime, Kind, int] | None:
        """As `next`, but it may have lost its reason: nothing fires before it."""
        return self._heap[0][:3] if self._heap else None

    def next(self) -> tuple[datetime, Kind, int] | None:
        """When the earliest timer that is still wanted is due, its kind, and its symbol's place in the watchlist."""
        while self._heap:
            due, kind, index, _, still_wanted, _ = self._heap[0]
            if still_wanted():
                return due, kind, index
            heapq.heappop(self._heap)
        return None

    def fire_one(self, now: datetime) -> None:
        """Fires the first timer, if it is due."""
        timer = self.next()
        if timer is not None and timer[0] <= now:
            heapq.heappop(self._heap)[-1]()
