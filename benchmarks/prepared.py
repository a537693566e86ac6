"""What the strategy knows of each minute bar when it is over, as arrays that any backtester can be handed.

Every peer gets the same entries: signal, entry price and initial stop come from here, computed once by our own columns.
Orders, fills, trail, run count and the end of the day are each peer's own work. Prices are floats in dollars: that is
what the peers calculate with.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading.columns import PRICE_UNITS, BarColumns, averages_of, candles_of, session_times
from trading.live import calendar
from trading.market import Session
from trading.strategies.velez import Velez

GRACE_SECONDS = 90
FLATTEN_SECONDS = 5 * 60
CENT = PRICE_UNITS // 100


def prepared(bars: BarColumns) -> dict[str, NDArray[Any]]:
    """The bars' own columns and, for bars that complete a candle, what the default Velez makes of it.

    `is_flatten` marks each session's bar that is over five minutes before the close. There are no signals from then on.
    """
    parameters = Velez.hyperparameters
    fast, slow = parameters["sma_fast"], parameters["sma_slow"]
    sessions = calendar.sessions(bars.bar(0).timestamp.date(), bars.bar(-1).timestamp.date())
    minutes = parameters["candle_interval_minutes"]
    candles = candles_of(bars, sessions, interval_minutes=minutes, grace_seconds=GRACE_SECONDS)
    spread = averages_of(candles.close, fast=fast, slow=slow).spread
    body, length = candles.close - candles.open, candles.high - candles.low
    color = np.where((body == 0) | (np.abs(body) * 10 < length), 0, np.sign(body))
    is_strong = (length > 0) & (np.abs(body) * 2 >= length)
    is_tight = np.abs(spread) * 100 < candles.close * (2 * fast * slow)
    is_signal = (spread > 0) & (np.diff(spread, prepend=0) > 0) & (color == 1) & is_strong & is_tight
    is_signal[:slow] = False
    stop = (candles.low * 1000 - np.maximum(candles.low, 20 * CENT * 100)) // (1000 * CENT) * CENT

    count, over = len(bars), candles.bars_known - 1
    flatten = _flatten_bars(bars, sessions)
    may_enter = np.ones(count, dtype=bool)
    for first, end in flatten:
        may_enter[first:end] = False

    def spaced(values: NDArray[Any], empty: float | bool = 0) -> NDArray[Any]:
        column = np.full(count, empty, dtype=values.dtype)
        column[over] = values
        return column

    return {
        "timestamp": bars.timestamps,
        **{name: getattr(bars, name) / PRICE_UNITS for name in ("open", "high", "low", "close")},
        "volume": bars.volume.astype(np.float64),
        "ends_candle": spaced(np.ones(len(candles), dtype=bool), empty=False),
        "is_signal": spaced(is_signal, empty=False) & may_enter,
        "entry": spaced(candles.high / PRICE_UNITS),
        "stop": spaced(stop / PRICE_UNITS),
        "color": spaced(color),
        "is_strong": spaced(is_strong, empty=False),
        "candle_low": spaced(candles.low / PRICE_UNITS),
        "is_flatten": np.isin(np.arange(count), [first for first, _ in flatten]),
        "minutes": np.array(minutes),
    }


def _flatten_bars(bars: BarColumns, sessions: list[Session]) -> list[tuple[int, int]]:
    """For each session the bar after which everything is closed, and where the next session begins."""
    _, closes = session_times(sessions)
    firsts = np.searchsorted(bars.timestamps, closes - FLATTEN_SECONDS) - 1
    return list(zip(firsts.tolist(), np.searchsorted(bars.timestamps, closes).tolist(), strict=True))
