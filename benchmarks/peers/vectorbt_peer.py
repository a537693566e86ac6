"""The strategy in vectorbt, on prepared bars: prints the seconds of each run and its trades as JSON.

vectorbt simulates orders, not stops: what a stop does inside a bar is written by hand in the order function below, by
the same rules as ours, and compiled by numba. The first run compiles it; the other ones are warm. Prices are floats.
"""

import json
import sys
from time import perf_counter, process_time

import numpy as np
import pandas as pd
import vectorbt as vbt
from numba import njit
from vectorbt.portfolio.enums import NoOrder
from vectorbt.portfolio.nb import order_nb

SLIPPAGE_PER_SHARE = 0.01
CASH = 25_000.0
# Places in the array that is carried from bar to bar.
ROW, IS_CLOSED, IS_FRESH, ENTRY, ENTRY_STOP, SIZE, VALID_UNTIL, STOP, PULLBACK_LOW, GREENS, IN_RUN, RUN = range(12)


@njit
def forget(state):
    state[PULLBACK_LOW], state[GREENS], state[IN_RUN], state[RUN] = np.nan, 0, 0, 0


@njit
def wants_out(state, low, color, is_strong, close):
    """Takes note of a completed candle in a position: whether to leave at its close. May raise the stop."""
    if color < 0:
        lowest = state[PULLBACK_LOW]
        state[PULLBACK_LOW] = low if np.isnan(lowest) else min(low, lowest)
        state[GREENS], state[IN_RUN], state[RUN] = 0, 0, 0
    elif color == 0:
        state[RUN] = 0
    elif not np.isnan(state[PULLBACK_LOW]):
        state[GREENS] += 1
        if state[GREENS] == 2:
            lowest = state[PULLBACK_LOW]
            state[PULLBACK_LOW], state[GREENS], state[IN_RUN], state[RUN] = np.nan, 0, 1, 0
            if lowest > state[STOP]:
                state[STOP] = lowest
                return lowest >= close
    elif state[IN_RUN]:
        state[RUN] = state[RUN] + 1 if is_strong else 0
        return state[RUN] == 3
    return False


@njit
def order_func_nb(c, bars, candles, minutes, state):
    """Called again for the same bar until it orders nothing: first what the bar fills, then what its close decides."""
    opens, highs, lows = bars
    ends_candle, is_signal, entry, stop, color, is_strong, candle_low, is_flatten = candles
    i, column = c.i, c.from_col
    if state[ROW] != i:
        state[ROW], state[IS_CLOSED], state[IS_FRESH] = i, 0, 0
        if c.last_position[column] > 0:
            if lows[i] <= state[STOP]:
                return column, order_nb(-c.last_position[column], min(opens[i], state[STOP]) - SLIPPAGE_PER_SHARE)
        elif state[SIZE] > 0 and highs[i] >= state[ENTRY]:
            state[IS_FRESH] = 1
            state[STOP] = state[ENTRY_STOP]
            size, state[SIZE] = state[SIZE], 0
            forget(state)
            return column, order_nb(size, max(opens[i], state[ENTRY]) + SLIPPAGE_PER_SHARE)
    if state[IS_FRESH]:
        state[IS_FRESH] = 0
        is_low_ahead = opens[i] >= state[ENTRY] or highs[i] - opens[i] <= opens[i] - lows[i]
        if (lows[i] if is_low_ahead else c.close[i, column]) <= state[STOP]:
            return column, order_nb(-c.last_position[column], state[STOP] - SLIPPAGE_PER_SHARE)
    if state[IS_CLOSED]:
        return -1, NoOrder
    state[IS_CLOSED] = 1
    close = c.close[i, column]
    is_leaving = is_flatten[i]
    if c.last_position[column] > 0:
        if ends_candle[i]:
            is_leaving |= wants_out(state, candle_low[i], color[i], is_strong[i], close)
        if is_leaving:
            return column, order_nb(-c.last_position[column], close - SLIPPAGE_PER_SHARE)
    else:
        if i >= state[VALID_UNTIL] or is_flatten[i]:
            state[SIZE] = 0
        if is_signal[i] and state[SIZE] == 0:
            equity = c.last_cash[column]
            state[SIZE] = min(min(equity * 0.01, 500) // (entry[i] - stop[i]), equity * 0.05 // entry[i])
            state[ENTRY], state[ENTRY_STOP], state[VALID_UNTIL] = entry[i], stop[i], i + minutes
    return -1, NoOrder


def main():
    columns = dict(np.load(sys.argv[1]))
    close = pd.Series(columns["close"], index=pd.to_datetime(columns["timestamp"], unit="s"))
    bars = tuple(columns[name] for name in ("open", "high", "low"))
    names = ("ends_candle", "is_signal", "entry", "stop", "color", "is_strong", "candle_low", "is_flatten")
    candles = tuple(columns[name] for name in names)
    seconds, cpu = [], []
    for _ in range(int(sys.argv[2])):
        state = np.zeros(12)
        state[ROW] = -1
        begun, spent = perf_counter(), process_time()
        portfolio = vbt.Portfolio.from_order_func(
            close,
            order_func_nb,
            bars,
            candles,
            int(columns["minutes"]),
            state,
            flexible=True,
            init_cash=CASH,
            max_orders=len(close),
            freq="1min",
        )
        trades, final_equity = portfolio.trades.count(), portfolio.final_value()
        seconds.append(perf_counter() - begun)
        cpu.append(process_time() - spent)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "trades": int(trades),
                "final_equity": round(float(final_equity), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
