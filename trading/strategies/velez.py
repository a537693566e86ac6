"""Velez: enters when two tight averages begin to part and a strong candle shows the way."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orders.lifecycle import Side
from trading.candles import Candle
from trading.columns import LARGEST_SUM, PRICES, AverageColumns, CandleColumns, Flags, Integers
from trading.indicators import IndicatorSet
from trading.strategy import Condition, Foresight, Holding, Strategy

GREENS_THAT_END_A_PULLBACK = 2
STRONG = 2  # the mark of a strong candle
ZERO = Decimal(0)

Marks = NDArray[np.int8]
RED_FOR = {Side.LONG: b"\xff", Side.SHORT: b"\x01"}  # the sign of a candle against the position


class Velez(Strategy):
    """The strategy of the converging averages, with the stop trailed from pullback to pullback.

    Everything is written for a long; a short is its mirror image, in which green and red, high and low change places.
    Every parameter whose name ends in `pct` is in percent, `stop_buffer_min` in dollars.
    """

    name: ClassVar[str] = "velez"
    exit_reason: ClassVar[str] = "max_run"
    candidates_are_signals: ClassVar[bool] = True
    signal_parameters: ClassVar[frozenset[str]] = frozenset(
        {"enabled", "allow_short", "sma_fast", "sma_slow", "tightness_threshold_pct"}
    )
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "enabled": True,
        "allow_short": False,
        "sma_fast": 20,
        "sma_slow": 200,
        "candle_interval_minutes": 2,
        "tightness_threshold_pct": Decimal("2.0"),
        "strong_candle_body_pct": Decimal("50.0"),
        "stop_buffer_pct": Decimal("0.1"),
        "stop_buffer_min": Decimal("0.02"),
        "buy_stop_expiry_candles": 1,
        "max_run_candles": 3,
        "doji_threshold_pct": Decimal("10.0"),
    }

    def __init__(self, symbol: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(symbol, parameters)
        self.position_closed()

    def should_long(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """Whether the averages are tight, the fast one rises away from the slow one, and the candle is strong green."""
        return self._signals(candle, indicators, Side.LONG)

    def should_short(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """The mirror image of `should_long`."""
        return self._signals(candle, indicators, Side.SHORT)

    def entry_price(self, candle: Candle, side: Side) -> Decimal:
        """The candle's high for a long, its low for a short."""
        return candle.high if side is Side.LONG else candle.low

    def stop_loss_price(self, candle: Candle, side: Side) -> Decimal:
        """The candle's other end and a buffer: `stop_buffer_pct` percent of it, at least `stop_buffer_min` dollars."""
        end = candle.low if side is Side.LONG else candle.high
        buffer: Decimal = max(end * self.parameters["stop_buffer_pct"] / 100, self.parameters["stop_buffer_min"])
        return end - buffer if side is Side.LONG else end + buffer

    def should_update_stop(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> Decimal | None:
        """The pullback's low at the second green candle after it, else None; keeps count of pullback and run."""
        if holding.side is Side.LONG:
            return self._trail.take(self._mark(candle), candle.low, lower=min)
        return self._trail.take(-self._mark(candle), candle.high, lower=max)

    def should_exit(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> bool:
        """Whether `max_run_candles` strong candles in a row have followed the one that moved the stop."""
        return self._trail.run_count >= int(self.parameters["max_run_candles"])

    def position_closed(self) -> None:
        """Forgets pullback and run."""
        self._trail = _Trail()

    def conditions(self, candle: Candle, indicators: IndicatorSet) -> list[Condition]:
        """The conditions of a long, or of a short where shorts are allowed and the fast average is the lower one."""
        short = self.parameters["allow_short"] and indicators.spread_is_negative
        side = Side.SHORT if short else Side.LONG
        beyond = "below" if short else "above"
        spread = _spread(indicators.sma_fast, indicators.sma_slow)
        spread_before = _spread(indicators.prev_sma_fast, indicators.prev_sma_slow)
        return [
            Condition(
                name="warm",
                met=self._is_warm(indicators),
                value=f"{indicators.bar_count} candles",
                needed=f"{self.parameters['sma_slow']} candles and those before them averaged",
            ),
            Condition(
                name="tight",
                met=self._is_tight(candle, indicators),
                value="unknown" if spread is None else f"{abs(spread) / candle.close * 100:.4f} %",
                needed=f"below {self.parameters['tightness_threshold_pct']} %",
            ),
            Condition(
                name="fast average on the right side",
                met=indicators.spread_is_negative if short else indicators.spread_is_positive,
                value=_dollars(spread),
                needed=f"{beyond} 0",
            ),
            Condition(
                name="diverging",
                met=indicators.spread_falls if short else indicators.spread_rises,
                value=_dollars(spread),
                needed=f"{beyond} {_dollars(spread_before)}",
            ),
            Condition(
                name="red" if short else "green",
                met=self._points(candle, side),
                value=_COLOUR[self._direction(candle)],
                needed="red" if short else "green",
            ),
            Condition(
                name="strong",
                met=self._is_strong(candle),
                value=f"body {_body_pct(candle):.2f} %",
                needed=f"at least {self.parameters['strong_candle_body_pct']} %",
            ),
        ]

    # --- hints for backtests ------------------------------------------------------------------------------------------

    def candidates(self, candles: CandleColumns, averages: AverageColumns) -> Flags | None:
        """The signal's conditions on whole columns, in exact integers."""
        marks, _ = self._marks(candles)
        is_long, is_short = averages.derived("velez", lambda: _parting(averages))
        found: Flags = is_long & (marks == STRONG)
        if self.parameters["allow_short"]:
            found |= is_short & (marks == -STRONG)
        (some,) = np.nonzero(found)
        percent, scale = self.parameters["tightness_threshold_pct"], averages.fast * averages.slow
        found[some] = ~_reaches(averages.spread[some], percent, candles.close[some] * scale)
        return found

    def foresee(self, candles: CandleColumns, *, first: int, end: int, side: Side) -> Foresight:
        """The next candle that moves the stop or ends the run."""
        trail = self._trail.copy()
        most = int(self.parameters["max_run_candles"])
        sign, ends, lower = (1, candles.low, min) if side is Side.LONG else (-1, candles.high, max)
        marks, colours = self._marks(candles)
        start = first
        if trail.is_idle:  # nothing counts before a pullback begins
            begin = colours.find(RED_FOR[side], first, end)
            start = end if begin < 0 else begin
        for place, mark in enumerate(marks.data[start:end], start):
            seen = mark * sign
            if seen > 0 and trail.comes_to_something(seen, most):
                return Foresight(place, trail)
            trail.take(seen, PRICES[ends.item(place)] if seen < 0 else ZERO, lower=lower)
        return Foresight(end, trail)

    def skip(self, foresight: Foresight) -> None:
        """Counts pullback and run as they will be by then."""
        self._trail = foresight.memory

    def outlook(self, candles: CandleColumns, *, first: int, side: Side) -> Iterator[tuple[int, Decimal | None]] | None:
        """The candles that move the stop, and the one that ends the run."""
        marks, colours = self._marks(candles)
        begin = colours.find(RED_FOR[side], first)  # nothing counts before a pullback begins
        return self._outlook(candles, marks, begin, side) if begin >= 0 else iter(())

    def _outlook(
        self, candles: CandleColumns, marks: Marks, begin: int, side: Side
    ) -> Iterator[tuple[int, Decimal | None]]:
        trail, most = _Trail(), int(self.parameters["max_run_candles"])
        sign, ends, lower = (1, candles.low, min) if side is Side.LONG else (-1, candles.high, max)
        for place, mark in enumerate(marks.data[begin:], begin):
            seen = mark * sign
            stop_price = trail.take(seen, PRICES[ends.item(place)] if seen < 0 else ZERO, lower=lower)
            if stop_price is not None:
                yield place, stop_price
            if trail.run_count >= most:
                yield place, None

    def _marks(self, candles: CandleColumns) -> tuple[Marks, bytes]:
        """The marks of all candles, exact, and their signs."""
        doji, strong = self.parameters["doji_threshold_pct"], self.parameters["strong_candle_body_pct"]
        return candles.derived(("velez", doji, strong), lambda: _marks_of(candles, doji, strong))

    # --- the signal ---------------------------------------------------------------------------------------------------

    def _signals(self, candle: Candle, indicators: IndicatorSet, side: Side) -> bool:
        return (
            self._is_warm(indicators)
            and (
                indicators.spread_is_positive and indicators.spread_rises
                if side is Side.LONG
                else indicators.spread_is_negative and indicators.spread_falls
            )
            and self._is_tight(candle, indicators)
            and self._points(candle, side)
            and self._is_strong(candle)
        )

    def _is_warm(self, indicators: IndicatorSet) -> bool:
        return indicators.all_known and indicators.bar_count >= int(self.parameters["sma_slow"])

    def _is_tight(self, candle: Candle, indicators: IndicatorSet) -> bool:
        return indicators.spread_is_within(self.parameters["tightness_threshold_pct"], of=candle.close)

    # --- candle words -------------------------------------------------------------------------------------------------

    def _direction(self, candle: Candle) -> int:
        """1 for a green candle, -1 for a red one, 0 for a doji and for one that closes where it opened."""
        body = candle.close - candle.open
        if not body or abs(body) * 100 < self.parameters["doji_threshold_pct"] * (candle.high - candle.low):
            return 0
        return 1 if body > 0 else -1

    def _points(self, candle: Candle, side: Side) -> bool:
        return self._direction(candle) == (1 if side is Side.LONG else -1)

    def _is_strong(self, candle: Candle) -> bool:
        body, length = abs(candle.close - candle.open), candle.high - candle.low
        return length > 0 and body * 100 >= self.parameters["strong_candle_body_pct"] * length

    def _mark(self, candle: Candle) -> int:
        """The direction, doubled for a strong candle."""
        direction = self._direction(candle)
        return 2 * direction if direction and self._is_strong(candle) else direction


class _Trail:
    """Pullback and run of the open position; marks are from its side: 1 is green, -1 red, 0 a doji, 2 strong green."""

    __slots__ = ("green_count", "in_run", "pullback_end", "run_count")

    def __init__(self) -> None:
        self.pullback_end: Decimal | None = None
        self.green_count = 0
        self.in_run = False
        self.run_count = 0

    @property
    def is_idle(self) -> bool:
        """Whether neither a pullback nor a run is on: then green candles and dojis change nothing."""
        return self.pullback_end is None and not self.in_run and self.run_count == 0

    def copy(self) -> "_Trail":
        trail = _Trail()
        trail.pullback_end, trail.green_count = self.pullback_end, self.green_count
        trail.in_run, trail.run_count = self.in_run, self.run_count
        return trail

    def take(self, mark: int, end: Decimal, *, lower: Callable[[Decimal, Decimal], Decimal]) -> Decimal | None:
        """Takes a candle in; the new stop if it ends a pullback. `end` is its low for a long, its high for a short."""
        if mark < 0:
            self.pullback_end = end if self.pullback_end is None else lower(self.pullback_end, end)
            self.green_count = self.run_count = 0
            self.in_run = False
        elif mark == 0:
            self.run_count = 0
        elif self.pullback_end is not None:
            self.green_count += 1
            if self.green_count == GREENS_THAT_END_A_PULLBACK:
                stop_price, self.pullback_end = self.pullback_end, None
                self.green_count = self.run_count = 0
                self.in_run = True
                return stop_price
        elif self.in_run:
            self.run_count = self.run_count + 1 if mark >= STRONG else 0
        return None

    def comes_to_something(self, mark: int, most: int) -> bool:
        """Whether this green candle will move the stop, or be the one of `most` strong ones in a row."""
        if self.pullback_end is not None:
            return self.green_count == GREENS_THAT_END_A_PULLBACK - 1
        return self.in_run and mark >= STRONG and self.run_count + 1 >= most


def _parting(averages: AverageColumns) -> tuple[Flags, Flags]:
    """Where the averages part upwards and where downwards, and the spread before is known too."""
    spread = averages.spread
    change = np.diff(spread, prepend=0)
    is_warm = np.arange(len(spread)) >= averages.slow
    return is_warm & (spread > 0) & (change > 0), is_warm & (spread < 0) & (change < 0)


def _marks_of(candles: CandleColumns, doji: Decimal, strong: Decimal) -> tuple[Marks, bytes]:
    body, length = candles.close - candles.open, candles.high - candles.low
    is_strong = (length > 0) & _reaches(body, strong, length)
    colours = (np.sign(body) * _reaches(body, doji, length)).astype(np.int8)
    return colours * (1 + is_strong).astype(np.int8), colours.tobytes()


def _reaches(size: Integers, percent: Decimal, whole: Integers) -> Flags:
    """Whether a size, whatever its sign, is at least so many percent of a whole; exact."""
    share, unit = percent.as_integer_ratio()
    largest = max(int(np.abs(size).max(initial=1)) * 100 * unit, int(whole.max(initial=1)) * share)
    kind: Any = np.int64 if largest < LARGEST_SUM else np.object_
    reaches: Flags = (np.abs(size).astype(kind) * (100 * unit) >= whole.astype(kind) * share).astype(bool)
    return reaches


_COLOUR = {1: "green", 0: "doji", -1: "red"}


def _spread(fast: Decimal | None, slow: Decimal | None) -> Decimal | None:
    return fast - slow if fast is not None and slow is not None else None


def _dollars(value: Decimal | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"


def _body_pct(candle: Candle) -> Decimal:
    length = candle.high - candle.low
    return abs(candle.close - candle.open) / length * 100 if length else Decimal(0)
