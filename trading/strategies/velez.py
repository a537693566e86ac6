"""Velez: enters when two tight averages begin to part and a strong candle shows the way."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np

from orders.lifecycle import Side
from trading.candles import Candle
from trading.columns import AverageColumns, CandleColumns, Flags
from trading.indicators import IndicatorSet
from trading.strategy import Condition, Holding, Strategy

GREENS_THAT_END_A_PULLBACK = 2
SAFETY = 1e-9  # far more than floats can be wrong by in a percentage, so that a hint errs on the generous side


class Velez(Strategy):
    """The strategy of the converging averages, with the stop trailed from pullback to pullback.

    Everything is written for a long; a short is its mirror image, in which green and red, high and low change places.
    Every parameter whose name ends in `pct` is in percent, `stop_buffer_min` in dollars.
    """

    name: ClassVar[str] = "velez"
    exit_reason: ClassVar[str] = "max_run"
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
        direction = self._direction(candle) * (1 if holding.side is Side.LONG else -1)
        if direction < 0:
            self._extend_pullback(candle, holding.side)
        elif direction == 0:
            self._run_count = 0
        elif self._pullback_end is not None:
            self._green_count += 1
            if self._green_count == GREENS_THAT_END_A_PULLBACK:
                return self._begin_run(self._pullback_end)
        elif self._in_run:
            self._run_count = self._run_count + 1 if self._is_strong(candle) else 0
        return None

    def should_exit(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> bool:
        """Whether `max_run_candles` strong candles in a row have followed the one that moved the stop."""
        return self._run_count >= int(self.parameters["max_run_candles"])

    def position_closed(self) -> None:
        """Forgets pullback and run."""
        self._pullback_end: Decimal | None = None
        self._green_count = 0
        self._in_run = False
        self._run_count = 0

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

    def candidates(self, candles: CandleColumns, averages: AverageColumns) -> Flags | None:
        """The signal's conditions on whole columns; percentages in floats, with a margin."""
        body, spread = candles.close - candles.open, averages.spread
        change = np.diff(spread, prepend=0)
        parting = (spread > 0) & (change > 0) & (body > 0)
        if self.parameters["allow_short"]:
            parting |= (spread < 0) & (change < 0) & (body < 0)
        parting[: averages.slow] = False  # one candle more than the slow average needs: the spread before counts too
        (some,) = np.nonzero(parting)
        body_pct = np.abs(body[some]) / (candles.high[some] - candles.low[some]) * 100
        gap_pct = np.abs(spread[some]) / (averages.fast * averages.slow) / candles.close[some] * 100
        least_body_pct = max(self.parameters["strong_candle_body_pct"], self.parameters["doji_threshold_pct"])
        parting[some] = (body_pct >= float(least_body_pct) * (1 - SAFETY)) & (
            gap_pct <= float(self.parameters["tightness_threshold_pct"]) * (1 + SAFETY)
        )
        return parting

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

    # --- trail and run ------------------------------------------------------------------------------------------------

    def _extend_pullback(self, candle: Candle, side: Side) -> None:
        before = self._pullback_end
        if side is Side.LONG:
            self._pullback_end = candle.low if before is None else min(before, candle.low)
        else:
            self._pullback_end = candle.high if before is None else max(before, candle.high)
        self._green_count = self._run_count = 0
        self._in_run = False

    def _begin_run(self, stop_price: Decimal) -> Decimal:
        self._pullback_end = None
        self._green_count = self._run_count = 0
        self._in_run = True
        return stop_price


_COLOUR = {1: "green", 0: "doji", -1: "red"}


def _spread(fast: Decimal | None, slow: Decimal | None) -> Decimal | None:
    return fast - slow if fast is not None and slow is not None else None


def _dollars(value: Decimal | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"


def _body_pct(candle: Candle) -> Decimal:
    length = candle.high - candle.low
    return abs(candle.close - candle.open) / length * 100 if length else Decimal(0)
