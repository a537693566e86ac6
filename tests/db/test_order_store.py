"""What is written about orders and trades is what is read, and a writer that is behind is refused."""

from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError

from orders import models, store
from orders.encoding import decode, decode_fact, encode, encode_fact
from orders.events import (
    Accepted,
    Canceled,
    Created,
    Fact,
    Rejected,
    Replaced,
    ReplaceRefused,
    ReplaceRequested,
    SubmitFailed,
    Submitted,
)
from orders.lifecycle import IllegalTransition, Order, OrderState, Role, Side, apply
from orders.portfolio import fold
from tests.db.samples import (
    ACCOUNT,
    REAL,
    at,
    fill,
    order,
    record,
    record_canceled,
    record_new,
    record_trade,
    record_working,
    stop,
    trade,
    uuid_of,
)

OTHER = "paper:OTHER"


def ledger_orders() -> list[Order]:
    """Every order as its row says."""
    return [store.load_order(row) for row in models.OrderState.objects.order_by("id")]


def test_every_field_of_an_order_has_a_column() -> None:
    columns = {field.attname for field in models.OrderState._meta.concrete_fields}
    assert {field.name for field in fields(Order)} <= columns


def test_every_field_of_a_trade_has_a_column(each_ledger: str) -> None:
    short = trade(side=Side.SHORT, estimated=True, initial_stop_price=None, planned_risk=None, commission=Decimal(1))
    record_trade(short)
    assert store.trades_of_session(ACCOUNT, since=at(0), until=at(390)) == [short]


def test_an_order_comes_back_as_it_was(each_ledger: str) -> None:
    working = record_working(order(limit_price=Decimal("100.05"), parent_id=uuid_of("parent"), exit_reason="manual"))
    assert store.find_order(ACCOUNT, working.local_id) == working
    assert store.find_order(OTHER, working.local_id) is None


def test_the_whole_life_of_an_order_is_in_its_events(each_ledger: str) -> None:
    working = record_working(order())
    partly = record(working, fill(working, "4", "100.01", execution="e1"))
    record(partly, fill(working, "6", "100.02", execution="e2"))
    rows = models.OrderEvent.objects.order_by("id")
    told = [(row.event_type, row.old_state, row.new_state, row.qty_filled, row.fill_price) for row in rows]
    assert told == [
        ("created", None, "pending_submit", None, None),
        ("submitted", "pending_submit", "submitted", None, None),
        ("accepted", "submitted", "accepted", None, None),
        ("partial_fill", "accepted", "partially_filled", 4, Decimal("100.01")),
        ("fill", "partially_filled", "filled", 6, Decimal("100.02")),
    ]
    assert [row.version for row in rows] == [0, 1, 2, 3, 4]
    assert {row.account_id for row in rows} == {ACCOUNT}
    assert {row.run_id for row in rows} == {1}
    assert {row.recorded_real_at for row in rows} == {REAL}
    assert [row.recorded_at for row in rows] == [at(0), at(0), at(0), at(1), at(1)]
    row = models.OrderState.objects.get()
    assert (row.qty_filled, row.avg_fill_price, row.state) == (Decimal(10), Decimal("100.016"), "filled")


def test_a_replaced_stop_stays_one_order_and_answers_to_every_id_it_had(each_ledger: str) -> None:
    working = record_working(stop())
    old_id = working.broker_id or ""
    asked = record(
        working, ReplaceRequested(local_id=working.local_id, at=at(3), number=1, stop_price=Decimal("99.80"))
    )
    assert models.OrderState.objects.get().client_order_id == f"{working.local_id}-r1"
    moved = record(
        asked,
        Replaced(
            local_id=working.local_id, at=at(3), broker_id="new", old_broker_id=old_id, stop_price=Decimal("99.80")
        ),
    )
    assert models.OrderState.objects.count() == 1
    assert store.find_order_by_broker_id(ACCOUNT, old_id) == moved
    assert store.find_order_by_broker_id(ACCOUNT, "new") == moved
    assert store.find_order_by_broker_id(ACCOUNT, "never") is None
    assert store.find_order_by_broker_id(OTHER, "new") is None
    last = store.events_of(ACCOUNT, working.local_id)[-1]
    assert isinstance(last.fact, Replaced)
    assert (last.event_type, last.broker_id, last.fact.old_broker_id) == ("replaced", "new", old_id)


def test_the_shares_of_each_of_many_ids_in_one_look(each_ledger: str) -> None:
    working = record_working(order())
    partly = record(working, fill(working, "3", "100.05"))
    done = record_canceled(record_working(order("second", signal="second")))
    stranger = uuid_of("stranger")
    ids = [partly.local_id, done.local_id, stranger, *(uuid_of(str(number)) for number in range(1200))]
    assert store.shares_by_order(ACCOUNT, ids) == {
        partly.local_id: (Decimal(3), False),
        done.local_id: (Decimal(0), True),
    }
    assert store.shares_by_order(OTHER, ids) == {}


def test_the_latest_execution_is_one_that_the_broker_told(each_ledger: str) -> None:
    assert store.latest_execution_at(ACCOUNT) is None
    working = record_working(order())
    partly = record(working, fill(working, "3", "100.05", minute=2))
    record(partly, fill(partly, "2", "100.05", minute=5, execution=f"found-{partly.local_id}"))
    assert store.latest_execution_at(ACCOUNT) == at(2)
    assert store.latest_execution_at(OTHER) is None


def test_what_reconciliation_forced_is_marked(each_ledger: str) -> None:
    canceled = record_canceled(record_working(order()))
    late = record(canceled, fill(canceled, "3", "100.05", forced=True))
    assert late.state is OrderState.CANCELED
    gone = record_new(order("second", signal="second"))
    record(gone, Rejected(local_id=gone.local_id, at=at(1), forced=True, detail="found so"))
    by_type = {row.event_type: row.detail for row in models.OrderEvent.objects.order_by("id")}
    assert by_type["partial_fill"]["forced"] is True
    assert by_type["forced"]["fact"] == "rejected"
    assert by_type["forced"]["forced"] is True
    assert "forced" not in by_type["canceled"]
    assert store.rebuild(ACCOUNT) == ledger_orders()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_writer_that_is_behind_is_refused_and_writes_nothing(each_ledger: str) -> None:
    working = record_working(order())
    record(working, fill(working, "4", "100.01"))
    with pytest.raises(store.StaleOrder, match="not at version 2"):
        record(working, Canceled(local_id=working.local_id, at=at(2)))
    assert models.OrderState.objects.get().state == "partially_filled"
    assert models.OrderEvent.objects.count() == 4


def test_another_accounts_order_cannot_be_changed(each_ledger: str) -> None:
    working = record_working(order())
    with pytest.raises(store.StaleOrder):
        record(working, Canceled(local_id=working.local_id, at=at(2)), account_id=OTHER)
    assert models.OrderState.objects.get().state == "accepted"


def test_an_illegal_step_is_refused_and_writes_nothing(each_ledger: str) -> None:
    new = record_new(order())
    facts: list[Fact] = [
        Accepted(local_id=new.local_id, at=at(1), broker_id="b"),
        Canceled(local_id=new.local_id, at=at(1)),
        fill(new, "1", "100"),
    ]
    for fact in facts:
        claimed = replace(new, state=OrderState.FILLED, version=1)
        with pytest.raises(IllegalTransition):
            store.record_order(claimed, fact, new, account_id=ACCOUNT, run_id=1, real_at=REAL)
    assert ledger_orders() == [new]
    assert models.OrderEvent.objects.count() == 1


def test_a_change_that_its_fact_does_not_explain_is_refused(each_ledger: str) -> None:
    new = record_new(order())
    submitted = Submitted(local_id=new.local_id, at=at(1))
    honest = apply(new, submitted)
    for claimed in (replace(honest, qty_requested=Decimal(99)), replace(honest, state=OrderState.FILLED), new):
        with pytest.raises(store.UnfaithfulRecord):
            store.record_order(claimed, submitted, new, account_id=ACCOUNT, run_id=1, real_at=REAL)
    with pytest.raises(store.UnfaithfulRecord):
        store.record_order(honest, submitted, None, account_id=ACCOUNT, run_id=1, real_at=REAL)
    with pytest.raises(store.UnfaithfulRecord, match="no account"):
        record_new(order("second"), account_id="")
    assert ledger_orders() == [new]


def test_an_order_and_its_event_are_written_together_or_not_at_all(each_ledger: str) -> None:
    working = record_working(order())
    partly = record(working, fill(working, "4", "100.01", execution="e1"))
    with pytest.raises(IntegrityError):
        record(partly, fill(working, "6", "100.02", execution="e1"))
    assert ledger_orders() == [partly] == store.rebuild(ACCOUNT)


def test_changes_of_several_orders_are_written_together_in_their_order(each_ledger: str) -> None:
    working = record_working(order())
    one, other = order("one", signal="one"), order("other", signal="other")
    submitted = Submitted(local_id=one.local_id, at=at(2))
    canceled = Canceled(local_id=working.local_id, at=at(2))
    changes: list[tuple[Order, Fact, Order | None]] = [
        (one, Created(local_id=one.local_id, at=at(1)), None),
        (other, Created(local_id=other.local_id, at=at(1)), None),
        (apply(one, submitted), submitted, one),
        (apply(working, canceled), canceled, working),
    ]
    store.record_orders(changes, account_id=ACCOUNT, run_id=1, real_at=REAL)
    assert ledger_orders() == [apply(working, canceled), apply(one, submitted), other]
    assert store.rebuild(ACCOUNT) == ledger_orders()


def test_if_one_of_several_changes_does_not_fit_none_is_written(each_ledger: str) -> None:
    working = record_working(order())
    record(working, fill(working, "4", "100.01"))
    one, canceled = order("one", signal="one"), Canceled(local_id=working.local_id, at=at(2))
    changes: list[tuple[Order, Fact, Order | None]] = [
        (one, Created(local_id=one.local_id, at=at(1)), None),
        (apply(working, canceled), canceled, working),
    ]
    with pytest.raises(store.StaleOrder):
        store.record_orders(changes, account_id=ACCOUNT, run_id=1, real_at=REAL)
    assert [each.local_id for each in ledger_orders()] == [working.local_id]


def test_an_order_that_is_changed_twice_in_one_writing_is_as_the_last_change_left_it(each_ledger: str) -> None:
    working, new = record_working(order()), order("one", signal="one")
    submitted = Submitted(local_id=new.local_id, at=at(2))
    sent = apply(new, submitted)
    some, rest = fill(working, "4", "100.01", execution="e1"), fill(working, "6", "100.02", execution="e2")
    partly = apply(working, some)
    changes: list[tuple[Order, Fact, Order | None]] = [
        (new, Created(local_id=new.local_id, at=at(1)), None),
        (partly, some, working),
        (sent, submitted, new),
        (apply(partly, rest), rest, partly),
    ]
    store.record_orders(changes, account_id=ACCOUNT, run_id=1, real_at=REAL)
    assert ledger_orders() == [apply(partly, rest), sent] == store.rebuild(ACCOUNT)
    told = models.OrderEvent.objects.filter(order_local__local_id=new.local_id).order_by("id")
    assert [(each.event_type, each.new_state) for each in told] == [
        ("created", "pending_submit"),
        ("submitted", "submitted"),
    ]


def test_a_second_change_that_does_not_follow_the_first_is_refused_and_neither_is_written(each_ledger: str) -> None:
    working = record_working(order())
    some, canceled = fill(working, "4", "100.01"), Canceled(local_id=working.local_id, at=at(2))
    changes: list[tuple[Order, Fact, Order | None]] = [
        (apply(working, some), some, working),
        (apply(working, canceled), canceled, working),
    ]
    with pytest.raises(store.StaleOrder):
        store.record_orders(changes, account_id=ACCOUNT, run_id=1, real_at=REAL)
    assert ledger_orders() == [working] == store.rebuild(ACCOUNT)


# --- what the engine asks for at start --------------------------------------------------------------------------------


def test_unfinished_orders_are_those_that_can_still_do_something(each_ledger: str) -> None:
    working = record_working(order())
    record_canceled(record_working(order("canceled", signal="canceled")))
    unsent = record_new(order("unsent", signal="unsent"))
    failed = record_new(order("failed", signal="failed"))
    record(failed, SubmitFailed(local_id=failed.local_id, at=at(1)))
    record_working(order("foreign", signal="foreign"), account_id=OTHER)
    assert store.unfinished_orders(ACCOUNT) == [working, unsent]


def test_an_open_round_trip_comes_with_all_its_orders_and_executions(each_ledger: str) -> None:
    entry = record_working(order())
    entry = record(entry, fill(entry, "10", "100.01", minute=1))
    refused = record_new(stop("refused"))
    refused = record(refused, Submitted(local_id=refused.local_id, at=at(1)))
    refused = record(refused, Rejected(local_id=refused.local_id, at=at(1), detail="wash trade"))
    working = record_working(stop())
    working = record(working, fill(working, "4", "99.49", minute=3))
    record_working(order("waiting", signal="waiting"))
    assert store.open_round_trips(ACCOUNT) == [
        (entry, [fill(entry, "10", "100.01", minute=1)]),
        (working, [fill(working, "4", "99.49", minute=3)]),
        (refused, []),
    ]
    assert store.orders_by_correlation(ACCOUNT, entry.correlation_id) == [entry, refused, working]


def test_executions_of_two_orders_come_in_the_order_in_which_they_happened(each_ledger: str) -> None:
    entry = record_working(order())
    entry = record(entry, fill(entry, "4", "100.01", minute=1))
    leaving = record_working(stop(qty_requested=Decimal(3)))
    leaving = record(leaving, fill(leaving, "3", "99.90", minute=2))
    entry = record(entry, fill(entry, "6", "100.02", minute=3))
    executed = [(each.role, str(fact.qty)) for each, facts in store.open_round_trips(ACCOUNT) for fact in facts]
    assert executed == [(Role.ENTRY, "4"), (Role.STOP_LOSS, "3"), (Role.ENTRY, "6")]
    flat = [(each, fact) for each, facts in store.open_round_trips(ACCOUNT) for fact in facts]
    portfolio, trades = fold(flat, cash=Decimal(25000))
    assert trades == []
    assert portfolio.positions["AAPL"].qty == 7


def test_a_round_trip_is_closed_when_it_is_flat_and_written_down(each_ledger: str) -> None:
    entry = record_working(order())
    record(entry, fill(entry, "10", "100.01", minute=1))
    leaving = record_working(stop())
    record(leaving, fill(leaving, "10", "99.49", minute=5))
    assert [each.role for each, _ in store.open_round_trips(ACCOUNT)] == [Role.ENTRY, Role.STOP_LOSS]
    record_trade(trade())
    assert store.open_round_trips(ACCOUNT) == []


def test_a_late_execution_opens_a_round_trip_again(each_ledger: str) -> None:
    entry = record_working(order())
    entry = record(entry, fill(entry, "4", "100.01", minute=1))
    entry = record_canceled(entry)
    leaving = record_working(stop(qty_requested=Decimal(4)))
    record(leaving, fill(leaving, "4", "99.49", minute=5))
    record_trade(trade(qty=Decimal(4)))
    assert store.open_round_trips(ACCOUNT) == []
    record(entry, fill(entry, "6", "100.01", minute=6, forced=True))
    assert [len(facts) for _, facts in store.open_round_trips(ACCOUNT)] == [1, 1, 1]


def test_entries_of_a_session_are_counted_by_symbol(each_ledger: str) -> None:
    for number, symbol in enumerate(["AAPL", "AAPL", "TSLA"]):
        record_new(order(f"entry {number}", signal=f"signal {number}", symbol=symbol, created_at=at(number)))
    record_new(stop())
    record_new(order("yesterday", created_at=at(0) - timedelta(days=1)))
    assert store.entries_submitted(ACCOUNT, since=at(0)) == {"AAPL": 2, "TSLA": 1}
    assert store.entries_submitted(ACCOUNT, since=at(1)) == {"AAPL": 1, "TSLA": 1}
    assert store.entries_submitted(OTHER, since=at(0)) == {}


# --- trades -----------------------------------------------------------------------------------------------------------


def test_the_same_round_trip_is_written_once(each_ledger: str) -> None:
    assert record_trade(trade()) == record_trade(trade())
    assert models.Trade.objects.count() == 1


def test_a_round_trip_that_opened_again_is_a_trade_of_its_own(each_ledger: str) -> None:
    first = record_trade(trade())
    second = record_trade(trade(entry_at=at(6), exit_at=at(7)))
    assert first != second
    assert models.Trade.objects.count() == 2


def test_a_correction_takes_the_place_of_the_trade_it_names(each_ledger: str) -> None:
    estimated = record_trade(trade(estimated=True, exit_price=Decimal(99)))
    corrected = record_trade(trade(), corrects_trade_id=estimated)
    assert models.Trade.objects.count() == 2
    assert store.trades_of_session(ACCOUNT, since=at(0), until=at(390)) == [trade()]
    shown = store.recent_trades(ACCOUNT)
    assert [(each.trade_id, each.corrects_trade_id) for each in shown] == [(corrected, estimated)]


def test_trades_of_a_session_come_in_the_order_in_which_they_were_worked_off(each_ledger: str) -> None:
    trades = [trade("second", exit_at=at(9)), trade("first", exit_at=at(4)), trade("third", exit_at=at(10))]
    for each in trades:
        record_trade(each)
    record_trade(trade("foreign"), account_id=OTHER)
    assert store.trades_of_session(ACCOUNT, since=at(0), until=at(390)) == trades
    assert store.trades_of_session(ACCOUNT, since=at(4), until=at(9)) == [trades[1]]


def test_the_times_of_two_clocks_do_not_keep_a_trade_from_being_written(each_ledger: str) -> None:
    record_trade(trade(entry_at=at(5), exit_at=at(4.99)))
    assert models.Trade.objects.get().duration_seconds == 0


# --- what the pages show ----------------------------------------------------------------------------------------------


def test_the_pages_see_the_latest_orders_of_the_account_first(each_ledger: str) -> None:
    first = record_canceled(record_working(order()))
    second = record_new(order("second", signal="second", symbol="TSLA"))
    record_new(order("foreign", signal="foreign"), account_id=OTHER)
    assert store.recent_orders(ACCOUNT) == [second, first]
    assert store.recent_orders(ACCOUNT, limit=1, offset=1) == [first]
    assert store.recent_orders(ACCOUNT, symbol="TSLA") == [second]
    assert store.recent_orders(ACCOUNT, unfinished_only=True) == [second]


def test_the_pages_see_trades_with_their_notes(each_ledger: str) -> None:
    trade_id = record_trade(trade())
    later = record_trade(trade("later", exit_at=at(9), symbol="TSLA"))
    models.TradeNote.objects.create(trade_id=trade_id, note="too early")
    shown = store.recent_trades(ACCOUNT)
    assert [(each.trade_id, each.notes) for each in shown] == [(later, ()), (trade_id, ("too early",))]
    assert shown[1].trade == trade()
    assert [each.trade_id for each in store.recent_trades(ACCOUNT, symbol="TSLA")] == [later]
    assert [each.trade_id for each in store.recent_trades(ACCOUNT, since=at(0), until=at(6))] == [trade_id]
    assert [each.trade_id for each in store.recent_trades(ACCOUNT, limit=None, offset=1)] == [trade_id]


# --- facts as JSON ----------------------------------------------------------------------------------------------------


def test_orders_and_facts_survive_being_written_as_json() -> None:
    working = stop(moved_at=at(1), state=OrderState.ACCEPTED, qty_filled=Decimal("0.5"), last_error="refused")
    assert decode(Order, encode(working)) == working
    facts: list[Fact] = [
        Created(local_id="a", at=at(0)),
        fill(working, "1E+1", "0.0001", forced=True, broker_id="b", commission=Decimal("0.35")),
        ReplaceRefused(local_id="a", at=at(0), detail="no"),
        ReplaceRequested(local_id="a", at=at(0), number=2, stop_price=Decimal("1.10")),
    ]
    for fact in facts:
        assert decode_fact(encode_fact(fact)) == fact


def test_what_has_no_exact_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError):
        encode(0.1)
