"""What becomes of an entry when nothing else is at work: worked out on columns, from the signal to the end.

The rules are those of `Trader` and `Exchange`, for the life that nearly every position has: the entry is filled whole
or expires; a stop protects it from then on and is moved where the strategy says so; the position ends by that stop, by
the strategy's word, or by the flatten before the close. Whatever else may come up is left to them: then there is no
answer, and nothing was changed. Tests hold both ways together, result for result.
"""

from bisect import bisect_left, bisect_right
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from backtests.desk import StopMove
from backtests.history import History, Steps
from orders.lifecycle import Side
from trading.columns import PRICES, Integers, to_moment, to_units
from trading.exchange import PathRule
from trading.market import round_down, round_up
from trading.strategy import Strategy

SECOND = timedelta(seconds=1)
NOTHING_MORE = 2**62, None


class RoundTrip(NamedTuple):
    """A position from its entry to its end, with the prices of the market, before slippage.

    Its last fill is of `exit_at` and known at `known_at`. `path_mattered`: the bar of the entry reaches the stop too.
    """

    entry_key: int
    entry_at: datetime
    entry_price: Decimal
    moves: list[StopMove]
    exit_key: int
    exit_at: datetime
    known_at: datetime
    exit_price: Decimal
    exit_reason: str
    path_mattered: bool


class Course(NamedTuple):
    """What becomes of an entry; without a `trip` it expires. The symbol is free again from this step and bar on.

    The symbol is taken at candles before position `taken_until`. Those from `in_flatten` on are of the very moment of
    the flatten: a signal of theirs is refused for another reason than the ones before.
    """

    step: int
    bar: int
    taken_until: int
    in_flatten: int
    trip: RoundTrip | None = None


class Bars(NamedTuple):
    """Prices as a long sees them. A short sees them mirrored: all below 0, high and low in each other's place."""

    sign: int
    open: memoryview
    high: memoryview
    low: memoryview
    close: memoryview


class Entry(NamedTuple):
    """What is asked about; prices and bars are as a long sees them."""

    step: int
    side: Side
    price: int
    stop: int
    end_key: int
    flatten_key: int | None
    path_rule: PathRule


class RoundTrips:
    """The round trips of one strategy in one symbol, each worked out once for all runs on the same bars.

    Keys put bars, steps and timers in one order, as in `backtests/leaps.py`, `second` of them to a second; there is one
    more step, which never comes.
    """

    def __init__(
        self,
        history: History,
        steps: Steps,
        strategy: Strategy,
        *,
        step_keys: Integers,
        bar_keys: Integers,
        second: int,
    ) -> None:
        self._bars, self._candles, self._strategy = history.bars, steps.candles, strategy
        self._step_keys, self._bar_keys, self._second = step_keys.data, bar_keys.data, second
        self._first, self._bars_known = steps.first.data, steps.bars_known.data
        self._late = [*np.flatnonzero(steps.is_late).tolist(), len(steps)]
        self._validity = second * (strategy.entry_validity // SECOND)
        self._sides: dict[Side, Bars] = {}
        self._known: dict[tuple[object, ...], Course | None] = {}

    def course(
        self,
        *,
        step: int,
        side: Side,
        entry_price: Decimal,
        stop_price: Decimal,
        end_key: int,
        flatten_key: int | None,
        path_rule: PathRule,
    ) -> Course | None:
        """What becomes of an entry at the candle of a step that is not late; None if that is for others to find out.

        The prices are those that the strategy asks for at that candle. `end_key` is the first one after the moment up
        to which all is known; with a `flatten_key` a position is closed in that moment.
        """
        key = step, side, end_key, flatten_key, path_rule
        if key not in self._known:
            sign = self._side(side).sign
            price, stop = sign * to_units(entry_price), sign * to_units(stop_price)
            self._known[key] = self._course(Entry(step, side, price, stop, end_key, flatten_key, path_rule))
        return self._known[key]

    def _course(self, entry: Entry) -> Course | None:
        expires_key = self._step_keys[entry.step] + self._validity
        if expires_key >= entry.end_key or entry.stop >= entry.price:
            return None
        high, first_bar = self._side(entry.side).high, self._bars_known[entry.step]
        for bar in range(first_bar, bisect_right(self._bar_keys, expires_key, first_bar)):
            if high[bar] >= entry.price:
                return self._filled(entry, bar)
        free = bisect_left(self._step_keys, expires_key, entry.step + 1)
        return self._until(free, max(first_bar, self._bars_known[free - 1]), free, entry)

    def _filled(self, entry: Entry, entry_bar: int) -> Course | None:
        """The course of an entry that is filled in a bar."""
        stop, bars_known = entry.stop, self._bars_known
        sign, opens, _, lows, closes = self._side(entry.side)
        moves: list[StopMove] = []
        if lows[entry_bar] <= stop and self._stop_comes_after(entry, entry_bar):
            return self._stopped(entry, entry_bar, moves, entry_bar, stop)

        step = bisect_left(self._step_keys, self._bar_keys[entry_bar], entry.step + 1)
        late = self._late[bisect_left(self._late, step)]
        last_step = bisect_left(self._step_keys, entry.end_key, step)  # this one is not known any more
        managed = self._strategy.outlook(self._candles, first=self._first[step], side=entry.side)
        if managed is None:
            return None
        offset, bar = step - self._first[step], entry_bar + 1  # until one is late every step has one candle
        while True:
            place, better = next(managed, NOTHING_MORE)
            step = min(place + offset, last_step)
            end = bars_known[step] if step < last_step else bisect_left(self._bar_keys, entry.end_key, bar)
            if end > bar and min(lows[bar:end]) <= stop:
                while lows[bar] > stop:
                    bar += 1
                return self._stopped(entry, entry_bar, moves, bar, min(opens[bar], stop))
            bar, price = end, closes[end - 1]
            if step == last_step:
                return self._flattened(entry, entry_bar, moves, step, bar, price)
            if step >= late:
                return None
            key, reason = self._step_keys[step], self._strategy.exit_reason
            if better is not None:
                stop_price = round_down(better) if entry.side is Side.LONG else round_up(better)
                units, reason = sign * to_units(stop_price), ""
                if units >= price:
                    reason = "trailing_stop"  # it would be reached already
                elif units > stop:
                    stop = units
                    moves.append(StopMove(symbol=self._bars.symbol, at=self._moment(key), stop_price=stop_price))
            if reason:
                trip = self._trip(entry, entry_bar, moves, key, self._moment(key), price, reason)
                return self._until(step + 1, bar, step, entry, trip)

    def _stopped(self, entry: Entry, entry_bar: int, moves: list[StopMove], bar: int, price: int) -> Course | None:
        """The course that ends by the stop inside a bar."""
        key, at = self._bar_keys[bar], to_moment(self._bars.timestamps.item(bar))
        free = bisect_left(self._step_keys, key, entry.step + 1)
        trip = self._trip(entry, entry_bar, moves, key, at, price, "trailing_stop" if moves else "stop_loss")
        return self._until(free, bar + 1, free, entry, trip)

    def _flattened(
        self, entry: Entry, entry_bar: int, moves: list[StopMove], step: int, bar: int, price: int
    ) -> Course | None:
        """The course that ends by the flatten, before a step and a bar."""
        key = entry.flatten_key
        if key is None:
            return None
        trip = self._trip(entry, entry_bar, moves, key, self._moment(key), price, "end_of_day")
        course = self._until(step, bar, step, entry, trip)
        begins = bisect_left(self._step_keys, entry.end_key - self._second, entry.step + 1, step)
        return course and course._replace(in_flatten=self._first[begins])

    def _until(
        self, step: int, bar: int, taken_until: int, entry: Entry, trip: RoundTrip | None = None
    ) -> Course | None:
        """The course, if every step before the symbol is free again comes in time."""
        if self._late[bisect_left(self._late, entry.step)] < step:
            return None
        taken_until = self._first[taken_until]
        return Course(step, bar, taken_until, taken_until, trip)

    def _trip(
        self,
        entry: Entry,
        entry_bar: int,
        moves: list[StopMove],
        exit_key: int,
        exit_at: datetime,
        exit_price: int,
        exit_reason: str,
    ) -> RoundTrip:
        sign, opens, _, lows, _ = self._side(entry.side)
        return RoundTrip(
            entry_key=self._bar_keys[entry_bar],
            entry_at=to_moment(self._bars.timestamps.item(entry_bar)),
            entry_price=PRICES[sign * max(opens[entry_bar], entry.price)],
            moves=moves,
            exit_key=exit_key,
            exit_at=exit_at,
            known_at=self._moment(exit_key),
            exit_price=PRICES[sign * exit_price],
            exit_reason=exit_reason,
            path_mattered=lows[entry_bar] <= entry.stop,
        )

    def _stop_comes_after(self, entry: Entry, bar: int) -> bool:
        """Whether the path inside the bar of the entry, which reaches the stop as well, does so after the entry."""
        sign, opens, highs, lows, closes = self._side(entry.side)
        rise, fall = highs[bar] - opens[bar], opens[bar] - lows[bar]
        if opens[bar] >= entry.price:
            return True
        if entry.path_rule is PathRule.NEUTRAL:
            is_high_first = rise <= fall if sign > 0 else rise < fall
        else:
            is_high_first = entry.path_rule is PathRule.PESSIMISTIC
        return is_high_first or closes[bar] <= entry.stop

    def _moment(self, key: int) -> datetime:
        return to_moment(key // self._second)

    def _side(self, side: Side) -> Bars:
        if side not in self._sides:
            sign, bars = (1 if side is Side.LONG else -1), self._bars
            high, low = (bars.high, bars.low) if side is Side.LONG else (bars.low, bars.high)
            self._sides[side] = Bars(sign, *((sign * each).data for each in (bars.open, high, low, bars.close)))
        return self._sides[side]
