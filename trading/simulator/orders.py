"""An order as the broker keeps it, and as it goes over the wire and into the account's file."""

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, get_type_hints
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

from orders.lifecycle import OrderType, TimeInForce

NEW_YORK = ZoneInfo("America/New_York")
AVERAGE_STEP = Decimal("0.000000001")

Json = dict[str, Any]


class Status(StrEnum):
    """Alpaca's order statuses, as far as this market uses them."""

    PENDING_NEW = "pending_new"
    ACCEPTED = "accepted"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    HELD = "held"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    REJECTED = "rejected"


TERMINAL = frozenset({Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REPLACED, Status.REJECTED})


class OrderClass(StrEnum):
    """How an order belongs to others."""

    SIMPLE = ""
    BRACKET = "bracket"
    OCO = "oco"
    OTO = "oto"


@dataclass(slots=True, kw_only=True)
class BrokerOrder:
    """One order from its acceptance to its end; it changes in place.

    `number` counts the account's orders. `parent_id` is set on the legs of a group. `notional` is the dollar amount of
    an order that was given without a quantity. `is_dormant`: a leg that waits for its parent, or a stop that the broker
    only watches. `is_elected`: part of it was executed after its stop price was reached. `keeps_qty`: a replacement
    that is for whatever the old order has left.
    """

    id: str
    number: int
    client_order_id: str
    symbol: str
    buys: bool
    order_type: OrderType
    time_in_force: TimeInForce
    qty: Decimal
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    status: Status
    order_class: OrderClass = OrderClass.SIMPLE
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    extended_hours: bool = False
    opens: bool = True
    parent_id: str | None = None
    is_dormant: bool = False
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)
    is_elected: bool = False
    filled_at: datetime | None = None
    expired_at: datetime | None = None
    canceled_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    failed_at: datetime | None = None
    replaced_at: datetime | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    keeps_qty: bool = False

    @property
    def is_open(self) -> bool:
        """Whether anything can still come of it."""
        return self.status not in TERMINAL

    @property
    def leaves(self) -> Decimal:
        """Shares not executed yet."""
        return self.qty - self.filled_qty

    @property
    def side(self) -> str:
        """The broker's word for the direction."""
        return "buy" if self.buys else "sell"

    @property
    def price(self) -> Decimal | None:
        """The price it is worth for checks and reservations, None for a market order."""
        return self.limit_price if self.limit_price is not None else self.stop_price


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution, as the account's ledger of activities keeps it."""

    id: str
    number: int
    order_id: str
    symbol: str
    buys: bool
    qty: Decimal
    price: Decimal
    at: datetime
    booked_at: datetime
    commission: Decimal
    cum_qty: Decimal
    leaves: Decimal
    position_qty: Decimal
    order_status: Status


def asset_id(symbol: str) -> str:
    """The id of the symbol's asset, always the same."""
    return str(uuid5(NAMESPACE_URL, f"asset/{symbol}"))


# --- on the wire ------------------------------------------------------------------------------------------------------


def order_json(order: BrokerOrder, legs: list[Json] | None = None) -> Json:
    """Alpaca's order object; numbers are strings, what is not set is null."""
    is_notional = order.notional is not None
    average = order.filled_value / order.filled_qty if order.filled_qty else None
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": utc_text(order.created_at),
        "updated_at": utc_text(order.updated_at),
        "submitted_at": utc_text(order.created_at),
        "filled_at": maybe_text(order.filled_at),
        "expired_at": maybe_text(order.expired_at),
        "expires_at": utc_text(order.expires_at),
        "canceled_at": maybe_text(order.canceled_at),
        "cancel_requested_at": maybe_text(order.cancel_requested_at),
        "failed_at": maybe_text(order.failed_at),
        "replaced_at": maybe_text(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset_id(order.symbol),
        "symbol": order.symbol,
        "asset_class": "us_equity",
        "notional": number_text(order.notional),
        "qty": None if is_notional else number_text(order.qty),
        "filled_qty": number_text(order.filled_qty),
        "filled_avg_price": None if average is None else number_text(average.quantize(AVERAGE_STEP)),
        "order_class": order.order_class.value,
        "order_type": order.order_type.value,
        "type": order.order_type.value,
        "side": order.side,
        "time_in_force": order.time_in_force.value,
        "limit_price": number_text(order.limit_price),
        "stop_price": number_text(order.stop_price),
        "status": order.status.value,
        "extended_hours": order.extended_hours,
        "legs": legs,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "position_intent": f"{order.side}_to_{'open' if order.opens else 'close'}",
        "ratio_qty": None,
        "subtag": None,
        "source": None,
    }


def fill_json(fill: Fill) -> Json:
    """A FILL entry of the account's activities."""
    return {
        "id": f"{fill.at.astimezone(NEW_YORK):%Y%m%d%H%M%S}{fill.at.microsecond // 1000:03d}::{fill.id}",
        "activity_type": "FILL",
        "type": "fill" if fill.leaves <= 0 else "partial_fill",
        "order_id": fill.order_id,
        "symbol": fill.symbol,
        "side": "buy" if fill.buys else "sell",
        "qty": number_text(fill.qty),
        "price": number_text(fill.price),
        "cum_qty": number_text(fill.cum_qty),
        "leaves_qty": number_text(fill.leaves),
        "order_status": fill.order_status.value,
        "transaction_time": utc_text(fill.at),
    }


def number_text(value: Decimal | None) -> str | None:
    """An exact decimal without exponent and trailing zeros."""
    if value is None:
        return None
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def utc_text(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def maybe_text(moment: datetime | None) -> str | None:
    """The same, or null."""
    return None if moment is None else utc_text(moment)


# --- in the account's file --------------------------------------------------------------------------------------------


def to_record(value: BrokerOrder | Fill) -> Json:
    """The object as JSON of strings, numbers and nulls."""
    return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}


def order_from(record: Json) -> BrokerOrder:
    """The order of `to_record`."""
    return BrokerOrder(**_typed(BrokerOrder, record))


def fill_from(record: Json) -> Fill:
    """The execution of `to_record`."""
    return Fill(**_typed(Fill, record))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


_READERS: dict[Any, Any] = {
    Decimal: Decimal,
    datetime: datetime.fromisoformat,
    Status: Status,
    OrderClass: OrderClass,
    OrderType: OrderType,
    TimeInForce: TimeInForce,
}


def _typed(kind: type, record: Json) -> Json:
    hints = get_type_hints(kind)
    return {name: _read(hints[name], value) for name, value in record.items()}


def _read(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    wanted = next((part for part in getattr(hint, "__args__", (hint,)) if part in _READERS), None)
    return value if wanted is None else _READERS[wanted](value)
