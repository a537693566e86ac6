"""The strategy in NautilusTrader, on prepared bars: prints the seconds of each run and its trades as JSON.

Differs from ours: a stop order at or beyond the last price fills at once and not in the next bar, so that it has some
more trades. Its exchange walks each bar open, high, low, close, or the low first where the open is nearer to it; every
fill slips by one tick. Bars are its own objects before the clock starts.
"""

import json
import sys
from decimal import Decimal
from time import perf_counter, process_time

import numpy as np
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.backtest.models import FillModel
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("XNAS")
BAR_TYPE = BarType.from_str("AAPL.XNAS-1-MINUTE-LAST-EXTERNAL")
CASH = 25_000


class Velez(Strategy):
    """One position at a time; the stop is trailed to the pullback's low, a run of strong candles is sold."""

    def __init__(self, columns, instrument):
        super().__init__()
        self.columns, self.instrument = columns, instrument
        self.bar, self.valid_until = -1, -1
        self.entry_order = self.protection = None
        self.quantity, self.stop_price, self.is_leaving = 0, 0.0, False
        self.forget()

    def on_start(self):
        self.subscribe_bars(BAR_TYPE)

    def forget(self):
        self.pullback_low, self.greens, self.in_run, self.run = None, 0, False, 0

    def on_bar(self, bar):
        self.bar += 1
        columns, i = self.columns, self.bar
        if columns["ends_candle"][i]:
            if self.quantity:
                self.manage(columns, i, float(bar.close))
            else:
                self.look_for_signal(columns, i)
        if columns["is_flatten"][i]:
            if self.entry_order is not None:
                self.cancel_order(self.entry_order)
            self.leave()

    def look_for_signal(self, columns, i):
        if self.entry_order is not None and i >= self.valid_until:
            self.cancel_order(self.entry_order)
            self.entry_order = None
        if not columns["is_signal"][i] or self.entry_order is not None:
            return
        entry, stop = columns["entry"][i], columns["stop"][i]
        equity = self.cache.account_for_venue(VENUE).balance_total(USD).as_double()
        size = min(int(min(equity * 0.01, 500) / (entry - stop)), int(equity * 0.05 / entry))
        if size:
            self.stop_price, self.valid_until = stop, i + columns["minutes"]
            self.entry_order = self.order_factory.stop_market(
                self.instrument.id, OrderSide.BUY, Quantity(size, 0), Price(entry, 2)
            )
            self.submit_order(self.entry_order)

    def on_order_filled(self, event):
        if event.order_side == OrderSide.BUY:
            self.entry_order, self.quantity, self.is_leaving = None, int(event.last_qty), False
            self.forget()
            self.protection = self.order_factory.stop_market(
                self.instrument.id, OrderSide.SELL, event.last_qty, Price(self.stop_price, 2), reduce_only=True
            )
            self.submit_order(self.protection)
        else:
            self.quantity, self.protection = 0, None

    def on_order_canceled(self, event):
        if self.entry_order is not None and event.client_order_id == self.entry_order.client_order_id:
            self.entry_order = None

    def leave(self):
        if self.quantity and not self.is_leaving:
            self.is_leaving = True
            if self.protection is not None and self.protection.is_open:
                self.cancel_order(self.protection)
            self.submit_order(
                self.order_factory.market(
                    self.instrument.id, OrderSide.SELL, Quantity(self.quantity, 0), reduce_only=True
                )
            )

    def manage(self, columns, i, close):
        color = columns["color"][i]
        if color < 0:
            low = columns["candle_low"][i]
            self.pullback_low = low if self.pullback_low is None else min(low, self.pullback_low)
            self.greens, self.in_run, self.run = 0, False, 0
        elif color == 0:
            self.run = 0
        elif self.pullback_low is not None:
            self.greens += 1
            if self.greens == 2:
                self.trail(close)
        elif self.in_run:
            self.run = self.run + 1 if columns["is_strong"][i] else 0
            if self.run == 3:
                self.leave()

    def trail(self, close):
        lowest = self.pullback_low
        self.pullback_low, self.greens, self.in_run, self.run = None, 0, True, 0
        if lowest > self.stop_price:
            self.stop_price = lowest
            if lowest >= close:
                self.leave()
            else:
                self.modify_order(self.protection, trigger_price=Price(lowest, 2))


def main():
    arrays = dict(np.load(sys.argv[1]))
    names = ("open", "high", "low", "close", "volume")
    ends = pd.to_datetime(arrays["timestamp"] + 60, unit="s", utc=True)
    frame = pd.DataFrame({name: arrays.pop(name) for name in names}, index=ends)
    columns = {name: column.tolist() for name, column in arrays.items()}
    instrument = Equity(
        InstrumentId(Symbol("AAPL"), VENUE), Symbol("AAPL"), USD, 2, Price(0.01, 2), Quantity(1, 0), 0, 0
    )
    bars = BarDataWrangler(BAR_TYPE, instrument).process(frame)
    seconds, cpu = [], []
    for _ in range(int(sys.argv[2])):
        begun, spent = perf_counter(), process_time()
        engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
        engine.add_venue(
            VENUE,
            OmsType.NETTING,
            AccountType.CASH,
            [Money(CASH, USD)],
            base_currency=USD,
            fill_model=FillModel(prob_slippage=1.0),
            bar_adaptive_high_low_ordering=True,
            reject_stop_orders=False,  # else an entry at the last price would be refused
        )
        engine.add_instrument(instrument)
        engine.add_data(bars)
        engine.add_strategy(Velez(columns, instrument))
        engine.run()
        seconds.append(perf_counter() - begun)
        cpu.append(process_time() - spent)
        closed = engine.cache.position_snapshots() + engine.cache.positions_closed()
        equity = engine.cache.account_for_venue(VENUE).balance_total(USD).as_decimal()
        engine.dispose()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "trades": len(closed),
                "final_equity": float(equity.quantize(Decimal("0.01"))),
            }
        )
    )


if __name__ == "__main__":
    main()
