"""Several connections at work on one ledger: each is opened properly, and only one writer can be right."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import pytest
from django.db import connection

from orders import models, store
from orders.events import Canceled, Expired, Fact
from tests.db.samples import ACCOUNT, REAL, at, order, record, record_new, record_trade, record_working, trade, uuid_of
from trading.live.ledger import Ledger, LedgerUnavailable

Answer = TypeVar("Answer")
WRITERS = 4


def in_threads(work: Callable[[int], Answer]) -> list[Answer]:
    """What several threads, each with a connection of its own, make of the same work at the same time."""
    start = Barrier(WRITERS)

    def alone(number: int) -> Answer:
        start.wait(timeout=10)
        try:
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(alone, range(WRITERS)))


def test_every_connection_to_sqlite_is_opened_for_a_ledger(sqlite_ledger: str) -> None:
    def pragmas(number: int) -> dict[str, object]:
        found = {}
        with connection.cursor() as cursor:
            for pragma in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys"):
                cursor.execute(f"PRAGMA {pragma}")
                found[pragma] = cursor.fetchone()[0]
        return found

    expected = {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000, "foreign_keys": 1}
    assert in_threads(pragmas) == [expected] * WRITERS


def test_of_several_writers_of_one_order_only_one_is_right(each_ledger: str) -> None:
    working = record_working(order())
    facts: list[Fact] = [
        Canceled(local_id=working.local_id, at=at(3)),
        Expired(local_id=working.local_id, at=at(3)),
    ]

    def end(number: int) -> str:
        try:
            return record(working, facts[number % 2]).state
        except store.StaleOrder:
            return "stale"

    outcomes = in_threads(end)
    assert sorted(outcomes)[1:] == ["stale"] * (WRITERS - 1)
    assert models.OrderEvent.objects.count() == 4
    assert [store.load_order(row) for row in models.OrderState.objects.all()] == store.rebuild(ACCOUNT)


def test_writers_of_different_orders_wait_for_each_other(each_ledger: str) -> None:
    def work(number: int) -> int:
        for turn in range(10):
            record_working(order(f"{number}-{turn}", signal=f"{number}-{turn}"))
            record_trade(trade(f"{number}-{turn}"))
        return number

    assert in_threads(work) == list(range(WRITERS))
    assert models.OrderState.objects.count() == models.Trade.objects.count() == WRITERS * 10
    assert models.OrderEvent.objects.count() == WRITERS * 30


def test_what_was_committed_is_on_disk_for_another_program(sqlite_ledger: str) -> None:
    record_new(order())
    with sqlite3.connect(sqlite_ledger.removeprefix("sqlite:///")) as other:
        rows = other.execute("SELECT local_id, state, qty_requested, recorded_real_at FROM order_state").fetchall()
    assert rows == [(uuid_of("entry"), "pending_submit", "10", REAL.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))]


def test_a_ledger_that_was_moved_away_is_noticed_and_found_again(sqlite_ledger: str) -> None:
    path = Path(sqlite_ledger.removeprefix("sqlite:///"))
    moved = path.with_name("moved.db")

    connection.close()  # this thread's: it would still know the file that is moved
    ledger = Ledger()
    with asyncio.Runner() as runner, closing(ledger):
        runner.run(ledger.run(record_new, order("1", signal="1")))
        path.rename(moved)
        with pytest.raises(LedgerUnavailable):
            runner.run(ledger.run(record_new, order("2", signal="2")))
        moved.rename(path)
        runner.run(ledger.run(record_new, order("3", signal="3")))
    assert set(models.OrderState.objects.values_list("local_id", flat=True)) == {uuid_of("1"), uuid_of("3")}
