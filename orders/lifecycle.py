"""What an order is and how it lives: the states, the one table of legal transitions, and `apply`, its interpreter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import repeat
from typing import Any

from orders.events import (
    Accepted,
    Canceled,
    Created,
    Expired,
    Fact,
    Filled,
    Rejected,
    Replaced,
    ReplaceRefused,
    ReplaceRequested,
    SubmitFailed,
    Submitted,
)


class OrderState(StrEnum):
    """Where an order is in its life; the last five are terminal."""

    PENDING_SUBMIT = "pending_submit"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    SUBMIT_FAILED = "submit_failed"


class Side(StrEnum):
    """The side of the position an order belongs to; whether it buys or sells follows from side and role."""

    LONG = "long"
    SHORT = "short"


class Role(StrEnum):
    """What an order is for."""

    ENTRY = "entry"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    EXIT = "exit"


class OrderType(StrEnum):
    """How an order is executed."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class TimeInForce(StrEnum):
    """How long an order stays in force at the broker."""

    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"


S = OrderState
TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    S.PENDING_SUBMIT: frozenset({S.SUBMITTED, S.SUBMIT_FAILED}),
    S.SUBMITTED: frozenset(
        {S.ACCEPTED, S.PARTIALLY_FILLED, S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED, S.SUBMIT_FAILED}
    ),
    S.ACCEPTED: frozenset({S.PARTIALLY_FILLED, S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED}),
    S.PARTIALLY_FILLED: frozenset({S.PARTIALLY_FILLED, S.FILLED, S.CANCELED, S.EXPIRED}),
    S.FILLED: frozenset(),
    S.CANCELED: frozenset(),
    S.EXPIRED: frozenset(),
    S.REJECTED: frozenset(),
    S.SUBMIT_FAILED: frozenset(),
}
TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
WORKING = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED})


class IllegalTransition(Exception):
    """A fact does not fit the order's state; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One intent towards the broker, from its creation here to its end there.

    Quantities are shares, prices dollars per share. `filled_value` is the exact sum of quantity times price over all
    executions, so that averages never accumulate rounding. `planned_stop_price` is the protective stop an entry was
    sized for; `expires_at` ends an entry's validity by our rules. `replacements` counts the replacements asked for,
    `filled_before` the shares filled under earlier broker ids; `moved_at` is the market time from which a stop price
    other than the first one was live.
    """

    local_id: str
    correlation_id: str
    symbol: str
    side: Side
    role: Role
    order_type: OrderType
    qty_requested: Decimal
    strategy: str
    created_at: datetime
    updated_at: datetime
    time_in_force: TimeInForce = TimeInForce.DAY
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    planned_stop_price: Decimal | None = None
    parent_id: str | None = None
    exit_reason: str = ""
    expires_at: datetime | None = None
    state: OrderState = OrderState.PENDING_SUBMIT
    broker_id: str | None = None
    qty_filled: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)
    filled_before: Decimal = Decimal(0)
    replacements: int = 0
    requested_stop_price: Decimal | None = None
    moved_at: datetime | None = None
    submit_attempts: int = 0
    last_error: str = ""
    version: int = 0

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more can come of the order."""
        return self.state in TERMINAL

    @property
    def buys(self) -> bool:
        """Whether the broker is asked to buy: entries of longs and everything that closes a short."""
        return (self.side is LONG) == (self.role is ENTRY)

    @property
    def qty_left(self) -> Decimal:
        """Shares not filled yet."""
        return self.qty_requested - self.qty_filled

    @property
    def moved(self) -> bool:
        """Whether the stop price was ever changed."""
        return self.moved_at is not None

    @property
    def avg_fill_price(self) -> Decimal | None:
        """Volume-weighted price of all executions, None before the first."""
        return self.filled_value / self.qty_filled if self.qty_filled else None

    @property
    def client_order_id(self) -> str:
        """The id the broker knows this order by now: the local id, and `-r<n>` after the n-th replacement."""
        return replacement_id(self.local_id, self.replacements)


def replacement_id(local_id: str, number: int) -> str:
    """Client order id of the n-th replacement of an order; the order's own id for 0."""
    return f"{local_id}-r{number}" if number else local_id


def local_id_of(client_order_id: str) -> str:
    """The local id in a client order id, whatever replacement it names."""
    return client_order_id.partition("-r")[0]


def apply(order: Order, fact: Fact) -> Order:
    """The order after a fact.

    Raises:
        IllegalTransition: the table has no such step and the fact is not forced, or the fact is of another order.
    """
    return replace(order, **_changes(order, fact))


def apply_in_place(order: Order, fact: Fact) -> None:
    """As `apply`, ten times as fast, on the very object: for an owner who has handed it to nobody that keeps it."""
    changes = _changes(order, fact)
    any(map(_set, repeat(order), changes, changes.values()))  # none of them gives an answer: all are set


_set = object.__setattr__


def _changes(order: Order, fact: Fact) -> dict[str, Any]:
    if fact.local_id != order.local_id:
        raise IllegalTransition(f"a fact of order {fact.local_id} was applied to {order.local_id}")
    state, changes = _EFFECTS[type(fact)](order, fact)
    if state is not None:
        if state not in TRANSITIONS[order.state] and not fact.forced:
            raise IllegalTransition(f"order {order.local_id} cannot go from {order.state} to {state}")
        changes["state"] = state
    changes["version"] = order.version + 1
    changes["updated_at"] = fact.at
    return changes


Effect = tuple[OrderState | None, dict[str, Any]]

# Members of an enumeration are looked up anew each time: ten times slower than a name.
SUBMITTED, ACCEPTED, PARTIALLY_FILLED, FILLED = S.SUBMITTED, S.ACCEPTED, S.PARTIALLY_FILLED, S.FILLED
LONG, ENTRY = Side.LONG, Role.ENTRY


def _submitted(order: Order, fact: Submitted) -> Effect:
    return SUBMITTED, {"submit_attempts": order.submit_attempts + 1}


def _accepted(order: Order, fact: Accepted) -> Effect:
    return (PARTIALLY_FILLED if order.qty_filled else ACCEPTED), {"broker_id": fact.broker_id}


def _filled(order: Order, fact: Filled) -> Effect:
    filled = order.qty_filled + fact.qty
    if fact.qty <= 0 or fact.price <= 0 or (filled > order.qty_requested and not fact.forced):
        raise IllegalTransition(
            f"order {order.local_id}: {fact.qty} shares at {fact.price} do not fit {order.qty_left} open"
        )
    # Shares filled under an id that the order no longer has are among those of its earlier ids.
    is_earlier = None not in (order.broker_id, fact.broker_id) and fact.broker_id != order.broker_id
    changes = {
        "qty_filled": filled,
        "filled_value": order.filled_value + fact.qty * fact.price,
        "broker_id": order.broker_id or fact.broker_id,
        "filled_before": order.filled_before + fact.qty if is_earlier else order.filled_before,
    }
    if filled >= order.qty_requested:
        return FILLED, changes
    # A late execution of an order that has already ended adds shares and leaves the end as it was.
    return (None if order.is_terminal and fact.forced else PARTIALLY_FILLED), changes


def _replace_requested(order: Order, fact: ReplaceRequested) -> Effect:
    if order.state not in WORKING or fact.number != order.replacements + 1:
        raise IllegalTransition(f"order {order.local_id} in {order.state} cannot start replacement {fact.number}")
    return None, {"replacements": fact.number, "requested_stop_price": fact.stop_price}


def _replaced(order: Order, fact: Replaced) -> Effect:
    if order.state not in WORKING and not fact.forced:
        raise IllegalTransition(f"order {order.local_id} in {order.state} cannot have been replaced")
    return None, {
        "broker_id": fact.broker_id,
        "stop_price": fact.stop_price,
        "requested_stop_price": None,
        "moved_at": order.moved_at or (fact.live_from or fact.at if fact.stop_price != order.stop_price else None),
        "filled_before": order.qty_filled,
    }


def _replace_refused(order: Order, fact: ReplaceRefused) -> Effect:
    return None, {"requested_stop_price": None, "last_error": fact.detail}


def _ended(state: OrderState) -> Callable[[Order, Any], Effect]:
    return lambda order, fact: (state, {"last_error": fact.detail} if fact.detail else {})


def _created(order: Order, fact: Created) -> Effect:
    raise IllegalTransition(f"order {order.local_id} exists already")


_EFFECTS: dict[type[Fact], Callable[[Order, Any], Effect]] = {
    Created: _created,
    Submitted: _submitted,
    Accepted: _accepted,
    Filled: _filled,
    ReplaceRequested: _replace_requested,
    Replaced: _replaced,
    ReplaceRefused: _replace_refused,
    Canceled: _ended(S.CANCELED),
    Expired: _ended(S.EXPIRED),
    Rejected: _ended(S.REJECTED),
    SubmitFailed: _ended(S.SUBMIT_FAILED),
}
