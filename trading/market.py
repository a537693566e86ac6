"""The market's own words: minute bars, quotes, sessions and the tick grid."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

MINUTE = timedelta(minutes=1)
ONE_DOLLAR = Decimal(1)
CENT = Decimal("0.01")
SUB_DOLLAR_TICK = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One minute of trading, `[timestamp, timestamp + 60 s)` in UTC; prices in dollars, volume in shares."""

    symbol: str
    timestamp: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int

    @property
    def delivered_at(self) -> datetime:
        """The earliest moment anybody can know this bar."""
        return self.timestamp + MINUTE

    @property
    def fault(self) -> str | None:
        """Why the bar cannot be true, None for a sound one."""
        if self.low <= 0:
            return "a price is not above 0"
        if not (self.low <= self.open <= self.high and self.low <= self.close <= self.high):
            return "open or close lies outside low and high"
        if self.volume < 0:
            return "the volume is negative"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best bid and ask and the last trade price, in dollars, at `timestamp` UTC."""

    symbol: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    volume: int
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One trading day: its New York date and its opening and closing time in UTC."""

    date: date
    open: datetime
    close: datetime

    def contains(self, moment: datetime) -> bool:
        """Whether a bar stamped `moment` belongs to the session."""
        return self.open <= moment < self.close


def tick(price: Decimal) -> Decimal:
    """Smallest price step for an order at `price`: 0.01 at or above $1, else 0.0001 (Rule 612 of Regulation NMS)."""
    return CENT if price >= ONE_DOLLAR else SUB_DOLLAR_TICK


def round_up(price: Decimal) -> Decimal:
    """The next price on the tick grid at or above `price`."""
    return price.quantize(tick(price), rounding=ROUND_CEILING)


def round_down(price: Decimal) -> Decimal:
    """The next price on the tick grid at or below `price`."""
    return price.quantize(tick(price), rounding=ROUND_FLOOR)


def to_four_decimals(price: Decimal) -> Decimal:
    """An input price on the grid bars are kept on: at most 4 decimals, rounded half-even."""
    return price if _decimals(price) <= 4 else price.quantize(SUB_DOLLAR_TICK, rounding=ROUND_HALF_EVEN)


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0
