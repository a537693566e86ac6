"""The money side of the account: cash and positions as the sum of fills, equity and buying power."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from trading.simulator.orders import BrokerOrder, Fill

ZERO = Decimal(0)


@dataclass(slots=True, kw_only=True)
class Position:
    """Shares held, negative for a short, and what they cost (or brought in) together, always positive."""

    qty: Decimal = ZERO
    cost: Decimal = ZERO

    @property
    def avg_entry_price(self) -> Decimal:
        """Dollars a share."""
        return self.cost / abs(self.qty)


class Account:
    """Cash and positions. `multiplier` is how many dollars of positions a dollar of equity may carry."""

    def __init__(self, *, cash: Decimal, multiplier: int) -> None:
        self.cash = cash
        self.multiplier = multiplier
        self.last_equity = cash
        self.positions: dict[str, Position] = {}

    def apply(self, fill: Fill) -> None:
        """Books one execution. A sale beyond what is held would turn the position round at the execution's price."""
        self.cash += (-fill.qty if fill.buys else fill.qty) * fill.price - fill.commission
        position = self.positions.setdefault(fill.symbol, Position())
        change = fill.qty if fill.buys else -fill.qty
        if position.qty * change >= 0:
            position.cost += fill.qty * fill.price
        elif fill.qty < abs(position.qty):
            position.cost -= position.cost * fill.qty / abs(position.qty)
        else:
            position.cost = (fill.qty - abs(position.qty)) * fill.price
        position.qty += change
        if not position.qty:
            del self.positions[fill.symbol]

    def qty(self, symbol: str) -> Decimal:
        """Shares held, negative for a short."""
        position = self.positions.get(symbol)
        return position.qty if position else ZERO

    def market_value(self, prices: Mapping[str, Decimal], *, long: bool) -> Decimal:
        """Worth of all long, or all short, positions; negative for shorts."""
        return sum(
            (
                held.qty * prices.get(symbol, held.avg_entry_price)
                for symbol, held in self.positions.items()
                if (held.qty > 0) == long
            ),
            ZERO,
        )

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Cash plus longs minus shorts at the last prices."""
        return self.cash + self.market_value(prices, long=True) + self.market_value(prices, long=False)

    def buying_power(self, prices: Mapping[str, Decimal], orders: Iterable[BrokerOrder]) -> Decimal:
        """What may still be opened: without margin the cash, else equity times the multiplier less what is open.

        Both less what working orders reserve. The proceeds of a short sale are cash (Alpaca's account documentation).
        """
        if self.multiplier == 1:
            free = self.cash
        else:
            exposure = self.market_value(prices, long=True) - self.market_value(prices, long=False)
            free = self.multiplier * self.equity(prices) - exposure
        free -= reserved(orders, prices)
        return max(free, ZERO)


def reserved(orders: Iterable[BrokerOrder], prices: Mapping[str, Decimal]) -> Decimal:
    """Dollars that working orders which open positions hold back; of an order and its replacement the larger one."""
    opening = {order.id: order for order in orders if order.is_open and order.opens}
    worth = {order.id: order.leaves * value_price(order, prices) for order in opening.values()}
    for order in opening.values():
        if order.replaces in worth:
            worth[order.id] = max(worth[order.id], worth.pop(order.replaces))
    return sum(worth.values(), ZERO)


def value_price(order: BrokerOrder, prices: Mapping[str, Decimal]) -> Decimal:
    """The price an order is valued at: its limit, else its stop, else the last price."""
    return order.price if order.price is not None else prices.get(order.symbol, ZERO)
