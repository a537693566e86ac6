"""Simple moving averages of candle closes, kept as exact sums."""

from dataclasses import dataclass, field
from decimal import Decimal

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndicatorSet:
    """Averages at a candle's close, in dollars; None until enough candles. `prev_*` belong to the candle before.

    A sum over 7 closes divided by 7 has no exact decimal, so the spread `sma_fast - sma_slow` is also kept exactly, as
    `scaled_spread / scale`; every comparison is made on that. A set built by hand takes it from its averages.
    """

    sma_fast: Decimal | None
    sma_slow: Decimal | None
    prev_sma_fast: Decimal | None
    prev_sma_slow: Decimal | None
    bar_count: int
    scaled_spread: Decimal | int | None = field(default=None, repr=False, compare=False)
    prev_scaled_spread: Decimal | int | None = field(default=None, repr=False, compare=False)
    scale: int = field(default=1, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scale == 1:
            object.__setattr__(self, "scaled_spread", _difference(self.sma_fast, self.sma_slow))
            object.__setattr__(self, "prev_scaled_spread", _difference(self.prev_sma_fast, self.prev_sma_slow))

    @property
    def all_known(self) -> bool:
        """Whether all four averages are known."""
        return self.scaled_spread is not None and self.prev_scaled_spread is not None

    @property
    def spread_is_positive(self) -> bool:
        """Whether the fast average is above the slow one; False while unknown."""
        return self.scaled_spread is not None and self.scaled_spread > 0

    @property
    def spread_is_negative(self) -> bool:
        """Whether the fast average is below the slow one; False while unknown."""
        return self.scaled_spread is not None and self.scaled_spread < 0

    @property
    def spread_rises(self) -> bool:
        """Whether the spread is greater than at the candle before; False while unknown."""
        spread, before = self.scaled_spread, self.prev_scaled_spread
        return spread is not None and before is not None and spread > before

    @property
    def spread_falls(self) -> bool:
        """Whether the spread is less than at the candle before; False while unknown."""
        spread, before = self.scaled_spread, self.prev_scaled_spread
        return spread is not None and before is not None and spread < before

    def spread_is_within(self, percent: Decimal, *, of: Decimal) -> bool:
        """Whether the averages are less than `percent` percent of a price apart; False while unknown."""
        spread = self.scaled_spread
        return spread is not None and -(limit := percent * of * self.scale) < spread * 100 < limit


class IndicatorCalculator:
    """Running averages over the last `fast` and `slow` closes of one symbol, across sessions.

    Sums are exact: they stay far below the 28 digits of decimal arithmetic.
    """

    def __init__(self, *, fast: int = 20, slow: int = 200) -> None:
        if not 1 <= fast < slow:
            raise ValueError(f"the fast average ({fast}) must be shorter than the slow one ({slow})")
        self._fast = fast
        self._slow = slow
        self.reset()

    def reset(self) -> None:
        """Forgets every close."""
        self._closes = [ZERO] * self._slow
        self._count = 0
        self._fast_sum = self._slow_sum = ZERO
        self._last = IndicatorSet(sma_fast=None, sma_slow=None, prev_sma_fast=None, prev_sma_slow=None, bar_count=0)

    def add(self, close: Decimal) -> IndicatorSet:
        """The averages after one more candle close, in dollars."""
        fast, slow, closes, count = self._fast, self._slow, self._closes, self._count
        # Unused slots of the ring hold 0, so what leaves a sum before it is full changes nothing.
        self._fast_sum += close - (closes[(count - fast) % slow] if count >= fast else ZERO)
        self._slow_sum += close - closes[count % slow]
        closes[count % slow] = close
        self._count = count = count + 1
        last = self._last
        self._last = IndicatorSet(
            sma_fast=self._fast_sum / fast if count >= fast else None,
            sma_slow=self._slow_sum / slow if count >= slow else None,
            prev_sma_fast=last.sma_fast,
            prev_sma_slow=last.sma_slow,
            bar_count=min(count, slow),
            scaled_spread=self._fast_sum * slow - self._slow_sum * fast if count >= slow else None,
            prev_scaled_spread=last.scaled_spread,
            scale=fast * slow,
        )
        return self._last


def _difference(fast: Decimal | None, slow: Decimal | None) -> Decimal | None:
    return fast - slow if fast is not None and slow is not None else None
