"""A batch is written once, however often it is tried, and only by the process that has the lease."""

from datetime import timedelta
from decimal import Decimal

import pytest

from orders import store as order_store
from orders.events import Created, Submitted
from orders.fields import utc_now
from orders.lifecycle import apply
from tests.db.samples import ACCOUNT, REAL, order, record_working
from trading import store
from trading.batch import Batch
from trading.cover import Cover
from trading.messages import ActivityRecorded, ActivityType, CoverMeasured, OrderRecorded, Record

TOKEN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
DOLLARS = Decimal("12.34")
LINE = ActivityRecorded(at=REAL, type=ActivityType.SIGNAL, symbol="AAPL", message="a signal")
NEW, NEXT = (
    OrderRecorded(order=each, fact=Created(local_id=each.local_id, at=each.created_at), before=None)
    for each in (order(), order("2"))
)
SENT = Submitted(local_id=NEW.order.local_id, at=REAL)
CHANGE = OrderRecorded(order=apply(NEW.order, SENT), fact=SENT, before=NEW.order)


def batch(*records: Record, seconds: int = 0) -> store.Prepared:
    real_at = REAL + timedelta(seconds=seconds)
    return store.prepare(Batch(account_id=ACCOUNT, run_id=1, settings_hash="abc", real_at=real_at, records=records))


@pytest.mark.parametrize("records", [(NEW, LINE), (LINE,)])
def test_an_attempt_that_got_through_after_all_is_not_repeated(each_ledger: str, records: tuple[Record, ...]) -> None:
    ids = store.write_batch(batch(*records))
    assert store.write_once(batch(*records)) == ids
    assert len(store.activities(ACCOUNT)) == 1
    assert len(order_store.unfinished_orders(ACCOUNT)) == len(records) - 1
    assert store.write_once(batch(LINE, seconds=1)) != ids


def test_a_batch_of_a_busy_minute_is_written_whole_and_in_order(each_ledger: str) -> None:
    lines = [ActivityRecorded(at=REAL, type=ActivityType.SIGNAL, symbol=f"S{n}", message=f"{n}") for n in range(300)]
    orders = [order(f"{n}") for n in range(120)]
    news = [OrderRecorded(order=new, fact=Created(local_id=new.local_id, at=REAL), before=None) for new in orders]
    ids = store.write_batch(batch(*lines, *news))
    assert ids == sorted(set(ids))
    assert [(number, line) for number, line in reversed(store.activities(ACCOUNT, limit=1000))] == list(
        zip(ids, lines, strict=True)
    )
    assert order_store.unfinished_orders(ACCOUNT) == orders


def test_what_somebody_else_wrote_in_its_place_is_no_earlier_attempt(each_ledger: str) -> None:
    record_working(order())
    with pytest.raises(store.DOES_NOT_FIT):
        store.write_once(batch(NEW, seconds=1))


@pytest.mark.parametrize("record", [LINE, NEXT, CHANGE], ids=["activity", "new order", "changed order"])
def test_whoever_lost_the_lease_writes_nothing(each_ledger: str, record: Record) -> None:
    store.take_lease(token=TOKEN, pid=1, host="here", port=None, real_at=utc_now())
    store.write_batch(batch(NEW, LINE), token=TOKEN)
    store.seize_lease(token=OTHER, pid=2, host="here", real_at=utc_now())
    with pytest.raises(store.LeaseLost):
        store.write_batch(batch(record, seconds=1), token=TOKEN)
    with pytest.raises(store.LeaseLost):
        store.write_once(batch(record, seconds=1), token=TOKEN)
    assert len(store.activities(ACCOUNT)) == 1
    assert order_store.unfinished_orders(ACCOUNT) == [NEW.order]


def test_with_the_lease_a_change_of_an_order_as_it_no_longer_is_says_just_that(each_ledger: str) -> None:
    store.take_lease(token=TOKEN, pid=1, host="here", port=None, real_at=utc_now())
    store.write_batch(batch(NEW), token=TOKEN)
    store.write_batch(batch(CHANGE, seconds=1), token=TOKEN)
    with pytest.raises(order_store.StaleOrder):
        store.write_batch(batch(CHANGE, LINE, seconds=2), token=TOKEN)
    assert store.activities(ACCOUNT) == []
    assert order_store.unfinished_orders(ACCOUNT) == [CHANGE.order]


def test_a_request_is_withdrawn_or_carried_out_and_never_both(each_ledger: str) -> None:
    store.take_lease(token=TOKEN, pid=1, host="here", port=None, real_at=utc_now())
    first, second = (store.ask("flatten", {}, by="test") for _ in range(2))
    assert store.withdraw_request(first.id, reason="too late")
    assert [claimed.id for claimed in store.claim_requests(TOKEN)] == [second.id]
    assert not store.withdraw_request(second.id, reason="too late")
    assert store.find_request(first.id).error == "too late"


def test_figures_of_naked_time_are_those_of_closed_positions(each_ledger: str) -> None:
    assert store.cover_figures(ACCOUNT).positions == 0
    for number in range(1, 101):
        cover = Cover(
            correlation_id=str(number),
            symbol="AAPL",
            uncovered_qty=DOLLARS,
            dollars=DOLLARS,
            since=None,
            seconds=number / 10,
            longest_seconds=number / 20,
            latest_seconds=0.0,
            most_dollars=DOLLARS * number,
            stretches=1,
        )
        store.write_batch(batch(CoverMeasured(at=REAL, cover=cover), seconds=number))
    figures = store.cover_figures(ACCOUNT)
    assert (figures.positions, figures.p50_seconds, figures.p99_seconds, figures.max_seconds) == (100, 5.0, 9.9, 10.0)
    assert (figures.longest_seconds, figures.most_dollars) == (5.0, DOLLARS * 100)
    assert store.cover_figures("alpaca:OTHER").positions == 0
