"""The benchmark's bars and entries in backtesting.py: prints the seconds of each run and the trades as JSON.

Run by benchmarks/backtest.py with an environment of its own. What is computed once per candle - signal, entry price,
stop - is handed over ready-made, which favours it; orders, fills, trail, run count and the end of day are its own work.
"""

import json
import sys
from time import perf_counter, process_time
from typing import ClassVar

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy


class Velez(Strategy):
    """One position at a time; the stop is trailed to the pullback's low, a run of strong candles is sold."""

    prepared: ClassVar[dict[str, np.ndarray]] = {}

    def init(self) -> None:
        self.columns = {name: column.tolist() for name, column in self.prepared.items()}
        self.valid_until = -1
        self.forget()

    def forget(self) -> None:
        self.pullback_low, self.greens, self.in_run, self.run = None, 0, False, 0

    def next(self) -> None:
        columns, bar = self.columns, len(self.data) - 1
        if columns["is_flatten"][bar]:
            for order in self.orders:
                if not order.is_contingent:
                    order.cancel()
            self.position.close()
            self.forget()
            return
        if not columns["ends_candle"][bar]:
            return
        if self.trades:
            self.manage(columns, bar)
            return
        self.forget()
        if bar >= self.valid_until:
            for order in self.orders:
                order.cancel()
        if columns["is_signal"][bar] and not self.orders:
            entry, stop = columns["entry"][bar], columns["stop"][bar]
            size = int(min(self.equity * 0.01 / (entry - stop), self.equity * 0.05 / entry))
            if size:
                self.buy(size=size, stop=entry, sl=stop)
                self.valid_until = bar + columns["minutes"][bar]

    def manage(self, columns: dict[str, list], bar: int) -> None:
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
                trade = self.trades[0]
                if self.pullback_low >= self.data.Close[-1]:
                    trade.close()
                elif trade.sl is None or self.pullback_low > trade.sl:
                    trade.sl = self.pullback_low
                self.pullback_low, self.greens, self.in_run, self.run = None, 0, True, 0
        elif self.in_run:
            self.run = self.run + 1 if columns["is_strong"][bar] else 0
            if self.run == 3:
                self.trades[0].close()


def main() -> None:
    started = perf_counter()
    bars = dict(np.load(sys.argv[1]))
    runs = int(sys.argv[2])
    index = pd.to_datetime(bars.pop("timestamp"), unit="s")
    prices = {name: bars.pop(name.lower()) for name in ("Open", "High", "Low", "Close", "Volume")}
    frame = pd.DataFrame(prices, index=index)
    Velez.prepared = bars
    seconds, cpu = [], []
    for _ in range(runs):
        begun, spent = perf_counter(), process_time()
        result = Backtest(frame, Velez, cash=25_000, commission=0, spread=0).run()
        seconds.append(perf_counter() - begun)
        cpu.append(process_time() - spent)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "trades": int(result["# Trades"]),
                "whole": perf_counter() - started,
            }
        )
    )


if __name__ == "__main__":
    main()
