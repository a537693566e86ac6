"""Opening range: enters at the first close beyond what the session's first minutes spanned, along the trend."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from orders.lifecycle import Side
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.market import Session
from trading.strategy import Condition, Holding, Strategy


class OpeningRange(Strategy):
    """Once a day and side: a stop order at the end of the candle that closes beyond the range first.

    Candles that begin in the first `range_minutes` make the range. Distances are in percent of its width: the stop lies
    `stop_range_pct` inside the end that was broken, the target `target_range_pct` beyond the entry's price.
    """

    name: ClassVar[str] = "opening_range"
    exit_reason: ClassVar[str] = "target"
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "enabled": True,
        "allow_short": False,
        "sma_fast": 20,
        "sma_slow": 100,
        "candle_interval_minutes": 5,
        "buy_stop_expiry_candles": 1,
        "range_minutes": 30,
        "stop_range_pct": Decimal("50"),
        "target_range_pct": Decimal("200"),
    }

    def __init__(self, symbol: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(symbol, parameters)
        self._session: Session | None = None
        self._ends: dict[Side, Decimal] = {}  # the range's high for longs, its low for shorts
        self._width = Decimal(0)  # 0 while the range is not complete
        self._broken: set[Side] = set()
        self._breakout: Side | None = None

    def observe(self, candle: Candle, session: Session) -> None:
        """Measures the range, and notes whether this candle is the first to close beyond it."""
        if session != self._session:
            self._session, self._ends, self._width, self._broken = session, {}, Decimal(0), set()
        self._breakout = None
        if candle.timestamp < session.open + timedelta(minutes=self.parameters["range_minutes"]):
            self._ends = {
                Side.LONG: max(candle.high, self._ends.get(Side.LONG, candle.high)),
                Side.SHORT: min(candle.low, self._ends.get(Side.SHORT, candle.low)),
            }
            return
        self._width = self._ends[Side.LONG] - self._ends[Side.SHORT] if self._ends else Decimal(0)
        for side, end in self._ends.items():
            if side not in self._broken and _towards(side, candle.close - end) > 0:
                self._broken.add(side)
                self._breakout = side

    def should_long(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """Whether this candle is the first to close above the range while the fast average is above the slow one."""
        return self._breakout is Side.LONG and indicators.spread_is_positive

    def should_short(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """The mirror image of `should_long`."""
        return self._breakout is Side.SHORT and indicators.spread_is_negative

    def entry_price(self, candle: Candle, side: Side) -> Decimal:
        """The candle's high for a long, its low for a short."""
        return candle.high if side is Side.LONG else candle.low

    def stop_loss_price(self, candle: Candle, side: Side) -> Decimal:
        """`stop_range_pct` of the range's width inside the end that was broken."""
        return self._ends[side] - _towards(side, self._width * self.parameters["stop_range_pct"] / 100)

    def should_update_stop(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> Decimal | None:
        """The entry's price, once a candle closes half of the way to the target."""
        return holding.avg_entry_price if self._way_done(candle, holding) >= Decimal("0.5") else None

    def should_exit(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> bool:
        """Whether the candle closes at the target or beyond it."""
        return self._way_done(candle, holding) >= 1

    def conditions(self, candle: Candle, indicators: IndicatorSet) -> list[Condition]:
        """The range and the trend."""
        low, high = self._ends.get(Side.SHORT), self._ends.get(Side.LONG)
        wants_short = self._breakout is Side.SHORT
        return [
            Condition(
                name="first close beyond the range",
                met=self._breakout is not None,
                value=f"{candle.close}",
                needed=f"outside {low} to {high}" if self._ends else "a range",
            ),
            Condition(
                name="trend",
                met=indicators.spread_is_negative if wants_short else indicators.spread_is_positive,
                value=f"averages {indicators.sma_fast}, {indicators.sma_slow}",
                needed=f"the fast one {'below' if wants_short else 'above'} the slow one",
            ),
        ]

    def _way_done(self, candle: Candle, holding: Holding) -> Decimal:
        """How much of the way from the entry to the target the close has come; 0 while the day has no range yet."""
        way = self._width * self.parameters["target_range_pct"] / 100
        return _towards(holding.side, candle.close - holding.avg_entry_price) / way if way else Decimal(0)


def _towards(side: Side, move: Decimal) -> Decimal:
    """A move of the price as the side sees it: positive is good."""
    return move if side is Side.LONG else -move
