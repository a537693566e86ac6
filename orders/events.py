"""What can happen to an order: facts, in the past tense, each with the market time at which we learned of it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that happened to one order.

    `event_type` is its name in the `order_event` table. `forced` marks evidence that overrules the table of
    transitions: a state found by reconciliation, or an execution of an order that had already ended here.
    """

    event_type: ClassVar[str]
    local_id: str
    at: datetime
    forced: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created(Fact):
    """The order was written down here; nobody else knows of it."""

    event_type: ClassVar[str] = "created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Fact):
    """The request is about to leave."""

    event_type: ClassVar[str] = "submitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Fact):
    """The broker has the order under `broker_id`."""

    event_type: ClassVar[str] = "accepted"
    broker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled(Fact):
    """One execution: `qty` shares at `price` dollars, at `filled_at` market time; `commission` in dollars.

    `estimated`: nobody could tell the price; the last known one stands in.
    """

    event_type: ClassVar[str] = "fill"
    qty: Decimal
    price: Decimal
    filled_at: datetime
    execution_id: str
    broker_id: str | None = None
    commission: Decimal = Decimal(0)
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled(Fact):
    """The broker confirmed the cancellation."""

    event_type: ClassVar[str] = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Fact):
    """The order's time in force ended at the broker."""

    event_type: ClassVar[str] = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Fact):
    """The broker refused the order; `detail` has its words."""

    event_type: ClassVar[str] = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitFailed(Fact):
    """The order never reached the broker, as far as asking could tell."""

    event_type: ClassVar[str] = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRequested(Fact):
    """The n-th replacement, to `stop_price`, is about to leave; the old price stays live until it is confirmed."""

    event_type: ClassVar[str] = "replace_requested"
    number: int
    stop_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced(Fact):
    """The broker replaced the order: it now has `broker_id` and `stop_price`; `old_broker_id` is gone.

    `live_from` is the broker's time of it, where it tells one.
    """

    event_type: ClassVar[str] = "replaced"
    broker_id: str
    old_broker_id: str
    stop_price: Decimal
    live_from: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRefused(Fact):
    """The broker kept the old order; `detail` has its words."""

    event_type: ClassVar[str] = "replace_refused"
