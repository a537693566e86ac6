"""The life of an order: every step the table allows, every step it does not, and what each fact changes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from orders.lifecycle import (
    TERMINAL,
    TRANSITIONS,
    IllegalTransition,
    Order,
    OrderState,
    OrderType,
    Role,
    Side,
    apply,
    local_id_of,
    replacement_id,
)

T0 = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
T1 = T0 + timedelta(seconds=7)

TABLE = """
pending_submit   -> submitted submit_failed
submitted        -> accepted partially_filled filled canceled expired rejected submit_failed
accepted         -> partially_filled filled canceled expired rejected
partially_filled -> partially_filled filled canceled expired
"""
ALLOWED = {
    OrderState(line.split("->")[0].strip()): {OrderState(word) for word in line.split("->")[1].split()}
    for line in TABLE.strip().splitlines()
}


def order(state: str = "pending_submit", *, filled: int = 0, **changes: object) -> Order:
    """A protective stop for 10 shares at 95 dollars, `filled` of them filled at 90."""
    made = Order(
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
        state=OrderState(state),
        qty_filled=Decimal(filled),
        filled_value=Decimal(90 * filled),
        broker_id=None if state in ("pending_submit", "submitted", "submit_failed") else "b1",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def fill(qty: int, price: str = "94.90", *, forced: bool = False, broker_id: str | None = "b1") -> Filled:
    return Filled(
        local_id="a",
        at=T1,
        qty=Decimal(qty),
        price=Decimal(price),
        filled_at=T1,
        execution_id="e1",
        broker_id=broker_id,
        forced=forced,
    )


def replaced(*, forced: bool = False) -> Replaced:
    return Replaced(local_id="a", at=T1, broker_id="b2", old_broker_id="b1", stop_price=Decimal(96), forced=forced)


def told(*values: object) -> str:
    return " ".join(map(str, values))


FACTS: dict[str, Fact] = {  # by the state each leads to
    "submitted": Submitted(local_id="a", at=T1),
    "accepted": Accepted(local_id="a", at=T1, broker_id="b1"),
    "partially_filled": fill(4),
    "filled": fill(10),
    "canceled": Canceled(local_id="a", at=T1),
    "expired": Expired(local_id="a", at=T1),
    "rejected": Rejected(local_id="a", at=T1, detail="no buying power"),
    "submit_failed": SubmitFailed(local_id="a", at=T1, detail="no answer"),
}


class TestTable:
    def test_it_is_the_one_of_the_rules(self) -> None:
        assert {state: set(following) for state, following in TRANSITIONS.items() if following} == ALLOWED
        assert set(TRANSITIONS) == set(OrderState)

    def test_five_states_are_terminal(self) -> None:
        assert {str(state) for state in TERMINAL} == {"filled", "canceled", "expired", "rejected", "submit_failed"}

    @pytest.mark.parametrize(("before", "after"), list(product(OrderState, FACTS)))
    def test_every_step_is_taken_or_refused_as_the_table_says(self, before: OrderState, after: str) -> None:
        start = order(before)
        if OrderState(after) in ALLOWED.get(before, ()):
            done = apply(start, FACTS[after])
            assert (done.state, done.version, done.updated_at) == (after, 1, T1)
        else:
            with pytest.raises(IllegalTransition):
                apply(start, FACTS[after])

    @pytest.mark.parametrize(
        ("before", "after"), list(product(OrderState, ["accepted", "canceled", "expired", "rejected", "submit_failed"]))
    )
    def test_reconciliation_can_force_any_state(self, before: OrderState, after: str) -> None:
        assert apply(order(before), replace(FACTS[after], forced=True)).state == after

    def test_a_fact_of_another_order_is_refused(self) -> None:
        with pytest.raises(IllegalTransition, match="was applied to"):
            apply(order(), Submitted(local_id="b", at=T1))

    def test_an_order_is_created_once(self) -> None:
        with pytest.raises(IllegalTransition, match="exists already"):
            apply(order(), Created(local_id="a", at=T1))


class TestFills:
    def test_the_average_is_volume_weighted(self) -> None:
        done = apply(apply(order("accepted"), fill(4, "94")), fill(6, "95"))
        assert told(done.state, done.qty_filled, done.qty_left, done.avg_fill_price) == "filled 10 0 94.6"

    def test_before_the_first_fill_there_is_no_average(self) -> None:
        assert order("accepted").avg_fill_price is None

    @pytest.mark.parametrize(("qty", "price"), [(0, "94"), (-1, "94"), (11, "94"), (1, "0"), (1, "-5")])
    def test_shares_or_prices_that_cannot_be_are_refused(self, qty: int, price: str) -> None:
        with pytest.raises(IllegalTransition, match="do not fit"):
            apply(order("accepted"), fill(qty, price))

    @pytest.mark.parametrize("ended", ["canceled", "expired", "rejected", "submit_failed"])
    def test_a_late_fill_adds_shares_and_leaves_the_end_as_it_was(self, ended: str) -> None:
        done = apply(order(ended), fill(4, forced=True))
        assert told(done.state, done.qty_filled) == f"{ended} 4"

    def test_late_fills_that_complete_the_order_make_it_filled(self) -> None:
        assert apply(order("canceled", filled=6), fill(4, forced=True)).state == "filled"

    def test_a_fill_can_come_before_the_acceptance_and_tells_the_brokers_id(self) -> None:
        done = apply(order("submitted"), fill(4))
        assert (done.state, done.broker_id) == ("partially_filled", "b1")

    def test_what_was_filled_before_a_forced_acceptance_still_is(self) -> None:
        done = apply(order("submit_failed", filled=4), Accepted(local_id="a", at=T1, broker_id="b1", forced=True))
        assert done.state == "partially_filled"

    def test_more_than_was_asked_for_is_booked_only_when_forced(self) -> None:
        assert apply(order("accepted"), fill(11, forced=True)).qty_filled == 11


class TestReplacements:
    def requested(self, number: int = 1) -> ReplaceRequested:
        return ReplaceRequested(local_id="a", at=T1, number=number, stop_price=Decimal(96))

    def test_until_the_broker_confirms_the_old_price_is_live(self) -> None:
        asked = apply(order("accepted"), self.requested())
        assert told(asked.stop_price, asked.requested_stop_price, asked.moved) == "95 96 False"
        assert (asked.broker_id, asked.client_order_id) == ("b1", "a-r1")

    def test_a_confirmed_replacement_has_the_new_price_and_id(self) -> None:
        done = apply(apply(order("accepted"), self.requested()), replaced())
        assert told(done.stop_price, done.requested_stop_price, done.moved) == "96 None True"
        assert (done.broker_id, done.state) == ("b2", "accepted")

    def test_a_replacement_at_the_same_price_did_not_move_the_stop(self) -> None:
        assert not apply(order("accepted", stop_price=Decimal(96)), replaced()).moved

    def test_a_refused_replacement_leaves_the_order_as_it_was(self) -> None:
        refused = ReplaceRefused(local_id="a", at=T1, detail="order is not open")
        done = apply(apply(order("accepted"), self.requested()), refused)
        assert told(done.stop_price, done.requested_stop_price, done.moved, done.state) == "95 None False accepted"
        assert (done.last_error, done.replacements) == ("order is not open", 1)

    def test_replacements_are_numbered_one_by_one(self) -> None:
        with pytest.raises(IllegalTransition, match="cannot start replacement 2"):
            apply(order("accepted"), self.requested(2))

    @pytest.mark.parametrize("state", sorted(set(OrderState) - {OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED}))
    def test_only_a_working_order_can_be_replaced(self, state: str) -> None:
        with pytest.raises(IllegalTransition):
            apply(order(state), self.requested())
        with pytest.raises(IllegalTransition):
            apply(order(state), replaced())

    def test_shares_filled_under_the_old_id_stay_apart_from_those_under_the_new_one(self) -> None:
        done = apply(apply(order("accepted"), fill(3)), replaced())
        done = apply(done, fill(2, broker_id="b2"))
        assert told(done.qty_filled, done.filled_before, done.broker_id) == "5 3 b2"

    def test_a_late_fill_under_the_old_id_does_not_bring_that_id_back(self) -> None:
        done = apply(apply(order("accepted"), replaced()), fill(3, broker_id="b1"))
        assert told(done.qty_filled, done.filled_before, done.broker_id) == "3 3 b2"


class TestIds:
    def test_each_replacement_has_its_own_client_order_id(self) -> None:
        assert [replacement_id("5f-ab", number) for number in (0, 1, 12)] == ["5f-ab", "5f-ab-r1", "5f-ab-r12"]

    def test_every_client_order_id_leads_back_to_the_order(self) -> None:
        assert [local_id_of(text) for text in ("5f-ab", "5f-ab-r1", "5f-ab-r12")] == ["5f-ab"] * 3


@pytest.mark.parametrize(
    ("side", "role", "buys"),
    [
        (Side.LONG, Role.ENTRY, True),
        (Side.LONG, Role.STOP_LOSS, False),
        (Side.LONG, Role.EXIT, False),
        (Side.SHORT, Role.ENTRY, False),
        (Side.SHORT, Role.STOP_LOSS, True),
        (Side.SHORT, Role.TAKE_PROFIT, True),
    ],
)
def test_whether_the_broker_is_asked_to_buy_follows_from_side_and_role(side: Side, role: Role, *, buys: bool) -> None:
    assert replace(order(), side=side, role=role).buys is buys


EVERY_FACT = st.sampled_from(
    [
        *FACTS.values(),
        *(replace(fact, forced=True) for fact in FACTS.values()),
        replaced(),
        replaced(forced=True),
        fill(3, broker_id="b2"),
        ReplaceRefused(local_id="a", at=T1),
        *(ReplaceRequested(local_id="a", at=T1, number=number, stop_price=Decimal(96)) for number in (1, 2, 3)),
    ]
)


@given(facts=st.lists(EVERY_FACT, max_size=30))
def test_whatever_is_told_in_whatever_order_shares_only_grow_and_ends_are_final(facts: list[Fact]) -> None:
    current = order()
    for fact in facts:
        try:
            after = apply(current, fact)
        except IllegalTransition:
            continue
        assert after.version == current.version + 1
        assert after.qty_filled >= current.qty_filled
        if not fact.forced:
            assert not (current.is_terminal and after.state is not current.state)
            assert after.state is current.state or after.state in ALLOWED[current.state]
            assert after.qty_filled in (current.qty_filled, min(after.qty_filled, after.qty_requested))
        assert (after.state is OrderState.FILLED) <= (after.qty_left <= 0)
        assert Decimal(0) <= after.filled_before <= after.qty_filled
        current = after
