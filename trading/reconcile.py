"""Ledger against broker: what is held there and not here, held here and not there, and working there for nobody."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from orders.lifecycle import Side, local_id_of
from orders.portfolio import Position
from trading.broker import BrokerPosition, OrderStatus

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Shares on one side of the comparison only; `price` in dollars is the broker's average, or the best guess."""

    symbol: str
    side: Side
    qty: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """`unknown`: held at the broker, not here; `gone`: here, not there; `strays`: open orders that are not ours."""

    unknown: tuple[Found, ...]
    gone: tuple[Found, ...]
    strays: tuple[OrderStatus, ...]

    @property
    def is_clean(self) -> bool:
        """Whether both sides agree."""
        return not (self.unknown or self.gone or self.strays)


def compare(
    *,
    positions: Mapping[str, Position],
    last_prices: Mapping[str, Decimal],
    our_order_ids: Collection[str],
    broker_positions: Iterable[BrokerPosition],
    broker_orders: Iterable[OrderStatus],
) -> Findings:
    """Compares after every order's own report was worked in, so that a difference in shares is nobody's order."""
    unknown: list[Found] = []
    gone: list[Found] = []
    there = {position.symbol: position for position in broker_positions if position.qty}
    for symbol in sorted(set(there) | set(positions)):
        theirs, ours = there.get(symbol), positions.get(symbol)
        held_there = theirs.qty if theirs else ZERO
        held_here = _signed(ours)
        if ours is not None and (held_there * held_here <= 0 or abs(held_there) < abs(held_here)):
            still_there = abs(held_there) if held_there * held_here > 0 else ZERO
            price = last_prices.get(symbol, ours.avg_entry_price)
            gone.append(Found(symbol=symbol, side=ours.side, qty=ours.qty - still_there, price=price))
        if theirs is not None and (held_there * held_here <= 0 or abs(held_there) > abs(held_here)):
            known = abs(held_here) if held_there * held_here > 0 else ZERO
            side = Side.LONG if held_there > 0 else Side.SHORT
            unknown.append(Found(symbol=symbol, side=side, qty=abs(held_there) - known, price=theirs.avg_entry_price))
    strays = tuple(each for each in broker_orders if local_id_of(each.client_order_id) not in our_order_ids)
    return Findings(unknown=tuple(unknown), gone=tuple(gone), strays=strays)


def _signed(position: Position | None) -> Decimal:
    if position is None:
        return ZERO
    return position.qty if position.side is Side.LONG else -position.qty
