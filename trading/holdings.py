"""What an account holds at the broker, in words: the proof that it is flat, or what is not."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from trading.broker import BrokerPosition, OrderStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Positions and working orders as the broker shows them; without `is_known` it did not answer.

    `foreign` counts positions and orders that are somebody else's and left alone.
    """

    positions: tuple[BrokerPosition, ...] = ()
    orders: tuple[OrderStatus, ...] = ()
    foreign: int = 0
    is_known: bool = True

    @property
    def is_flat(self) -> bool:
        """Whether the broker shows neither shares nor a working order of ours."""
        return self.is_known and not self.positions and not self.orders

    @property
    def waits_for_the_open(self) -> bool:
        """Whether a market order is on its way for every position, and nothing else is left."""
        leaving = {
            (order.symbol, order.qty - order.filled_qty) for order in self.orders if order.order_type == "market"
        }
        left = {(position.symbol, abs(position.qty)) for position in self.positions}
        return self.is_known and bool(left) and leaving == left and len(self.orders) == len(left)


TRY_AGAIN = "run `manage.py flatten` again and look at the broker's own page"
UNKNOWN = Holdings(is_known=False)


def lines(title: str, holdings: Holdings) -> Iterator[str]:
    """One line of counts, and one for each position and order."""
    if not holdings.is_known:
        yield f"{title}: the broker does not answer."
        return
    foreign = f"; {holdings.foreign} of somebody else's are left alone" if holdings.foreign else ""
    counts = f"{_count(len(holdings.positions), 'position')}, {_count(len(holdings.orders), 'working order')}"
    yield f"{title}: {counts} at the broker{foreign}."
    for position in holdings.positions:
        yield f"  {_position(position)} at {position.avg_entry_price:f}"
    for order in holdings.orders:
        price = order.stop_price if order.stop_price is not None else order.limit_price
        at = f" at {price:f}" if price is not None else ""
        what = f"{'buy' if order.buys else 'sell'} {order.qty - order.filled_qty:f} {order.symbol}"
        yield f"  {what} {order.order_type}{at} ({order.broker_status})"


def proof(before: Holdings, after: Holdings) -> list[str]:
    """What was there and what is there now."""
    return [*lines("Before", before), *lines("After", after)]


def not_flat(after: Holdings) -> str:
    """Why it is not done, in one line, and what to do."""
    if not after.is_known:
        return f"The broker does not answer, so what it holds is not known: {TRY_AGAIN}."
    if after.waits_for_the_open:
        return (
            "The market is closed: a market order waits for the open for every position, and no stop protects them "
            f"until then. Once it has opened, {TRY_AGAIN}."
        )
    left = [_position(position) for position in after.positions]
    left += [f"a working order in {order.symbol}" for order in after.orders]
    return f"Not flat, {', '.join(left)} left: {TRY_AGAIN}."


def _position(position: BrokerPosition) -> str:
    side = "long" if position.qty > Decimal(0) else "short"
    return f"{abs(position.qty):f} {position.symbol} {side}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
