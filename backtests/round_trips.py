"""What becomes of an entry order when nothing else is at work: worked out on columns, from the signal to the end.

The rules are those of `Trader` and `Exchange`, for the life that nearly all positions have: the entry is filled whole or
expires; a stop protects it from then on and is moved where the strategy says so; the position ends by that stop, by
the strategy's word, or by the flatten before the close. Whatever else may come up is left to them: then there is no
answer, and nothing was changed. Tests hold both ways together, result for result.
"""

from bisect import bisect_left, bisect_right
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from backtests.history import History, Steps
from orders.lifecycle import Side
from trading.columns import Integers, to_units
from trading.exchange import PathRule
from trading.market import round_down, round_up
from trading.strategy import Strategy

NOTHING_MORE = 2**62, None


class RoundTrip(NamedTuple):
    """A position from its entry to its end. Bars are positions in the columns, prices 1/10 000 dollar.

    It ends by its stop inside `exit_bar`, or with the candle of `exit_step`, or, without either, by the flatten.
    `moves` are the steps after which the stop has another price. `path_mattered`: the entry's bar reaches the stop too.
    """

    entry_bar: int
    entry_price: int
    exit_price: int
    exit_reason: str
    moves: list[tuple[int, Decimal]]
    path_mattered: bool
    exit_bar: int | None = None
    exit_step: int | None = None


class Course(NamedTuple):
    """What becomes of an entry; without a `trip` it expires. The symbol is free again from this step and bar on.

    So many `signals` come while it is taken.
    """

    step: int
    bar: int
    signals: int
    trip: RoundTrip | None = None


class Sided(NamedTuple):
    """Bars as a long sees them. A short sees them mirrored: all prices negative, high and low in each other's place."""

    sign: int
    open: memoryview
    high: memoryview
    low: memoryview
    close: memoryview


class RoundTrips:
    """The columns of one symbol on which its round trips are worked out.

    Keys put bars and steps in one order, as in `backtests/leaps.py`, `second` of them to a second; there is one more
    step, which never comes. `signals_before` counts the signals at candles before each.
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
        signals_before: Integers,
    ) -> None:
        self._second, self._signals_before = second, signals_before.data
        self._bars, self._candles, self._strategy = history.bars, steps.candles, strategy
        self._step_keys, self._bar_keys = step_keys.data, bar_keys.data
        self._first, self._bars_known = steps.first.data, steps.bars_known.data
        self._late = [*np.flatnonzero(steps.is_late).tolist(), len(steps)]
        self._sides: dict[Side, Sided] = {}

    def course(
        self,
        *,
        step: int,
        side: Side,
        entry: int,
        stop: int,
        expires_key: int,
        end_key: int,
        is_flattened: bool,
        path_rule: PathRule,
    ) -> Course | None:
        """What becomes of an entry at the candle of a step; None if that is for others to find out.

        `expires_key` is that of a bar delivered in the moment the entry expires in, `end_key` the first key after the
        moment up to which all is known; in that moment a position is closed if it `is_flattened`.
        """
        sided, bars_known = self._sided(side), self._bars_known
        entry, stop = entry * sided.sign, stop * sided.sign
        late = self._late[bisect_left(self._late, step)]
        if expires_key >= end_key or stop >= entry:
            return None
        high, first_bar = sided.high, bars_known[step]
        for bar in range(first_bar, bisect_right(self._bar_keys, expires_key, first_bar)):
            if high[bar] >= entry:
                return self._filled(step, side, sided, bar, entry, stop, end_key, is_flattened, path_rule, late)
        free = bisect_left(self._step_keys, expires_key, step + 1)
        if free > late:
            return None
        return Course(free, max(first_bar, bars_known[free - 1]), self._signals(step + 1, free))

    def _filled(
        self,
        signal_step: int,
        side: Side,
        sided: Sided,
        entry_bar: int,
        entry: int,
        stop: int,
        end_key: int,
        is_flattened: bool,
        path_rule: PathRule,
        late: int,
    ) -> Course | None:
        """The same when the entry is filled in a bar."""
        sign, opens, highs, lows, closes = sided
        step_keys, first, bars_known = self._step_keys, self._first, self._bars_known
        entry_price = max(opens[entry_bar], entry)
        reaches_stop = lows[entry_bar] <= stop
        moves: list[tuple[int, Decimal]] = []

        def stopped(bar: int, price: int) -> Course | None:
            free = bisect_left(step_keys, self._bar_keys[bar], signal_step + 1)
            reason = "trailing_stop" if moves else "stop_loss"
            trip = RoundTrip(entry_bar, sign * entry_price, sign * price, reason, moves, reaches_stop, exit_bar=bar)
            return Course(free, bar + 1, self._signals(signal_step + 1, free), trip) if free <= late else None

        if reaches_stop and self._stop_comes_after(entry, stop, sided, entry_bar, path_rule):
            return stopped(entry_bar, stop)

        step = bisect_left(step_keys, self._bar_keys[entry_bar], signal_step + 1)
        last_step = bisect_left(step_keys, end_key, step)  # this one is not known any more
        managed = self._strategy.outlook(self._candles, first=first[step], side=side)
        if managed is None:
            return None
        offset, bar = step - first[step], entry_bar + 1  # until one is late every step has one candle
        while True:
            place, better = next(managed, NOTHING_MORE)
            step = min(place + offset, last_step)
            end = bars_known[step] if step < last_step else bisect_left(self._bar_keys, end_key, bar)
            if end > bar and min(lows[bar:end]) <= stop:
                while lows[bar] > stop:
                    bar += 1
                return stopped(bar, min(opens[bar], stop))
            bar = end
            if step >= late:
                return None
            price = closes[end - 1]
            if step == last_step:
                # A signal in the moment of the flatten is refused for another reason than those before.
                at_once = bisect_left(step_keys, end_key - self._second, signal_step + 1, step)
                if not is_flattened or self._signals(at_once, step):
                    return None
                trip = RoundTrip(entry_bar, sign * entry_price, sign * price, "end_of_day", moves, reaches_stop)
                return Course(step, end, self._signals(signal_step + 1, step), trip)
            reason = "" if better is not None else self._strategy.exit_reason
            if better is not None:
                stop_price = round_down(better) if side is Side.LONG else round_up(better)
                units = sign * to_units(stop_price)
                if units >= price:  # it would be reached already
                    reason = "trailing_stop"
                elif units > stop:
                    stop = units
                    moves.append((step, stop_price))
            if reason:
                trip = RoundTrip(
                    entry_bar, sign * entry_price, sign * price, reason, moves, reaches_stop, exit_step=step
                )
                return Course(step + 1, end, self._signals(signal_step + 1, step), trip)

    def _signals(self, step: int, end: int) -> int:
        """How many come with the candles of the steps before `end`."""
        return self._signals_before[self._first[end]] - self._signals_before[self._first[step]]

    def _stop_comes_after(self, entry: int, stop: int, sided: Sided, bar: int, path_rule: PathRule) -> bool:
        """Whether the path inside the bar of the entry, which reaches the stop as well, does so after the entry."""
        opened, high, low = sided.open[bar], sided.high[bar], sided.low[bar]
        if opened >= entry:
            return True
        if path_rule is not PathRule.NEUTRAL:
            is_high_first = path_rule is PathRule.PESSIMISTIC
        elif sided.sign > 0:
            is_high_first = high - opened <= opened - low
        else:
            is_high_first = high - opened < opened - low
        return is_high_first or sided.close[bar] <= stop

    def _sided(self, side: Side) -> Sided:
        if side not in self._sides:
            bars = self._bars
            prices = (bars.open, bars.high, bars.low, bars.close)
            if side is Side.SHORT:
                prices = (-bars.open, -bars.low, -bars.high, -bars.close)
            sign = 1 if side is Side.LONG else -1
            self._sides[side] = Sided(sign, *(each.data for each in prices))
        return self._sides[side]
