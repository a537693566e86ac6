"""From the broker's view of an order to facts: whatever comes twice, late, out of order or not at all, is booked once.

A report speaks of one broker id. What it says of shares is cumulative, so the difference to what is booked for that
id is what is new; what it says of the order's end counts only for the id that the order has now.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from orders.events import (
    Accepted,
    Canceled,
    Expired,
    Fact,
    Filled,
    Rejected,
    Replaced,
    ReplaceRefused,
    Submitted,
)
from orders.lifecycle import TRANSITIONS, Order, OrderState, apply

ZERO = Decimal(0)
SMALLEST_PRICE_STEP = Decimal("1e-10")  # a derived price that does not come out even is cut here


class BrokerOrderStatus(StrEnum):
    """An order's state in the broker's words, folded to what matters here."""

    PENDING = "pending"  # pending_new, pending_cancel, held, accepted_for_bidding ...: nothing is decided
    ACCEPTED = "accepted"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution as the broker names it: `qty` shares at `price` dollars."""

    execution_id: str
    qty: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the broker says of one order under one of its broker ids.

    `filled_qty` and `avg_fill_price` are cumulative for that id alone; `execution` is set when the report tells of
    one. `replaced_by` is the id that took over, `at` the broker's time, `detail` its words.
    """

    client_order_id: str
    broker_id: str
    status: BrokerOrderStatus
    at: datetime
    filled_qty: Decimal = ZERO
    avg_fill_price: Decimal | None = None
    execution: Execution | None = None
    stop_price: Decimal | None = None
    replaced_by: str | None = None
    detail: str = ""


def facts(
    order: Order, report: OrderReport, *, history: Iterable[Fact], now: datetime, reconciling: bool = False
) -> list[Fact]:
    """The facts that a report adds to `history`, all the facts of the order so far; applied in turn they are legal.

    An execution of an order that has ended here, and a working order that had been given up (`submit_failed`), are
    evidence: their facts are forced. An end that the table does not allow is forced only when `reconciling`.
    Replacements must be asked for one at a time.

    Raises:
        ValueError: the executions in `history` are not those of `order`.
    """
    known = [fact for fact in history if isinstance(fact, Filled | Replaced)]
    fills = [fact for fact in known if isinstance(fact, Filled)]
    if sum((fill.qty for fill in fills), ZERO) != order.qty_filled:
        raise ValueError(f"the history of order {order.local_id} does not add up to {order.qty_filled} shares")
    earlier_ids = {fact.old_broker_id for fact in known if isinstance(fact, Replaced)}

    reading = _Reading(order=order, report=report, now=now)
    if order.broker_id is None:
        reading.accept()
    elif report.broker_id != order.broker_id and report.broker_id not in earlier_ids and not reading.succeed():
        return reading.facts
    complete = reading.fill([fill for fill in fills if (fill.broker_id or order.broker_id) == report.broker_id])
    if complete and reading.order.broker_id in (None, report.broker_id):
        reading.end(reconciling=reconciling)
    return reading.facts


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One report being read: the facts found so far, and the order with them applied."""

    order: Order
    report: OrderReport
    now: datetime
    facts: list[Fact] = field(default_factory=list)

    def accept(self) -> None:
        """The first report of an order: the broker has it. A refusal leaves it without a broker id."""
        order, broker_id = self.order, self.report.broker_id
        if order.state is OrderState.PENDING_SUBMIT:
            self._tell(Submitted(local_id=order.local_id, at=self.now))
        if self.report.status is BrokerOrderStatus.REJECTED:
            return
        if self.order.state is OrderState.SUBMITTED:
            self._tell(Accepted(local_id=order.local_id, at=self.now, broker_id=broker_id))
        elif self.order.state is OrderState.SUBMIT_FAILED:
            found = "found at the broker after it had been given up"
            self._tell(Accepted(local_id=order.local_id, at=self.now, broker_id=broker_id, forced=True, detail=found))

    def succeed(self) -> bool:
        """A report under a new id: whether it shows that the replacement is, or was, live; acceptance does not."""
        order, report = self.order, self.report
        if report.status is BrokerOrderStatus.REJECTED:
            if order.requested_stop_price is not None and report.client_order_id == order.client_order_id:
                self._tell(ReplaceRefused(local_id=order.local_id, at=self.now, detail=report.detail))
            return False
        if report.status in (BrokerOrderStatus.PENDING, BrokerOrderStatus.ACCEPTED):
            return False
        self._replace(report.broker_id, report.stop_price or order.requested_stop_price)
        return True

    def fill(self, known: list[Filled]) -> bool:
        """Books what is new of the shares filled under this id; whether all of them are booked then."""
        report = self.report
        known_qty = sum((fill.qty for fill in known), ZERO)
        new_qty = report.filled_qty - known_qty
        if new_qty <= 0:
            return True
        execution = report.execution
        if execution and (execution.qty > new_qty or execution.execution_id in {fill.execution_id for fill in known}):
            execution = None
        gap_qty = new_qty - execution.qty if execution else new_qty
        if gap_qty and report.avg_fill_price is not None:
            known_value = sum((fill.qty * fill.price for fill in known), ZERO)
            missed_value = report.avg_fill_price * report.filled_qty - known_value
            if execution:
                missed_value -= execution.qty * execution.price
            self._book(
                Execution(
                    execution_id=f"{report.broker_id}:{(known_qty + gap_qty).normalize():f}",
                    qty=gap_qty,
                    price=_price(missed_value / gap_qty, otherwise=report.avg_fill_price),
                )
            )
        if execution:
            self._book(execution)
        return not gap_qty or report.avg_fill_price is not None

    def end(self, *, reconciling: bool) -> None:
        """What the report's status says of the order under its present id, beyond the shares."""
        order, report = self.order, self.report
        if report.status is BrokerOrderStatus.REPLACED and report.replaced_by:
            self._replace(report.replaced_by, order.requested_stop_price)
        ending = _ENDINGS.get(report.status)
        if ending is None or order.state in (ending[0], OrderState.FILLED):
            return
        state, kind = ending
        is_legal = state in TRANSITIONS[order.state]
        if is_legal or reconciling:
            self._tell(kind(local_id=order.local_id, at=self.now, detail=report.detail, forced=not is_legal))

    def _replace(self, broker_id: str, stop_price: Decimal | None) -> None:
        order = self.order
        if not order.is_terminal and order.broker_id is not None and stop_price is not None:
            self._tell(
                Replaced(
                    local_id=order.local_id,
                    at=self.now,
                    broker_id=broker_id,
                    old_broker_id=order.broker_id,
                    stop_price=stop_price,
                    live_from=self.report.at,
                )
            )

    def _book(self, execution: Execution) -> None:
        order = self.order
        too_late, too_much = order.is_terminal, execution.qty > order.qty_left
        self._tell(
            Filled(
                local_id=order.local_id,
                at=self.now,
                qty=execution.qty,
                price=execution.price,
                filled_at=self.report.at,
                execution_id=execution.execution_id,
                broker_id=self.report.broker_id,
                forced=too_late or too_much,
                detail=f"filled after it was {order.state}" if too_late else "more than was asked" if too_much else "",
            )
        )

    def _tell(self, fact: Fact) -> None:
        self.order = apply(self.order, fact)
        self.facts.append(fact)


_ENDINGS: dict[BrokerOrderStatus, tuple[OrderState, type[Canceled | Expired | Rejected]]] = {
    BrokerOrderStatus.CANCELED: (OrderState.CANCELED, Canceled),
    BrokerOrderStatus.EXPIRED: (OrderState.EXPIRED, Expired),
    BrokerOrderStatus.REJECTED: (OrderState.REJECTED, Rejected),
}


def _price(exact: Decimal, *, otherwise: Decimal) -> Decimal:
    """A price that follows from an average, with a bounded number of digits; the average itself if that is no price."""
    rounded = exact.quantize(SMALLEST_PRICE_STEP)
    if rounded <= 0:
        return otherwise
    return exact if rounded == exact else rounded
