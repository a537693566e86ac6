"""Positions, cash and trades as the fold of fills: nothing here is stored, everything follows from the executions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from orders.events import Filled
from orders.lifecycle import Order, Role, Side
from orders.values import quick

ZERO = Decimal(0)


class ImpossibleFill(Exception):
    """An execution closes shares that are not held: ledger and broker disagree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One round trip, flat to flat. Prices are volume-weighted, `pnl` dollars after commission, `pnl_pct` percent."""

    correlation_id: str
    symbol: str
    side: Side
    qty: Decimal
    entry_price: Decimal
    exit_price: Decimal
    entry_at: datetime
    exit_at: datetime
    pnl: Decimal
    pnl_pct: Decimal
    commission: Decimal
    strategy: str
    exit_reason: str
    initial_stop_price: Decimal | None
    planned_risk: Decimal | None
    estimated: bool = False

    @property
    def duration_seconds(self) -> int:
        """Seconds from the first entry fill to the last exit fill."""
        return int((self.exit_at - self.entry_at).total_seconds())


_trade = quick(Trade)


@dataclass(slots=True, kw_only=True)
class Position:
    """The open round trip of one symbol: what was bought and sold so far, in exact sums."""

    symbol: str
    side: Side
    correlation_id: str
    strategy: str
    entry_order_id: str
    entry_at: datetime
    entry_qty: Decimal = ZERO
    entry_value: Decimal = ZERO
    exit_qty: Decimal = ZERO
    exit_value: Decimal = ZERO
    commission: Decimal = ZERO
    initial_stop_price: Decimal | None = None
    estimated: bool = False

    def book(self, *, is_entry: bool, qty: Decimal, price: Decimal, commission: Decimal) -> Decimal:
        """Takes in one execution; the dollars that it brings, negative where it costs."""
        value = qty * price
        if is_entry:
            self.entry_qty += qty
            self.entry_value += value
        else:
            self.exit_qty += qty
            self.exit_value += value
        self.commission += commission
        buys = (self.side is Side.LONG) is is_entry
        return (-value if buys else value) - commission

    @property
    def qty(self) -> Decimal:
        """Open shares, never negative."""
        return self.entry_qty - self.exit_qty

    @property
    def avg_entry_price(self) -> Decimal:
        """Volume-weighted entry price."""
        return self.entry_value / self.entry_qty

    def market_value(self, price: Decimal) -> Decimal:
        """Worth of the open shares at `price`: negative for a short."""
        return self.qty * price if self.side is Side.LONG else -self.qty * price

    def unrealized_pnl(self, price: Decimal) -> Decimal:
        """Profit of the open shares at `price`, before commission."""
        gain = self.qty * price - self.qty * self.entry_value / self.entry_qty
        return gain if self.side is Side.LONG else -gain


class Portfolio:
    """Cash and open positions of one account. `positions` holds only symbols with open shares."""

    def __init__(self, *, cash: Decimal) -> None:
        self.cash = cash
        self.positions: dict[str, Position] = {}

    def equity(self, last_prices: Mapping[str, Decimal]) -> Decimal:
        """Cash plus open positions at their last price, or at their entry price before the first one."""
        equity = self.cash
        for symbol, position in self.positions.items():
            price = last_prices.get(symbol)
            equity += position.market_value(position.avg_entry_price if price is None else price)
        return equity

    def apply(self, order: Order, fill: Filled) -> Trade | None:
        """Books one execution of `order` (in its state after it); the trade, when the position is flat again.

        Raises:
            ImpossibleFill: the execution closes more than is held.
        """
        position = self.positions.get(order.symbol)
        is_entry = order.role is Role.ENTRY
        if is_entry:
            if position is None:
                position = self.positions[order.symbol] = Position(
                    symbol=order.symbol,
                    side=order.side,
                    correlation_id=order.correlation_id,
                    strategy=order.strategy,
                    entry_order_id=order.local_id,
                    entry_at=fill.filled_at,
                    initial_stop_price=order.planned_stop_price,
                )
            if position.side is not order.side:
                raise ImpossibleFill(f"{order.symbol}: an entry {order.side} fills while {position.side}")
        elif position is None or position.side is not order.side or fill.qty > position.qty:
            held = position.qty if position else ZERO
            raise ImpossibleFill(f"{order.symbol}: {fill.qty} shares closed, {held} held")
        self.cash += position.book(is_entry=is_entry, qty=fill.qty, price=fill.price, commission=fill.commission)
        position.estimated = position.estimated or fill.estimated
        if position.qty:
            return None
        del self.positions[order.symbol]
        return trade_of(position, exit_at=fill.filled_at, exit_reason=exit_reason_of(order, filled_at=fill.filled_at))


def exit_reason_of(order: Order, *, filled_at: datetime) -> str:
    """Why a position was left: a stop is a `trailing_stop` if the price that filled was a moved one."""
    if order.role is Role.STOP_LOSS:
        return "trailing_stop" if order.moved_at is not None and filled_at >= order.moved_at else "stop_loss"
    return order.exit_reason


def fold(fills: Iterable[tuple[Order, Filled]], *, cash: Decimal) -> tuple[Portfolio, list[Trade]]:
    """Cash, positions and trades that a sequence of executions leads to."""
    portfolio = Portfolio(cash=cash)
    trades = [trade for order, fill in fills if (trade := portfolio.apply(order, fill))]
    return portfolio, trades


def trade_of(position: Position, *, exit_at: datetime, exit_reason: str) -> Trade:
    """The round trip that a position was, now that all of its shares are closed."""
    gain = position.exit_value - position.entry_value
    pnl = (gain if position.side is Side.LONG else -gain) - position.commission
    stop = position.initial_stop_price
    return _trade(
        correlation_id=position.correlation_id,
        symbol=position.symbol,
        side=position.side,
        qty=position.entry_qty,
        entry_price=position.avg_entry_price,
        exit_price=position.exit_value / position.exit_qty,
        entry_at=position.entry_at,
        exit_at=exit_at,
        pnl=pnl,
        pnl_pct=pnl / position.entry_value * 100,
        commission=position.commission,
        strategy=position.strategy,
        exit_reason=exit_reason,
        initial_stop_price=stop,
        planned_risk=abs(position.entry_value - stop * position.entry_qty) if stop is not None else None,
        estimated=position.estimated,
    )
