"""Bars, candles and averages of a whole history at once, as columns of exact integers.

What `CandleAggregator` and `IndicatorCalculator` make bar by bar, for whoever has all bars in advance. Prices are
integers of 1/10 000 dollar, moments are seconds since 1970 UTC.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from orders.values import quick
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.market import Bar, Session

PRICE_UNITS = 10_000  # a dollar in the integers prices are kept in
MINUTE_SECONDS = 60
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_SUM = 2**62
MOST_PRICES = 1_000_000  # kept as decimals

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Derived = TypeVar("Derived")


class TooLarge(ValueError):
    """Prices so high that sums of them would not be exact any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarColumns:
    """One symbol's minute bars in order of time, no minute twice; `timestamps` are the minutes' starts."""

    symbol: str
    timestamps: Integers
    open: Integers
    high: Integers
    low: Integers
    close: Integers
    volume: Integers

    def __len__(self) -> int:
        return len(self.timestamps)

    def index_at(self, moment: datetime) -> int:
        """The position of the first bar stamped at or after `moment`."""
        return int(np.searchsorted(self.timestamps, moment.timestamp()))

    def bar(self, index: int) -> Bar:
        """The bar at a position."""
        return _bar(
            symbol=self.symbol,
            timestamp=to_moment(self.timestamps.item(index)),
            open=PRICES[self.open.item(index)],
            high=PRICES[self.high.item(index)],
            low=PRICES[self.low.item(index)],
            close=PRICES[self.close.item(index)],
            volume=self.volume.item(index),
        )

    def bars(self, start: int = 0, stop: int | None = None) -> list[Bar]:
        """The bars from position `start` up to, not including, `stop`."""
        return [self.bar(index) for index in range(*slice(start, stop).indices(len(self)))]

    def within(self, sessions: Sequence[Session]) -> "BarColumns":
        """The bars that belong to one of the sessions, which are given in order."""
        opens, closes = session_times(sessions)
        starts, ends = np.searchsorted(self.timestamps, opens), np.searchsorted(self.timestamps, closes)
        if len(sessions) and (starts[1:] == ends[:-1]).all():
            return self.part(slice(int(starts[0]), int(ends[-1])))
        return self.part(ranges(starts, ends))

    def part(self, which: slice | Integers | Flags) -> "BarColumns":
        """Some of the bars, in order."""
        return BarColumns(
            symbol=self.symbol,
            timestamps=self.timestamps[which],
            open=self.open[which],
            high=self.high[which],
            low=self.low[which],
            close=self.close[which],
            volume=self.volume[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleColumns:
    """All candles of one symbol and length, in order of time.

    A candle is complete when its last bar is delivered, or at `completed_at` when it, or a candle before it, had to
    wait for a window's grace (`waited`). `bars_known` counts the bars that have been delivered by then.

    What is once made of the columns is kept with them, for the next run on the same bars.
    """

    symbol: str
    start: Integers
    end: Integers
    open: Integers
    high: Integers
    low: Integers
    close: Integers
    volume: Integers
    bars: Integers
    completed_at: Integers
    waited: Flags
    bars_known: Integers
    _candles: dict[int, Candle] = field(default_factory=dict, repr=False)
    _derived: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.start)

    def candle(self, index: int) -> Candle:
        """The candle at a position."""
        candle = self._candles.get(index)
        if candle is None:
            candle = self._candles[index] = _candle(
                self.symbol,
                to_moment(self.start.item(index)),
                to_moment(self.end.item(index)),
                PRICES[self.open.item(index)],
                PRICES[self.high.item(index)],
                PRICES[self.low.item(index)],
                PRICES[self.close.item(index)],
                self.volume.item(index),
                self.bars.item(index),
            )
        return candle

    def derived(self, name: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` makes of these columns, made once for each name."""
        if name not in self._derived:
            self._derived[name] = make()
        found: Derived = self._derived[name]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageColumns:
    """The averages over the last `fast` and `slow` candle closes, as sums of closes; a sum is 0 until it is full.

    `spread` is `sma_fast - sma_slow` times `fast * slow`, exact. At position `slow - 1` all closes of the slow average
    are there, from position `slow` on those of the candle before are too. Before position `fine_from` all closes are
    whole cents, so that averages are written with as many decimals as the calculator's.

    What is once made of the columns is kept with them, as with candles.
    """

    fast: int
    slow: int
    fast_sum: Integers
    slow_sum: Integers
    spread: Integers
    fine_from: int
    _rows: "dict[int, _IndicatorRow]" = field(default_factory=dict, repr=False)
    _derived: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def indicators(self, index: int) -> IndicatorSet:
        """The averages at the candle at a position."""
        row = self._rows.get(index)
        if row is None:
            row = self._rows[index] = _IndicatorRow(self, index)
        return row

    def derived(self, name: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` makes of these columns, made once for each name."""
        if name not in self._derived:
            self._derived[name] = make()
        found: Derived = self._derived[name]
        return found

    def sma_fast(self, index: int) -> Decimal | None:
        """The fast average at a candle, in dollars."""
        return self._dollars(self.fast_sum, index) / self.fast if index >= self.fast - 1 else None

    def sma_slow(self, index: int) -> Decimal | None:
        """The slow average at a candle, in dollars."""
        return self._dollars(self.slow_sum, index) / self.slow if index >= self.slow - 1 else None

    def scaled_spread(self, index: int) -> int | None:
        """The spread at a candle, in 1/10 000 dollar."""
        return self.spread.item(index) if index >= self.slow - 1 else None

    def _dollars(self, units: Integers, index: int) -> Decimal:
        amount = units.item(index)
        return Decimal(amount // 100).scaleb(-2) if index < self.fine_from else Decimal(amount).scaleb(-4)


def candles_of(
    bars: BarColumns, sessions: Sequence[Session], *, interval_minutes: int, grace_seconds: int
) -> CandleColumns:
    """The candles of `bars`, all of which lie within `sessions`, as the aggregator would make them."""
    opens, closes = session_times(sessions)
    interval = interval_minutes * MINUTE_SECONDS
    begins = np.searchsorted(bars.timestamps, opens)
    of_bar = np.repeat(np.arange(len(opens)), np.diff(begins, append=len(bars)))
    window = (bars.timestamps - opens[of_bar]) // interval
    first = np.flatnonzero(_changes(of_bar) | _changes(window))
    last = np.append(first, len(bars))[1:] - 1
    counts = last - first + 1
    session, number = of_bar[first], window[first]
    start = opens[session] + number * interval
    end = np.minimum(start + interval, closes[session])
    is_full = counts == (end - start) // MINUTE_SECONDS
    ready_at = np.where(is_full, end, end + grace_seconds)
    # A window without any bar holds back those after it until its own grace is over.
    is_held_back = (number > 0) & (_changes(session) | (np.diff(number, prepend=0) > 1))
    ready_at = np.where(is_held_back, np.maximum(ready_at, start + grace_seconds), ready_at)
    completed_at = np.maximum.accumulate(ready_at)
    # Full at its end, a candle is complete with its last bar; but timers of that moment come after the bar.
    closed_before = np.append(np.int64(0), completed_at)[:-1]
    closed_before = np.where(is_held_back, np.maximum(closed_before, start + grace_seconds), closed_before)
    waited = ~is_full | (closed_before >= end)
    bars_known = last + 1
    bars_known[waited] = np.searchsorted(bars.timestamps, completed_at[waited] - MINUTE_SECONDS, side="right")
    return CandleColumns(
        symbol=bars.symbol,
        start=start,
        end=end,
        open=bars.open[first],
        high=_reduced(np.maximum, bars.high, first),
        low=_reduced(np.minimum, bars.low, first),
        close=bars.close[last],
        volume=_reduced(np.add, bars.volume, first),
        bars=counts,
        completed_at=completed_at,
        waited=waited,
        bars_known=bars_known,
    )


def averages_of(closes: Integers, *, fast: int, slow: int) -> AverageColumns:
    """The averages of candle closes, as the calculator would make them.

    Raises:
        TooLarge: the sums would not be exact.
    """
    if len(closes) and int(closes.max()) * max(len(closes), 2 * fast * slow) >= LARGEST_SUM:
        raise TooLarge("prices are too high for exact sums")
    total = np.r_[np.int64(0), np.cumsum(closes)]
    fast_sum, slow_sum = np.zeros_like(closes), np.zeros_like(closes)
    fast_sum[fast - 1 :] = total[fast:] - total[:-fast]
    slow_sum[slow - 1 :] = total[slow:] - total[:-slow]
    (fine,) = np.nonzero(closes % 100)
    return AverageColumns(
        fast=fast,
        slow=slow,
        fast_sum=fast_sum,
        slow_sum=slow_sum,
        spread=fast_sum * slow - slow_sum * fast,
        fine_from=int(fine[0]) if len(fine) else len(closes),
    )


def session_times(sessions: Sequence[Session]) -> tuple[Integers, Integers]:
    """Opening and closing times."""
    opens = np.array([to_seconds(session.open) for session in sessions], dtype=np.int64)
    closes = np.array([to_seconds(session.close) for session in sessions], dtype=np.int64)
    return opens, closes


def ranges(starts: Integers, ends: Integers) -> Integers:
    """All integers from each start up to, not including, its end, one range after the other."""
    lengths = ends - starts
    offsets = np.cumsum(lengths) - lengths
    positions: Integers = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - offsets, lengths)
    return positions


def to_price(units: int) -> Decimal:
    """Dollars for an integer of 1/10 000 dollar, with 2 decimals where these are enough."""
    return Decimal(units // 100).scaleb(-2) if units % 100 == 0 else Decimal(units).scaleb(-4)


def to_units(price: Decimal) -> int:
    """The integer of 1/10 000 dollar for a price of at most 4 decimals."""
    return int(price.scaleb(4))


def to_moment(seconds: int) -> datetime:
    """The UTC time so many seconds after 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def to_seconds(moment: datetime) -> int:
    """Whole seconds from 1970 to `moment`, rounded up."""
    return ceil(moment.timestamp())


class _Prices(dict[int, Decimal]):
    """Prices by their units, each made once."""

    def __missing__(self, units: int) -> Decimal:
        if len(self) >= MOST_PRICES:
            self.clear()
        price = self[units] = to_price(units)
        return price


PRICES = _Prices()


class _IndicatorRow(IndicatorSet):
    """The averages at one candle; in dollars they are worked out when they are looked at: most strategies never do."""

    __slots__ = ("_columns", "_index")

    def __init__(self, columns: AverageColumns, index: int) -> None:
        _set(self, "_columns", columns)
        _set(self, "_index", index)
        _set(self, "bar_count", min(index + 1, columns.slow))
        _set(self, "scaled_spread", columns.scaled_spread(index))
        _set(self, "prev_scaled_spread", columns.scaled_spread(index - 1))
        _set(self, "scale", columns.fast * columns.slow * PRICE_UNITS)

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not filled in yet.
        match name:
            case "sma_fast":
                value = self._columns.sma_fast(self._index)
            case "sma_slow":
                value = self._columns.sma_slow(self._index)
            case "prev_sma_fast":
                value = self._columns.sma_fast(self._index - 1)
            case "prev_sma_slow":
                value = self._columns.sma_slow(self._index - 1)
            case _:
                raise AttributeError(name)
        _set(self, name, value)
        return value


_candle = quick(cast("Callable[..., Candle]", Candle), kw_only=False)
_bar = quick(Bar)
_set = object.__setattr__  # the values are frozen once they are there


def _changes(values: Integers) -> Flags:
    """Where a value differs from the one before it; the first one always does."""
    changes: Flags = np.diff(values, prepend=-1) != 0
    return changes


def _reduced(function: np.ufunc, values: Integers, first: Integers) -> Integers:
    """The function over each run of values; `first` is where the runs begin."""
    reduced: Integers = function.reduceat(values, first) if len(first) else values[:0]
    return reduced
