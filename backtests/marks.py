"""Equity at every completed candle of a run, worked out for all of them at once when the run is over."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading.columns import LARGEST_SUM, Integers, ranges

PRICE_DECIMALS = 4
SAFETY = 1e-9  # far more than a quotient of floats can be wrong by
ZERO = Decimal(0)

Units = NDArray[Any]  # integers of 64 bits where these are enough, else Python's own
Change = tuple[int, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """One symbol's closes in 1/10 000 dollar, and the keys of the moments at which they become known, in order."""

    keys: Integers
    prices: Integers


class Marks:
    """Cash and positions as they change, to tell the equity at moments that are known in advance.

    Moments are keys: integers in the order of time. A change counts from the marks of its own key on.
    """

    def __init__(self, initial_capital: Decimal) -> None:
        self._cash: list[Change] = [(-1, initial_capital)]
        self._held: dict[str, list[Change]] = defaultdict(list)
        self._extra: list[Change] = []

    def change(self, key: int, *, cash: Decimal, symbol: str, qty: Decimal) -> None:
        """The cash after an execution, and the shares of its symbol that are held now, negative for a short."""
        self._cash.append((key, cash))
        self._held[symbol].append((key, qty))

    def add(self, key: int, equity: Decimal) -> None:
        """One more mark, after those of its key."""
        self._extra.append((key, equity))

    def largest_drawdown(self, keys: Integers, closes: Mapping[str, Closes]) -> Decimal:
        """The largest fall from a peak as a fraction of it; the first peak is the initial capital.

        `keys` are those of all marks, in order; `closes` has every symbol that was ever held.
        """
        share_decimals = _decimals(qty for held in self._held.values() for _, qty in held)
        decimals = max(_decimals(amount for _, amount in (*self._cash, *self._extra)), PRICE_DECIMALS + share_decimals)
        share_decimals = decimals - PRICE_DECIMALS
        cash_keys, cash = _columns(self._cash, decimals)
        extra_keys, extra = _columns(self._extra, decimals)
        positions = {symbol: _columns(held, share_decimals) for symbol, held in self._held.items()}
        largest = max(map(abs, (*cash, *extra))) + sum(
            max(map(abs, qty)) * int(closes[symbol].prices.max()) for symbol, (_, qty) in positions.items()
        )
        kind = np.int64 if largest < LARGEST_SUM else np.object_

        equity = np.repeat(cash.astype(kind), np.diff(np.searchsorted(keys, cash_keys), append=len(keys)))
        for symbol, (changed, qty) in positions.items():
            starts = np.searchsorted(keys, changed)
            ends = np.append(starts[1:], len(keys))
            is_held = qty != 0
            marks = ranges(starts[is_held], ends[is_held])
            shares = np.repeat(qty[is_held].astype(kind), (ends - starts)[is_held])
            known = np.searchsorted(closes[symbol].keys, keys[marks], side="right")
            equity[marks] += shares * closes[symbol].prices[known - 1]
        equity = np.insert(equity, np.searchsorted(keys, extra_keys, side="right"), extra.astype(kind))
        peaks = np.maximum.accumulate(np.append(cash[:1].astype(kind), equity))[1:]
        return _largest_quotient(peaks - equity, peaks)


def _columns(changes: list[Change], decimals: int) -> tuple[Integers, Units]:
    """Keys, and values in units of so many decimals, as Python's integers."""
    keys = np.array([key for key, _ in changes], dtype=np.int64)
    return keys, np.array([int(value.scaleb(decimals)) for _, value in changes], dtype=np.object_)


def _decimals(values: Iterable[Decimal]) -> int:
    """How many decimals the values need at most."""
    exponents = (value.as_tuple().exponent for value in values)
    return max((-exponent for exponent in exponents if isinstance(exponent, int)), default=0)


def _largest_quotient(dividends: Units, divisors: Units) -> Decimal:
    """Exact: floats only choose which quotients are worked out."""
    rough = dividends.astype(float) / divisors.astype(float)
    (near,) = np.nonzero(rough >= rough.max(initial=0) * (1 - SAFETY))
    pairs = {(int(dividends[place]), int(divisors[place])) for place in near if rough[place] > 0}
    return max((Decimal(dividend) / Decimal(divisor) for dividend, divisor in pairs), default=ZERO)
