"""Several connections at work on one ledger: each is opened properly, and only one writer can be right."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import pytest
from django.db import connection

from orders import models, store
from orders.events import Canceled, Expired, Fact
from tests.db.samples import ACCOUNT, REAL, at, order, record, record_new, record_trade, record_working, trade, uuid_of
from trading import store as trading_store
from trading.batch import Batch
from trading.live.emergency import EmergencyJournal
from trading.live.ledger import Ledger, LedgerUnavailable
from trading.live.writer import LedgerWriter
from trading.messages import ActivityRecorded, ActivityType, Level

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


# --- an engine that stood still ---------------------------------------------------------------------------------------

OURS, THEIRS = "9d1f7c1e-52e1-4d0f-9d5c-6c2f8f3f1a44", "1c7a5e0b-52e1-4d0f-9d5c-6c2f8f3f1a44"


class Running:
    """An engine's writer, on a ledger that it takes to be out of reach, by a clock that the test moves."""

    def __init__(self, writer: LedgerWriter) -> None:
        self.writer = writer
        self.now = 0.0

    def stands_still(self, seconds: float) -> None:
        """Nothing of the process runs for so long."""
        self.now += seconds

    async def wants_a_stop(self) -> list[int] | None:
        """What it is told when a stop is to go out: None, it goes out and is written down later."""
        activity = ActivityRecorded(
            at=at(1), type=ActivityType.NAKED, symbol="AAPL", message="no stop", level=Level.CRITICAL
        )
        batch = Batch(account_id=ACCOUNT, run_id=None, settings_hash="", real_at=datetime.now(UTC), records=(activity,))
        return await self.writer.write(batch, urgent=True)


@asynccontextmanager
async def engine_with_the_lease(folder: Path) -> AsyncIterator[Running]:
    """It runs, and feels that it does."""
    journal = EmergencyJournal(folder / "journal")
    with closing(Ledger()) as ledger:
        await ledger.run(trading_store.take_lease, token=OURS, pid=1, host="here", port=None, real_at=datetime.now(UTC))
        running = Running(
            LedgerWriter(
                ledger, journal, token=OURS, patience_seconds=5, on_lost=lambda reason: None,
                on_regained=lambda: None, on_full=lambda: None, clock=lambda: running.now,
            )
        )  # fmt: skip
        pulse = asyncio.create_task(running.writer.keep_pulse())
        await asyncio.sleep(0)
        running.writer.lost("nobody answers")
        yield running
        pulse.cancel()
    journal.close()


def somebody_takes_over() -> None:
    """As `manage.py flatten` does past an engine that does not answer."""
    trading_store.seize_lease(token=THEIRS, pid=2, host="here", real_at=datetime.now(UTC))
    connection.close()


def test_an_engine_that_stood_still_and_was_replaced_sends_no_stop_although_it_takes_the_ledger_to_be_lost(
    sqlite_ledger: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with engine_with_the_lease(tmp_path) as engine:
            engine.stands_still(8)
            await asyncio.to_thread(somebody_takes_over)
            with pytest.raises(trading_store.LeaseLost):
                await engine.wants_a_stop()
            with pytest.raises(trading_store.LeaseLost):  # for good
                await engine.writer.confirm()
            assert not engine.writer.waiting

    asyncio.run(story())


def test_an_engine_that_stood_still_and_is_still_the_one_sends_its_stop(sqlite_ledger: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with engine_with_the_lease(tmp_path) as engine:
            engine.stands_still(8)
            assert await engine.wants_a_stop() is None
            assert len(engine.writer.waiting) == 1

    asyncio.run(story())
