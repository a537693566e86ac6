"""Whatever the broker says, in whatever order: states stay legal, history only grows, and it rebuilds every order."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from orders import models, store
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
from orders.lifecycle import TRANSITIONS, IllegalTransition, Order, OrderState, OrderType, Role, Side, apply
from tests.db.samples import OPEN, REAL, uuid_of

ACCOUNTS = count()  # every example trades an account of its own
QUANTITIES = st.decimals(min_value="0.0001", max_value=12, places=4)
PRICES = st.decimals(min_value="0.0001", max_value=9999, places=4)
IDS = st.sampled_from(["b1", "b2", "b3"])


def facts(order: Order, now: datetime) -> st.SearchStrategy[Fact]:
    """Anything that anybody might say of an order, likely or not."""

    def of(kind: type[Any], **particulars: st.SearchStrategy[Any]) -> st.SearchStrategy[Fact]:
        forced = st.booleans() if kind is not Created else st.just(False)
        common = {"local_id": st.just(order.local_id), "at": st.just(now), "forced": forced}
        strategy: st.SearchStrategy[Fact] = st.builds(kind, **common, **particulars)
        return strategy

    words = st.sampled_from(["", "insufficient buying power", "potential wash trade detected"])
    executions = st.integers(0, 10**9).map(lambda number: f"{order.local_id}|{number}")
    commissions = st.sampled_from([Decimal(0), Decimal("0.35")])
    return st.one_of(
        of(Created),
        of(Submitted),
        of(Accepted, broker_id=IDS),
        of(
            Filled,
            qty=QUANTITIES | st.just(order.qty_left),
            price=PRICES,
            filled_at=st.just(now),
            execution_id=executions,
            broker_id=st.none() | IDS,
            commission=commissions,
            estimated=st.booleans(),
        ),
        of(Canceled, detail=words),
        of(Expired),
        of(Rejected, detail=words),
        of(SubmitFailed, detail=words),
        of(ReplaceRequested, number=st.just(order.replacements + 1) | st.integers(0, 3), stop_price=PRICES),
        of(Replaced, broker_id=IDS, old_broker_id=IDS, stop_price=PRICES, live_from=st.none() | st.just(now)),
        of(ReplaceRefused, detail=words),
    )


class OrderLives(RuleBasedStateMachine):
    """A few orders of one account, told anything at all; `orders` is what the pure rules make of it."""

    @initialize()
    def open_account(self) -> None:
        self.account_id = f"simulator:{next(ACCOUNTS)}"
        self.orders: dict[str, Order] = {}
        self.history: list[tuple[Any, ...]] = []
        self.now = OPEN

    @rule(
        side=st.sampled_from(Side),
        role=st.sampled_from(Role),
        order_type=st.sampled_from(OrderType),
        qty=st.integers(1, 12),
        prices=st.tuples(st.none() | PRICES, st.none() | PRICES),
    )
    def create(
        self, side: Side, role: Role, order_type: OrderType, qty: int, prices: tuple[Decimal | None, Decimal | None]
    ) -> None:
        if len(self.orders) == 3:
            return
        name = f"{self.account_id}|{len(self.orders)}"
        order = Order(
            local_id=uuid_of(name),
            correlation_id=uuid_of(self.account_id),
            symbol="AAPL",
            side=side,
            role=role,
            order_type=order_type,
            qty_requested=Decimal(qty),
            strategy="velez",
            created_at=self.now,
            updated_at=self.now,
            stop_price=prices[0],
            planned_stop_price=prices[1],
        )
        self.write(order, Created(local_id=order.local_id, at=self.now), None)
        self.orders[order.local_id] = order

    @rule(data=st.data(), minutes=st.integers(0, 3))
    def hear(self, data: st.DataObject, minutes: int) -> None:
        if not self.orders:
            return
        self.now += timedelta(minutes=minutes)
        before = data.draw(st.sampled_from(list(self.orders.values())))
        fact = data.draw(facts(before, self.now))
        try:
            after = apply(before, fact)
        except IllegalTransition:
            self.refuse(before, fact)
            return
        self.write(after, fact, before)
        self.orders[after.local_id] = after

    @rule(data=st.data())
    def write_late(self, data: st.DataObject) -> None:
        """A writer that still holds an older version of an order."""
        moved = [order for order in self.orders.values() if order.version]
        if not moved:
            return
        order = data.draw(st.sampled_from(moved))
        older = replace(order, version=order.version - 1, state=OrderState.PENDING_SUBMIT)
        fact = Submitted(local_id=order.local_id, at=self.now)
        try:
            self.write(apply(older, fact), fact, older)
        except store.StaleOrder:
            return
        raise AssertionError("a stale writer got through")

    def refuse(self, before: Order, fact: Fact) -> None:
        """What the rules refuse, the ledger refuses, whatever the writer says came of it."""
        claimed = replace(before, version=before.version + 1, updated_at=self.now)
        try:
            self.write(claimed, fact, before)
        except (IllegalTransition, store.UnfaithfulRecord):
            return
        raise AssertionError(f"{fact} was written on {before.state}")

    def write(self, order: Order, fact: Fact, before: Order | None) -> None:
        store.record_order(order, fact, before, account_id=self.account_id, run_id=None, real_at=REAL)

    @invariant()
    def ledger_and_history_say_the_same(self) -> None:
        rows = models.OrderState.objects.filter(account_id=self.account_id).order_by("id")
        orders = list(self.orders.values())
        assert [store.load_order(row) for row in rows] == orders
        assert store.rebuild(self.account_id) == orders
        assert [row.avg_fill_price for row in rows] == [order.avg_fill_price for order in orders]

    @invariant()
    def history_only_grows(self) -> None:
        history = list(models.OrderEvent.objects.filter(account_id=self.account_id).order_by("id").values_list())
        assert history[: len(self.history)] == self.history
        self.history = history

    @invariant()
    def every_step_is_legal_or_forced(self) -> None:
        for event in models.OrderEvent.objects.filter(account_id=self.account_id, old_state__isnull=False):
            old, new = OrderState(event.old_state or ""), OrderState(event.new_state)
            stays = old is new and event.detail["fact"] in ("replace_requested", "replaced", "replace_refused")
            assert stays or new in TRANSITIONS[old] or event.detail.get("forced")


def live_through(examples: int, steps: int) -> None:
    """Runs the machine. Its writes stay: each example has an account of its own."""
    run_state_machine_as_test(
        OrderLives,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_sequence_of_events_leaves_an_illegal_state_or_a_gap_in_history(ledger: str) -> None:
    live_through(examples=40, steps=25)
    assert models.OrderEvent.objects.exists()


def test_the_same_holds_on_postgresql(postgres_ledger: str) -> None:
    with transaction.atomic():
        live_through(examples=15, steps=20)
    assert models.OrderEvent.objects.exists()
