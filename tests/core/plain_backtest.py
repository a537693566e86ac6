"""The trading rules told a second time, as one plain loop over minutes: what the backtester is compared with.

Written from the text of the rules alone and sharing no code with the product but its values. Long and short, several
symbols, one strategy; no partial fills.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from trading.market import Bar, Session

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
SLIPPAGE = Decimal("0.01")


@dataclass
class Stop:
    """A working stop order: an entry, or the protection of a position. `versions` are (seen by bars from, price)."""

    direction: int  # of the position: 1 long, -1 short
    is_entry: bool
    qty: int
    versions: list[tuple[datetime, Decimal]]
    expires: datetime | None = None
    protection: Decimal = Decimal(0)

    def is_moved(self, bar: Bar) -> bool:
        return len([price for since, price in self.versions if since <= bar.timestamp]) > 1

    def price_for(self, bar: Bar) -> Decimal | None:
        seen = [price for since, price in self.versions if since <= bar.timestamp]
        return seen[-1] if seen else None


@dataclass
class Holding:
    direction: int
    qty: int
    price: Decimal
    at: datetime
    stop: Stop
    in_pullback: bool = False
    pullback_extreme: Decimal = Decimal(0)
    greens: int = 0
    in_run: bool = False
    run: int = 0


@dataclass
class Symbol:
    name: str
    windows: dict[int, list[Bar]] = field(default_factory=dict)
    next_window: int = 0
    closes: list[Decimal] = field(default_factory=list)
    entry: Stop | None = None
    held: Holding | None = None
    last: Decimal | None = None
    entries_today: int = 0


@dataclass(frozen=True)
class PlainTrade:
    symbol: str
    direction: int
    qty: int
    entry_price: Decimal
    exit_price: Decimal
    entry_at: datetime
    exit_at: datetime
    reason: str

    @property
    def pnl(self) -> Decimal:
        return (self.exit_price - self.entry_price) * self.qty * self.direction


class PlainBacktest:
    """Runs `bars` per symbol over `sessions`; the answers are in `trades`, `equity()`, `drawdown` and `daily`."""

    def __init__(self, *, capital: Decimal, velez: Mapping[str, Any], risk: Mapping[str, Any], grace: int = 90) -> None:
        self.cash = capital
        self.peak = capital
        self.drawdown = Decimal(0)
        self.daily: list[Decimal] = []
        self.trades: list[PlainTrade] = []
        self.velez = velez
        self.risk = risk
        self.grace = timedelta(seconds=grace)
        self.interval: int = velez["candle_interval_minutes"]

    def run(self, bars: Mapping[str, Sequence[Bar]], sessions: Sequence[Session]) -> None:
        self.symbols = {name: Symbol(name) for name in bars}
        days: list[tuple[Session, dict[datetime, list[Bar]]]] = []
        for session in sessions:
            delivered: dict[datetime, list[Bar]] = {}
            for those in bars.values():
                for bar in those:
                    if session.open <= bar.timestamp < session.close:
                        delivered.setdefault(bar.timestamp + MINUTE, []).append(bar)
            if delivered:
                days.append((session, delivered))
        for number, (session, delivered) in enumerate(days):
            self.start(session)
            for moment, arriving in sorted(delivered.items()):
                self.timers(before=moment)
                self.now = moment
                for bar in arriving:
                    self.minute(self.symbols[bar.symbol], bar)
            if number + 1 < len(days):
                self.timers(before=session.close + SECOND)
                for symbol in self.symbols.values():
                    symbol.entry = None
                self.timers(before=days[number + 1][0].open)
            else:
                self.timers(before=self.now + SECOND)
                for symbol in self.symbols.values():
                    symbol.entry = None
                    self.sell_at_market(symbol, "end_of_data")
                self.mark()
            self.daily.append(self.equity())

    def start(self, session: Session) -> None:
        self.session = session
        self.now = session.open
        self.start_equity = self.equity()
        self.tripped = False
        self.losses = 0
        self.flattened = False
        for symbol in self.symbols.values():
            symbol.windows, symbol.next_window, symbol.entries_today = {}, 0, 0

    # --- time ---------------------------------------------------------------------------------------------------------

    def timers(self, *, before: datetime) -> None:
        while True:
            waiting: list[tuple[datetime, int, int]] = []
            for index, symbol in enumerate(self.symbols.values()):
                if symbol.entry is not None and symbol.entry.expires is not None:
                    waiting.append((symbol.entry.expires, 0, index))
                end = self.window_start(symbol.next_window + 1)
                if self.window_start(symbol.next_window) < self.session.close:
                    waiting.append((min(end, self.session.close) + self.grace, 1, index))
            if self.risk["flatten_minutes_before_close"] and not self.flattened:
                waiting.append((self.flatten_time(), 2, 0))
            if not waiting or min(waiting)[0] >= before:
                return
            due, kind, index = min(waiting)
            self.now = due
            symbol = list(self.symbols.values())[index]
            if kind == 0:
                symbol.entry = None
            elif kind == 1:
                self.close_windows(symbol, by_grace=True)
            else:
                self.flattened = True
                for each in self.symbols.values():
                    each.entry = None
                    self.sell_at_market(each, "end_of_day")
                self.mark()

    def flatten_time(self) -> datetime:
        minutes: int = self.risk["flatten_minutes_before_close"]
        return self.session.close - minutes * MINUTE

    def window_start(self, number: int) -> datetime:
        return self.session.open + number * self.interval * MINUTE

    def minute(self, symbol: Symbol, bar: Bar) -> None:
        self.match(symbol, bar)
        symbol.last = bar.close
        if symbol.entry is not None and symbol.entry.expires is not None and symbol.entry.expires <= self.now:
            symbol.entry = None
        number = (bar.timestamp - self.session.open) // (self.interval * MINUTE)
        symbol.windows.setdefault(number, []).append(bar)
        self.close_windows(symbol, by_grace=False)

    def close_windows(self, symbol: Symbol, *, by_grace: bool) -> None:
        while True:
            start, end = self.window_start(symbol.next_window), self.window_start(symbol.next_window + 1)
            end = min(end, self.session.close)
            if start >= self.session.close:
                return
            inside = symbol.windows.get(symbol.next_window, [])
            is_full = len(inside) == (end - start) // MINUTE
            if not is_full and not (by_grace and self.now >= end + self.grace):
                return
            symbol.next_window += 1
            if inside:
                self.candle(symbol, inside, end)
                self.mark()

    # --- the exchange -------------------------------------------------------------------------------------------------

    def match(self, symbol: Symbol, bar: Bar) -> None:
        high_first = bar.high - bar.open <= bar.open - bar.low
        here = bar.open
        for target in (bar.high, bar.low, bar.close) if high_first else (bar.low, bar.high, bar.close):
            while True:
                order = symbol.held.stop if symbol.held else symbol.entry
                price = order.price_for(bar) if order else None
                if order is None or price is None:
                    break
                upward = (order.direction == 1) == order.is_entry
                if (here >= price) if upward else (here <= price):
                    pass  # it is there already, at the open or after an earlier fill
                elif (here < price <= target) if upward else (here > price >= target):
                    here = price
                else:
                    break
                paid = here + SLIPPAGE if upward else here - SLIPPAGE
                if order.is_entry:
                    self.cash -= order.direction * order.qty * paid
                    stop = Stop(order.direction, False, order.qty, [(bar.timestamp, order.protection)])
                    symbol.held = Holding(order.direction, order.qty, paid, bar.timestamp, stop)
                    symbol.entry = None
                else:
                    self.sold(symbol, paid, bar.timestamp, "trailing_stop" if order.is_moved(bar) else "stop_loss")
            here = target

    def sell_at_market(self, symbol: Symbol, reason: str) -> None:
        if symbol.held and symbol.last is not None:
            self.sold(symbol, symbol.last - SLIPPAGE * symbol.held.direction, self.now, reason)

    def sold(self, symbol: Symbol, price: Decimal, at: datetime, reason: str) -> None:
        held = symbol.held
        assert held is not None
        trade = PlainTrade(symbol.name, held.direction, held.qty, held.price, price, held.at, at, reason)
        self.cash += held.direction * held.qty * price
        self.trades.append(trade)
        symbol.held = None
        if trade.pnl != 0:
            self.losses = self.losses + 1 if trade.pnl < 0 else 0
        if self.losses >= self.risk["consecutive_loss_pause"]:
            self.tripped = True

    def equity(self) -> Decimal:
        total = self.cash
        for symbol in self.symbols.values():
            if symbol.held:
                last = symbol.held.price if symbol.last is None else symbol.last
                total += symbol.held.direction * symbol.held.qty * last
        return total

    def mark(self) -> None:
        equity = self.equity()
        self.peak = max(self.peak, equity)
        self.drawdown = max(self.drawdown, (self.peak - equity) / self.peak)

    # --- deciding -----------------------------------------------------------------------------------------------------

    def candle(self, symbol: Symbol, bars: Sequence[Bar], end: datetime) -> None:
        opened, close = bars[0].open, bars[-1].close
        high, low = max(bar.high for bar in bars), min(bar.low for bar in bars)
        symbol.closes.append(close)
        body = abs(close - opened) / (high - low) * 100 if high > low else Decimal(0)
        color = 0 if body < self.velez["doji_threshold_pct"] else 1 if close > opened else -1 if close < opened else 0
        is_strong = body >= self.velez["strong_candle_body_pct"]
        held = symbol.held
        if held and end > held.at:  # not a late candle, over before the entry filled
            self.manage(symbol, held, color, is_strong, high, low)
            if symbol.held is not held:
                return  # it closed the position
        self.look(symbol, color, is_strong, high, low, close, end)

    def manage(self, symbol: Symbol, held: Holding, color: int, is_strong: bool, high: Decimal, low: Decimal) -> None:
        with_us = color * held.direction
        if with_us == 0:
            held.run = 0
        elif with_us < 0:
            extreme = low if held.direction == 1 else high
            if held.in_pullback:
                extreme = (
                    min(held.pullback_extreme, extreme) if held.direction == 1 else max(held.pullback_extreme, extreme)
                )
            held.in_pullback, held.pullback_extreme, held.greens, held.in_run = True, extreme, 0, False
        elif held.in_pullback:
            held.greens += 1
            if held.greens == 2:
                held.in_pullback, held.in_run, held.run = False, True, 0
                self.trail(symbol, held)
        elif held.in_run:
            held.run = held.run + 1 if is_strong else 0
            if held.run == self.velez["max_run_candles"]:
                self.sell_at_market(symbol, "max_run")

    def trail(self, symbol: Symbol, held: Holding) -> None:
        new = on_tick(held.pullback_extreme, up=held.direction == -1)
        assert symbol.last is not None
        if (new - held.stop.versions[-1][1]) * held.direction <= 0:
            return
        if (new - symbol.last) * held.direction >= 0:
            self.sell_at_market(symbol, "trailing_stop")
        else:
            held.stop.versions.append((self.now, new))

    def look(
        self, symbol: Symbol, color: int, is_strong: bool, high: Decimal, low: Decimal, close: Decimal, end: datetime
    ) -> None:
        fast, slow = self.velez["sma_fast"], self.velez["sma_slow"]
        closes = symbol.closes[-slow - 1 :]
        if len(closes) <= slow or color == 0 or not is_strong or (color == -1 and not self.velez["allow_short"]):
            return
        # Averages times fast * slow: exact.
        spread = sum(closes[-fast:]) * slow - sum(closes[-slow:]) * fast
        before = sum(closes[-fast - 1 : -1]) * slow - sum(closes[-slow - 1 : -1]) * fast
        is_tight = abs(spread) * 100 < self.velez["tightness_threshold_pct"] * close * fast * slow
        if not (is_tight and spread * color > 0 and (spread - before) * color > 0):
            return
        near, far = (high, low) if color == 1 else (low, high)
        buffer = max(far * self.velez["stop_buffer_pct"] / 100, self.velez["stop_buffer_min"])
        entry = on_tick(near, up=color == 1)
        stop = on_tick(far - buffer * color, up=color == -1)
        qty = self.allowed(symbol, entry, stop, end)
        if qty:
            valid = self.velez["buy_stop_expiry_candles"] * self.interval * MINUTE
            symbol.entries_today += 1
            symbol.entry = Stop(color, True, qty, [(self.now, entry)], expires=self.now + valid, protection=stop)

    def allowed(self, symbol: Symbol, entry: Decimal, stop: Decimal, candle_end: datetime) -> int:
        """The size, 0 if any rule refuses."""
        others = list(self.symbols.values())
        equity = self.equity()
        if self.now >= self.flatten_time() or self.now - candle_end > self.grace + timedelta(seconds=30):
            return 0
        if equity - self.start_equity <= -self.risk["max_daily_loss_pct"] * self.start_equity:
            self.tripped = True
        if self.tripped or sum(bool(s.held) + bool(s.entry) for s in others) >= self.risk["max_open_positions"]:
            return 0
        if symbol.held or symbol.entry or symbol.entries_today >= 20 or stop <= 0:
            return 0
        reserved = sum((s.entry.qty * s.entry.versions[0][1] for s in others if s.entry), Decimal(0))
        at_risk = min(equity * self.risk["max_risk_per_trade_pct"], self.risk["max_risk_per_trade_abs"])
        sizes = (
            at_risk / abs(entry - stop),
            equity * self.risk["max_position_pct"] / entry,
            (self.cash - reserved) / entry,
        )
        return max(0, min(int(size) for size in sizes))


def on_tick(price: Decimal, *, up: bool) -> Decimal:
    grid = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    return price.quantize(grid, rounding=ROUND_CEILING if up else ROUND_FLOOR)
