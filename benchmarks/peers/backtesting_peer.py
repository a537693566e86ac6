"""The strategy in backtesting.py, on prepared bars: prints the seconds of each run and its trades as JSON.

Differs from ours: a bar that opens beyond a stop and comes back is filled by its own rules, prices are floats, and an
order is cancelled when the strategy is asked again, not at a moment between two bars.
"""

import json
import sys
from time import perf_counter, process_time
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy

SLIPPAGE_PER_SHARE = 0.01


class Velez(Strategy):
    """One position at a time; the stop is trailed to the pullback's low, a run of strong candles is sold."""

    prepared: ClassVar[dict[str, Any]] = {}

    def init(self):
        self.columns = self.prepared
        self.valid_until = -1
        self.forget()

    def forget(self):
        self.pullback_low, self.greens, self.in_run, self.run = None, 0, False, 0

    def next(self):
        columns, bar = self.columns, len(self.data) - 1
        if columns["ends_candle"][bar]:
            if self.trades:
                self.manage(columns, bar)
            else:
                self.forget()
                self.enter(columns, bar)
        if columns["is_flatten"][bar]:
            self.cancel()
            self.position.close()

    def enter(self, columns, bar):
        if bar >= self.valid_until:
            self.cancel()
        if columns["is_signal"][bar] and not self.orders:
            entry, stop = columns["entry"][bar], columns["stop"][bar]
            equity = self.equity
            size = int(min(equity * 0.01, 500) / (entry - stop)), int(equity * 0.05 / entry)
            if min(size):
                self.buy(size=min(size), stop=entry, sl=stop)
                self.valid_until = bar + columns["minutes"]

    def cancel(self):
        for order in self.orders:
            if not order.is_contingent:
                order.cancel()

    def manage(self, columns, bar):
        color = columns["color"][bar]
        if color < 0:
            low = columns["candle_low"][bar]
            self.pullback_low = low if self.pullback_low is None else min(low, self.pullback_low)
            self.greens, self.in_run, self.run = 0, False, 0
        elif color == 0:
            self.run = 0
        elif self.pullback_low is not None:
            self.greens += 1
            if self.greens == 2:
                self.trail()
        elif self.in_run:
            self.run = self.run + 1 if columns["is_strong"][bar] else 0
            if self.run == 3:
                self.position.close()

    def trail(self):
        trade = self.trades[0]
        if self.pullback_low > trade.sl:
            if self.pullback_low >= self.data.Close[-1]:
                trade.close()
            else:
                trade.sl = self.pullback_low
        self.pullback_low, self.greens, self.in_run, self.run = None, 0, True, 0


def main():
    columns = dict(np.load(sys.argv[1]))
    names = ("open", "high", "low", "close", "volume")
    prices = {name.capitalize(): columns.pop(name) for name in names}
    frame = pd.DataFrame(prices, index=pd.to_datetime(columns.pop("timestamp"), unit="s"))
    # Lists: an element of a list is taken many times faster than one of an array.
    Velez.prepared = {name: column.tolist() for name, column in columns.items()}
    seconds, cpu = [], []
    for _ in range(int(sys.argv[2])):
        begun, spent = perf_counter(), process_time()
        result = Backtest(
            frame,
            Velez,
            cash=25_000,
            commission=lambda size, price: abs(size) * SLIPPAGE_PER_SHARE,
            trade_on_close=True,
        ).run()
        seconds.append(perf_counter() - begun)
        cpu.append(process_time() - spent)
    final_equity = round(float(result["Equity Final [$]"]), 2)
    print(
        json.dumps(
            {"seconds": seconds, "cpu_seconds": cpu, "trades": int(result["# Trades"]), "final_equity": final_equity}
        )
    )


if __name__ == "__main__":
    main()
