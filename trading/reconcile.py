"""Ledger against broker: what is held there and not here, held here and not there, and working there for nobody."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

from orders.lifecycle import Side, local_id_of
from orders.portfolio import Position
from orders.reports import BrokerOrderStatus
from trading.broker import BrokerPosition, OrderStatus
from trading.market import round_down, round_up

ZERO = Decimal(0)
SAME_COST = Decimal(
    "0.02"
)  # cash in lieu of a fraction and rounded averages change a split position's cost this little
PRICE_STEP = Decimal("0.0001")
STOP_TYPES = frozenset({"stop", "stop_limit", "trailing_stop"})
ENDED = frozenset(
    {
        BrokerOrderStatus.FILLED,
        BrokerOrderStatus.CANCELED,
        BrokerOrderStatus.EXPIRED,
        BrokerOrderStatus.REJECTED,
        BrokerOrderStatus.REPLACED,
    }
)
OUR_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(-r\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Shares on one side of the comparison only; `price` in dollars is the broker's average, or the best guess.

    `held` is what is held here, negative for a short.
    """

    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    held: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The same money in another number of shares: `qty` at `price` on average, of what was `held_qty` at `cost`.

    `stop_price` is the planned stop in the new shares.
    """

    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    held_qty: Decimal
    cost: Decimal
    stop_price: Decimal | None

    @property
    def held(self) -> Decimal:
        """What is held here, negative for a short."""
        return self.held_qty if self.side is Side.LONG else -self.held_qty


Difference = TypeVar("Difference", Found, Split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """`unknown`: held at the broker, not here; `gone`: here, not there; `strays`: open orders that are not ours.

    `splits` are positions that are in neither of the first two.
    """

    unknown: tuple[Found, ...]
    gone: tuple[Found, ...]
    strays: tuple[OrderStatus, ...]
    splits: tuple[Split, ...] = ()

    @property
    def shares_agree(self) -> bool:
        """Whether both sides hold the same."""
        return not (self.unknown or self.gone or self.splits)

    def confirmed_by(self, earlier: "Findings") -> "Findings":
        """Of the differences in shares those that the look before showed as well.

        Another one may be an execution between this look's questions, as any of a first look may.
        """
        return replace(
            self,
            unknown=_same(self.unknown, earlier.unknown),
            gone=_same(self.gone, earlier.gone),
            splits=_same(self.splits, earlier.splits),
        )


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
    splits: list[Split] = []
    there = {position.symbol: position for position in broker_positions if position.qty}
    for symbol in sorted(set(there) | set(positions)):
        theirs, ours = there.get(symbol), positions.get(symbol)
        held_there = theirs.qty if theirs else ZERO
        held_here = _signed(ours)
        if theirs is not None and ours is not None and (split := _split(ours, theirs)) is not None:
            splits.append(split)
            continue
        if ours is not None and (held_there * held_here <= 0 or abs(held_there) < abs(held_here)):
            still_there = abs(held_there) if held_there * held_here > 0 else ZERO
            price = last_prices.get(symbol, ours.avg_entry_price)
            qty = ours.qty - still_there
            gone.append(Found(symbol=symbol, side=ours.side, qty=qty, price=price, held=held_here))
        if theirs is not None and (held_there * held_here <= 0 or abs(held_there) > abs(held_here)):
            same_side = held_there * held_here > 0
            known = ours if same_side else None
            side = Side.LONG if held_there > 0 else Side.SHORT
            qty = abs(held_there) - (known.qty if known else ZERO)
            price = _price_of_rest(known, theirs, qty)
            held = held_here if same_side else ZERO  # what is on the other side is gone by then
            unknown.append(Found(symbol=symbol, side=side, qty=qty, price=price, held=held))
    strays = tuple(each for each in broker_orders if local_id_of(each.client_order_id) not in our_order_ids)
    return Findings(unknown=tuple(unknown), gone=tuple(gone), strays=strays, splits=tuple(splits))


def covers(order: OrderStatus, position: Position) -> bool:
    """Whether an order at the broker is a stop for the whole position. A `held` leg of a filled parent is one."""
    closes = order.buys == (position.side is Side.SHORT)
    return (
        order.symbol == position.symbol
        and order.order_type in STOP_TYPES
        and order.status not in ENDED
        and order.stop_price is not None
        and closes
        and order.qty - order.filled_qty == position.qty
    )


def is_our_pattern(client_order_id: str) -> bool:
    """Whether an engine of this program gave the id: a version 5 UUID, with `-r<n>` after a replacement."""
    return OUR_ID.fullmatch(client_order_id) is not None


def _same(now: tuple[Difference, ...], before: tuple[Difference, ...]) -> tuple[Difference, ...]:
    known = {_shares(each) for each in before}
    return tuple(each for each in now if _shares(each) in known)


def _shares(difference: Found | Split) -> tuple[object, ...]:
    """What differs, whatever it is worth just now."""
    return difference.symbol, difference.side, difference.qty, difference.held


def _split(ours: Position, theirs: BrokerPosition) -> Split | None:
    """Another number of shares for the same money, both sides of the account agreeing on long or short."""
    qty, side = abs(theirs.qty), Side.LONG if theirs.qty > 0 else Side.SHORT
    if side is not ours.side or qty == ours.qty:
        return None
    cost_here, cost_there = ours.qty * ours.avg_entry_price, qty * theirs.avg_entry_price
    if abs(cost_there - cost_here) > SAME_COST * cost_here:
        return None
    stop = ours.initial_stop_price
    if stop is not None:
        scaled = stop * ours.qty / qty
        stop = round_down(scaled) if side is Side.LONG else round_up(scaled)
    return Split(
        symbol=ours.symbol,
        side=side,
        qty=qty,
        price=theirs.avg_entry_price,
        held_qty=ours.qty,
        cost=ours.avg_entry_price,
        stop_price=stop,
    )


def _price_of_rest(known: Position | None, theirs: BrokerPosition, qty: Decimal) -> Decimal:
    """What the unknown shares cost, so that the whole position costs what the broker says."""
    if known is None:
        return theirs.avg_entry_price
    rest = (abs(theirs.qty) * theirs.avg_entry_price - known.qty * known.avg_entry_price) / qty
    return rest.quantize(PRICE_STEP) if rest >= PRICE_STEP else theirs.avg_entry_price


def _signed(position: Position | None) -> Decimal:
    if position is None:
        return ZERO
    return position.qty if position.side is Side.LONG else -position.qty
