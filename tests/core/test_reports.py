"""What the broker reports, in whatever order and however often, becomes facts that are booked once."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.events import (
    Fact,
    Filled,
    Replaced,
    ReplaceRefused,
    ReplaceRequested,
    SubmitFailed,
    Submitted,
)
from orders.lifecycle import WORKING, Order, OrderState, OrderType, Role, Side, apply, replacement_id
from orders.reports import BrokerOrderStatus, Execution, OrderReport, facts

T0 = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
NOW = T0 + timedelta(minutes=5)
REPORTED = T0 + timedelta(minutes=4)


class Desk:
    """One order here, its history, and the reports it is told of."""

    def __init__(self, *, sent: bool = True) -> None:
        self.order = Order(
            local_id="a",
            correlation_id="c",
            symbol="AAPL",
            side=Side.LONG,
            role=Role.STOP_LOSS,
            order_type=OrderType.STOP,
            qty_requested=Decimal(10),
            stop_price=Decimal(95),
            strategy="velez",
            created_at=T0,
            updated_at=T0,
        )
        self.history: list[Fact] = []
        if sent:
            self.apply(Submitted(local_id="a", at=T0))

    def apply(self, *new: Fact) -> None:
        for fact in new:
            self.order = apply(self.order, fact)
            self.history.append(fact)

    def read(self, report: OrderReport, *, reconciling: bool = False) -> list[Fact]:
        new = facts(self.order, report, history=self.history, now=NOW, reconciling=reconciling)
        self.apply(*new)
        return new

    def hears(self, *reports: str, reconciling: bool = False) -> str:
        """The facts that reports lead to, in words with commas between them."""
        return ", ".join(told(fact) for text in reports for fact in self.read(report(text), reconciling=reconciling))

    def asks_for(self, stop_price: str) -> None:
        number = self.order.replacements + 1
        self.apply(ReplaceRequested(local_id="a", at=T0, number=number, stop_price=Decimal(stop_price)))

    @property
    def stands(self) -> str:
        order = self.order
        return f"{order.state} {order.qty_filled}@{order.avg_fill_price or '-'} {order.broker_id} {order.stop_price}"


def report(text: str) -> OrderReport:
    """A report from `id status [cumulative@average] [e<name>:qty@price] [stop price] [by id]`."""
    broker_id, status, *rest = text.split()
    number = int(broker_id[1:]) - 1  # b1 is the order itself, b2 its first replacement
    made = OrderReport(
        client_order_id=replacement_id("a", number),
        broker_id=broker_id,
        status=BrokerOrderStatus(status),
        at=REPORTED,
        detail="the broker's words" if status == "rejected" else "",
    )
    words = iter(rest)
    for word in words:
        if word == "stop":
            made = replace(made, stop_price=Decimal(next(words)))
        elif word == "by":
            made = replace(made, replaced_by=next(words))
        elif word.startswith("e"):
            name, _, shares = word.partition(":")
            qty, _, price = shares.partition("@")
            made = replace(made, execution=Execution(execution_id=name, qty=Decimal(qty), price=Decimal(price)))
        else:
            qty, _, price = word.partition("@")
            made = replace(made, filled_qty=Decimal(qty), avg_fill_price=Decimal(price) if price else None)
    return made


def told(fact: Fact) -> str:
    forced = " forced" if fact.forced else ""
    if isinstance(fact, Filled):
        return f"fill {fact.execution_id} {fact.qty}@{fact.price.normalize():f}{forced}"
    if isinstance(fact, Replaced):
        return f"replaced {fact.old_broker_id}>{fact.broker_id} {fact.stop_price}{forced}"
    return f"{fact.event_type}{forced}"


class TestFirstReports:
    @pytest.mark.parametrize("status", ["pending", "accepted", "new"])
    def test_the_broker_has_the_order(self, status: str) -> None:
        desk = Desk()
        assert desk.hears(f"b1 {status}") == "accepted"
        assert desk.stands == "accepted 0@- b1 95"

    def test_a_refusal_is_the_end(self) -> None:
        desk = Desk()
        assert desk.hears("b1 rejected") == "rejected"
        assert desk.order.last_error == "the broker's words"

    def test_a_refusal_can_follow_the_acceptance(self) -> None:
        assert Desk().hears("b1 accepted", "b1 rejected") == "accepted, rejected"

    def test_an_order_that_had_only_been_written_down_is_found_at_the_broker(self) -> None:
        desk = Desk(sent=False)
        assert desk.hears("b1 new") == "submitted, accepted"
        assert Desk(sent=False).hears("b1 rejected") == "submitted, rejected"

    def test_a_fill_before_the_acceptance(self) -> None:
        assert Desk().hears("b1 filled 10@94.9 e1:10@94.9") == "accepted, fill e1 10@94.9"

    def test_an_order_given_up_that_works_at_the_broker_is_taken_back(self) -> None:
        desk = Desk()
        desk.apply(SubmitFailed(local_id="a", at=T0))
        assert desk.hears("b1 partially_filled 4@94") == "accepted forced, fill b1:4 4@94"
        assert desk.hears("b1 canceled 4@94") == "canceled"

    def test_times_are_the_brokers_and_ours(self) -> None:
        _, filled = Desk().read(report("b1 partially_filled 4@94 e1:4@94"))
        assert isinstance(filled, Filled)
        assert (filled.filled_at, filled.at) == (REPORTED, NOW)


class TestWhatIsKnown:
    @pytest.mark.parametrize(
        "again",
        [
            "b1 pending",
            "b1 new",
            "b1 partially_filled 3@94 e1:3@94",
            "b1 partially_filled 4@94.25",
            "b1 partially_filled 4@94.25 e2:1@95",
            "b1 partially_filled 4@94.25 e9:1@95",  # the same execution under the name another list gives it
            "b1 canceled 4@94.25",
        ],
    )
    def test_changes_nothing(self, again: str) -> None:
        desk = Desk()
        desk.hears("b1 new", "b1 partially_filled 3@94 e1:3@94", "b1 partially_filled 4@94.25 e2:1@95")
        desk.hears("b1 canceled 4@94.25")
        before = desk.order
        assert desk.hears(again) == ""
        assert desk.order is before

    def test_cumulative_quantity_only_grows(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 4@94")
        assert desk.hears("b1 partially_filled 3@94", "b1 new 0") == ""

    def test_an_order_that_ended_does_not_come_back(self) -> None:
        desk = Desk()
        desk.hears("b1 new", "b1 canceled")
        assert desk.hears("b1 new", reconciling=True) == ""


class TestFills:
    def test_each_execution_is_a_fill(self) -> None:
        desk = Desk()
        words = ["b1 partially_filled 3@94 e1:3@94", "b1 filled 10@94.7 e2:7@95"]
        assert desk.hears("b1 new", *words) == "accepted, fill e1 3@94, fill e2 7@95"
        assert desk.stands == "filled 10@94.7 b1 95"

    def test_a_jump_is_closed_at_the_price_that_makes_the_average_come_out(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 3@94 e1:3@94")
        assert desk.hears("b1 filled 10@94.7") == "fill b1:10 7@95"
        assert desk.order.avg_fill_price == Decimal("94.7")

    def test_shares_missed_before_an_execution_come_first(self) -> None:
        desk = Desk()
        assert desk.hears("b1 filled 10@94.7 e2:7@95") == "accepted, fill b1:3 3@94, fill e2 7@95"
        assert desk.hears("b1 partially_filled 3@94 e1:3@94") == ""

    def test_a_report_without_an_average_cannot_close_a_gap_and_ends_nothing(self) -> None:
        desk = Desk()
        assert desk.hears("b1 canceled 10 e2:7@95") == "accepted, fill e2 7@95"
        assert desk.hears("b1 canceled 10@94.7") == "fill b1:10 3@94"
        assert desk.stands == "filled 10@94.7 b1 95"

    def test_fills_come_before_the_end(self) -> None:
        desk = Desk()
        assert desk.hears("b1 new", "b1 canceled 3@94") == "accepted, fill b1:3 3@94, canceled"
        assert desk.hears("b1 expired 3@94") == ""

    @pytest.mark.parametrize("end", ["canceled", "expired"])
    def test_a_fill_after_the_end_is_forced(self, end: str) -> None:
        desk = Desk()
        desk.hears("b1 new", f"b1 {end}")
        assert desk.hears("b1 partially_filled 3@94 e1:3@94") == "fill e1 3@94 forced"
        assert desk.stands == f"{end} 3@94 b1 95"
        assert desk.hears("b1 filled 10@94.7") == "fill b1:10 7@95 forced"
        assert desk.stands == "filled 10@94.7 b1 95"

    def test_an_execution_told_again_with_the_news_of_later_ones_counts_once(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 3@94 e1:3@94")
        assert desk.hears("b1 partially_filled 6@94.5 e1:3@94") == "fill b1:6 3@95"

    def test_of_an_execution_partly_known_only_the_rest_is_booked(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 4@94")
        assert desk.hears("b1 partially_filled 6@94 e1:3@94") == "fill b1:6 2@94"

    def test_more_than_was_asked_for_is_still_booked(self) -> None:
        desk = Desk()
        assert desk.hears("b1 filled 12@94") == "accepted, fill b1:12 12@94 forced"

    def test_a_price_that_does_not_come_out_even_keeps_ten_decimals(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 1@94 e1:1@94")
        assert desk.hears("b1 partially_filled 8@94.1") == "fill b1:8 7@94.1142857143"

    def test_an_average_that_was_corrected_below_what_is_booked_gives_no_impossible_price(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 9@94 e1:9@94")
        assert desk.hears("b1 filled 10@84") == "fill b1:10 1@84"

    def test_a_history_that_is_not_the_orders_is_refused(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 4@94")
        with pytest.raises(ValueError, match="does not add up to 4 shares"):
            facts(desk.order, report("b1 filled 10@94"), history=desk.history[:-1], now=NOW)


class TestEnds:
    def test_an_end_the_table_does_not_allow_waits_for_reconciliation(self) -> None:
        desk = Desk()
        desk.hears("b1 partially_filled 4@94")
        assert desk.hears("b1 rejected 4@94") == ""
        assert desk.hears("b1 rejected 4@94", reconciling=True) == "rejected forced"

    def test_of_two_ends_reconciliation_takes_the_brokers(self) -> None:
        desk = Desk()
        desk.hears("b1 new", "b1 expired")
        assert desk.hears("b1 canceled") == ""
        assert desk.hears("b1 canceled", reconciling=True) == "canceled forced"

    def test_a_filled_order_stays_filled(self) -> None:
        desk = Desk()
        desk.hears("b1 filled 10@94")
        assert desk.hears("b1 canceled 10@94", reconciling=True) == ""

    def test_filled_without_the_shares_is_not_believed(self) -> None:
        assert Desk().hears("b1 filled") == "accepted"


class TestReplacements:
    @pytest.fixture
    def desk(self) -> Desk:
        """A working stop whose first replacement is on its way."""
        desk = Desk()
        desk.hears("b1 new")
        desk.asks_for("96")
        return desk

    @pytest.mark.parametrize(
        "reports",
        [
            ("b1 replaced by b2", "b2 new stop 96"),
            ("b2 new stop 96", "b1 replaced by b2"),
            ("b2 pending", "b2 accepted", "b1 replaced by b2", "b1 replaced by b2"),
        ],
    )
    def test_either_report_shows_that_the_stop_has_moved(self, desk: Desk, reports: tuple[str, ...]) -> None:
        assert desk.hears(*reports) == "replaced b1>b2 96"
        assert desk.stands == "accepted 0@- b2 96"

    def test_the_acceptance_of_the_new_order_alone_shows_nothing(self, desk: Desk) -> None:
        assert desk.hears("b2 pending stop 96", "b2 accepted stop 96") == ""

    def test_replaced_without_saying_by_what_shows_nothing(self, desk: Desk) -> None:
        assert desk.hears("b1 replaced") == ""

    def test_a_replacement_nobody_here_asked_for_is_seen_when_the_new_order_tells_its_price(self) -> None:
        desk = Desk()
        desk.hears("b1 new")
        assert desk.hears("b1 replaced by b2") == ""
        assert desk.hears("b2 new stop 97") == "replaced b1>b2 97"

    def test_the_price_the_broker_tells_is_the_price(self, desk: Desk) -> None:
        assert desk.hears("b2 new stop 95.99") == "replaced b1>b2 95.99"

    def test_a_refused_replacement_leaves_the_old_stop(self, desk: Desk) -> None:
        assert desk.hears("b2 rejected", "b2 rejected") == "replace_refused"
        assert desk.stands == "accepted 0@- b1 95"

    def test_a_refusal_told_twice_does_not_refuse_the_next_replacement(self, desk: Desk) -> None:
        desk.hears("b2 rejected")
        desk.asks_for("96.5")
        assert desk.hears("b2 rejected") == ""
        assert desk.hears("b3 new stop 96.5") == "replaced b1>b3 96.5"

    def test_the_old_stop_may_fill_first(self, desk: Desk) -> None:
        assert desk.hears("b1 filled 10@94 e1:10@94", "b2 rejected") == "fill e1 10@94, replace_refused"
        assert desk.stands == "filled 10@94 b1 95"

    def test_fills_of_the_old_id_count_once_and_before_the_replacement(self, desk: Desk) -> None:
        assert desk.hears("b1 replaced 3@94 by b2") == "fill b1:3 3@94, replaced b1>b2 96"
        assert desk.hears("b1 partially_filled 3@94 e1:3@94", "b1 replaced 3@94 by b2") == ""
        assert desk.hears("b2 filled 7@95 e2:7@95") == "fill e2 7@95"
        assert desk.stands == "filled 10@94.7 b2 96"

    def test_a_late_fill_of_an_old_id_is_added(self, desk: Desk) -> None:
        desk.hears("b2 new stop 96")
        desk.asks_for("97")
        desk.hears("b3 new stop 97")
        assert desk.hears("b1 partially_filled 1@94 e1:1@94") == "fill e1 1@94"
        assert desk.hears("b2 partially_filled 2@94 e2:2@94") == "fill e2 2@94"
        assert desk.hears("b1 replaced 1@94 by b2", "b2 replaced 2@94 by b3") == ""
        assert desk.hears("b3 canceled 3@94") == "fill b3:3 3@94, canceled"
        assert desk.stands == "canceled 6@94 b3 97"
        assert desk.order.filled_before == 3

    def test_an_end_of_the_new_order_shows_that_it_was_live(self, desk: Desk) -> None:
        assert desk.hears("b2 canceled 3@94 stop 96") == "replaced b1>b2 96, fill b2:3 3@94, canceled"

    def test_an_old_id_does_not_come_back(self, desk: Desk) -> None:
        desk.hears("b2 new stop 96")
        assert desk.hears("b1 new stop 95", "b1 partially_filled 3@94 stop 95") == "fill b1:3 3@94"
        assert desk.stands == "partially_filled 3@94 b2 96"

    def test_an_old_id_cannot_end_the_order(self, desk: Desk) -> None:
        desk.hears("b2 new stop 96")
        assert desk.hears("b1 canceled", reconciling=True) == ""

    def test_a_replacement_that_shows_after_the_end_brings_its_fills_and_nothing_else(self, desk: Desk) -> None:
        desk.hears("b1 canceled")
        assert desk.hears("b2 partially_filled 3@94 stop 96") == "fill b2:3 3@94 forced"
        assert desk.hears("b2 partially_filled 3@94 stop 96") == ""
        assert desk.stands == "canceled 3@94 b1 95"


# --- a broker that behaves, behind a wire that does not ---------------------------------------------------------------


@dataclass
class Paper:
    """An order at the broker under one id."""

    broker_id: str
    client_order_id: str
    qty: int
    stop_price: Decimal
    status: BrokerOrderStatus = BrokerOrderStatus.PENDING
    replaced_by: str | None = None
    fills: list[Execution] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return self.status in (BrokerOrderStatus.NEW, BrokerOrderStatus.PARTIALLY_FILLED)

    def report(self, execution: Execution | None = None) -> OrderReport:
        filled = sum((one.qty for one in self.fills), Decimal(0))
        value = sum((one.qty * one.price for one in self.fills), Decimal(0))
        return OrderReport(
            client_order_id=self.client_order_id,
            broker_id=self.broker_id,
            status=self.status,
            at=REPORTED,
            filled_qty=filled,
            avg_fill_price=(value / filled).quantize(Decimal("1e-12")) if filled else None,
            execution=execution,
            stop_price=self.stop_price,
            replaced_by=self.replaced_by,
        )


class Broker:
    """Works one order as Alpaca does; every change is put on the wire as a report."""

    def __init__(self, qty: int) -> None:
        self.papers = [Paper(broker_id="b1", client_order_id="a", qty=qty, stop_price=Decimal(95))]
        self.wire = [self.papers[0].report()]

    @property
    def live(self) -> Paper:
        return next((paper for paper in reversed(self.papers) if paper.is_open), self.papers[0])

    def _becomes(self, paper: Paper, status: BrokerOrderStatus, execution: Execution | None = None) -> None:
        paper.status = status
        self.wire.append(paper.report(execution))

    def opens(self) -> None:
        if self.papers[0].status is BrokerOrderStatus.PENDING:
            self._becomes(self.papers[0], BrokerOrderStatus.NEW)

    def refuses(self) -> None:
        if self.papers[0].status is BrokerOrderStatus.PENDING:
            self._becomes(self.papers[0], BrokerOrderStatus.REJECTED)

    def fills(self, qty: int, price: int) -> None:
        paper = self.live
        left = paper.qty - int(sum(one.qty for one in paper.fills))
        if paper.is_open:
            name = f"e{sum(len(one.fills) for one in self.papers)}"
            execution = Execution(execution_id=name, qty=Decimal(min(qty, left)), price=Decimal(price))
            paper.fills.append(execution)
            done = BrokerOrderStatus.FILLED if qty >= left else BrokerOrderStatus.PARTIALLY_FILLED
            self._becomes(paper, done, execution)

    def ends(self, status: BrokerOrderStatus) -> None:
        if self.live.is_open:
            self._becomes(self.live, status)

    def replaces(self, client_order_id: str, stop_price: Decimal, *, refuses: bool) -> None:
        old = self.live
        left = old.qty - int(sum(one.qty for one in old.fills))
        new = Paper(
            broker_id=f"b{len(self.papers) + 1}", client_order_id=client_order_id, qty=left, stop_price=stop_price
        )
        self.papers.append(new)
        self.wire.append(new.report())
        if refuses or not old.is_open:
            self._becomes(new, BrokerOrderStatus.REJECTED)
            return
        old.replaced_by = new.broker_id
        self._becomes(old, BrokerOrderStatus.REPLACED)
        self._becomes(new, BrokerOrderStatus.NEW)


@dataclass(frozen=True)
class Action:
    """What happens next at the broker, here, or on the wire between them."""

    name: str
    qty: int
    price: int
    refuses: bool
    message: int


ACTIONS = st.lists(
    st.builds(
        Action,
        name=st.sampled_from(["deliver"] * 12 + ["replace"] * 6 + ["fill"] * 4 + ["cancel", "expire"]),
        qty=st.integers(min_value=1, max_value=3),
        price=st.integers(min_value=90, max_value=99),
        refuses=st.sampled_from([False, False, True]),
        message=st.integers(min_value=0, max_value=1000),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    is_refused=st.sampled_from([False, False, False, True]),
    actions=ACTIONS,
    data=st.data(),
)
def test_however_the_wire_doubles_delays_and_shuffles_the_order_ends_as_it_did_at_the_broker(
    is_refused: bool, actions: list[Action], data: st.DataObject
) -> None:
    desk, broker = Desk(), Broker(10)
    if is_refused:
        broker.refuses()
    else:
        broker.opens()
    for action in actions:
        happen(action, desk, broker)
        if action.name == "deliver":
            deliver(desk, broker.wire[action.message % len(broker.wire)])
    copies = data.draw(st.lists(st.sampled_from(broker.wire), max_size=10))
    for late in data.draw(st.permutations(broker.wire + copies)):
        deliver(desk, late)

    check_against(desk, broker)
    settled = desk.order
    for known in broker.wire:
        assert deliver(desk, known) == []
    assert desk.order is settled


@settings(max_examples=300, deadline=None)
@given(actions=ACTIONS, lost=st.sets(st.integers(min_value=0, max_value=80)))
def test_reports_that_never_came_are_made_up_for_by_asking_for_every_id(actions: list[Action], lost: set[int]) -> None:
    desk, broker = Desk(), Broker(10)
    broker.opens()
    heard = 0
    for action in actions:
        happen(action, desk, broker)
        for number in range(heard, len(broker.wire)):
            if number not in lost:
                deliver(desk, broker.wire[number])
        heard = len(broker.wire)
    for paper in broker.papers:
        for new in facts(desk.order, paper.report(), history=desk.history, now=NOW, reconciling=True):
            desk.apply(new)
    check_against(desk, broker)


def happen(action: Action, desk: Desk, broker: Broker) -> None:
    order = desk.order
    if action.name == "fill":
        broker.fills(action.qty, action.price)
    elif action.name == "cancel":
        broker.ends(BrokerOrderStatus.CANCELED)
    elif action.name == "expire":
        broker.ends(BrokerOrderStatus.EXPIRED)
    elif action.name == "replace" and order.state in WORKING and order.requested_stop_price is None:
        # One at a time, and only of an order that works as far as is known here.
        stop_price = 96 + order.replacements
        desk.asks_for(str(stop_price))
        broker.replaces(desk.order.client_order_id, Decimal(stop_price), refuses=action.refuses)


def deliver(desk: Desk, message: OrderReport) -> list[Fact]:
    before = desk.order
    new = desk.read(message)
    assert desk.order.qty_filled >= before.qty_filled
    assert sum((fact.qty for fact in desk.history if isinstance(fact, Filled)), Decimal(0)) == desk.order.qty_filled
    named = [fact.execution_id for fact in desk.history if isinstance(fact, Filled)]
    assert len(named) == len(set(named))
    if before.is_terminal:
        assert all(isinstance(fact, Filled | ReplaceRefused) for fact in new)
    return new


def check_against(desk: Desk, broker: Broker) -> None:
    """The order here is what the papers at the broker add up to."""
    all_fills = [one for paper in broker.papers for one in paper.fills]
    first, *replacements = broker.papers
    last = next((paper for paper in reversed(replacements) if paper.status is not BrokerOrderStatus.REJECTED), first)
    order = desk.order
    assert order.qty_filled == sum(one.qty for one in all_fills)
    value = sum((Fraction(one.qty) * Fraction(one.price) for one in all_fills), Fraction(0))
    assert abs(Fraction(order.filled_value) - value) < Fraction(1, 10**8)
    expected = {
        BrokerOrderStatus.NEW: OrderState.PARTIALLY_FILLED if all_fills else OrderState.ACCEPTED,
        BrokerOrderStatus.PARTIALLY_FILLED: OrderState.PARTIALLY_FILLED,
        BrokerOrderStatus.FILLED: OrderState.FILLED,
        BrokerOrderStatus.CANCELED: OrderState.CANCELED,
        BrokerOrderStatus.EXPIRED: OrderState.EXPIRED,
        BrokerOrderStatus.REJECTED: OrderState.REJECTED,
    }
    assert order.state is expected[last.status]
    assert order.stop_price == last.stop_price
    if last.status is not BrokerOrderStatus.REJECTED:
        assert order.broker_id == last.broker_id
