"""`manage.py backup` while somebody writes, and the engine on a copy that was brought back."""

import asyncio
import io
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import DjangoDbBlocker

from orders import store as order_store
from orders.command import UserError
from orders.lifecycle import OrderState, Role
from tests import databases
from tests.built_in_market import Conductor, script
from tests.db.samples import order, record_working, stop
from tests.live.engine_process import Account, EngineProcess


@pytest.fixture(autouse=True)
def ledgers_may_be_read(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests look into the engines' databases."""
    with django_db_blocker.unblock():
        yield


def backup(*arguments: str) -> str:
    said = io.StringIO()
    call_command("backup", *arguments, stdout=said)
    return said.getvalue()


def test_a_copy_of_one_moment_while_orders_are_written(sqlite_ledger: str, tmp_path: Path) -> None:
    done = threading.Event()
    written: list[str] = []

    def write() -> None:
        while not done.is_set():
            name = f"entry-{len(written)}"
            written.append(record_working(order(name, signal=name)).local_id)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(written) < 20:
            time.sleep(0.01)
        copies = [tmp_path / f"copy-{number}.db" for number in range(5)]
        said = [backup(str(copy)) for copy in copies]
    finally:
        done.set()
        writer.join()
    assert all(line.startswith(f"Backup: {copy} (") for line, copy in zip(said, copies, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == [copy.name for copy in copies]
    sizes = []
    for copy in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(copy)) as found:
            (orders,) = found.execute("SELECT count(*) FROM order_state").fetchone()
            (events,) = found.execute("SELECT count(*) FROM order_event").fetchone()
        assert 0 <= 3 * orders - events <= 2  # an order is accepted three transactions after it began
        sizes.append(orders)
    assert sizes == sorted(sizes)
    assert 20 <= sizes[0] <= len(written)


def test_without_a_name_it_goes_to_the_data_folder(sqlite_ledger: str, tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path / "data"
    line = backup()
    (made,) = (tmp_path / "data" / "backups").iterdir()
    assert line.startswith(f"Backup: {made} (")
    assert line.endswith(" 0 orders, 0 events; verified)\n")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE order_state SET qty_requested = '11'",
        (
            "INSERT INTO order_event (order_local_id, event_type, new_state, version, detail, recorded_at, account_id,"
            " recorded_real_at) SELECT local_id, 'expired', 'expired', 9, '{}', updated_at, account_id, updated_at"
            " FROM order_state"
        ),
    ],
)
def test_a_ledger_that_contradicts_itself_is_not_passed_on(sqlite_ledger: str, tmp_path: Path, change: str) -> None:
    record_working(order())
    with connection.cursor() as cursor:
        cursor.execute(change)
    with pytest.raises(UserError, match="1 orders of the ledger are not what their events make of them"):
        backup(str(tmp_path / "copy.db"))
    assert not list(tmp_path.glob("*copy*"))


def test_what_is_no_backup_is_not_overwritten(sqlite_ledger: str, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Sir")
    with pytest.raises(UserError, match="exists and is no backup"):
        backup(str(tmp_path / "letter"))
    with pytest.raises(UserError, match="this one is the ledger"):
        backup(str(tmp_path / "trading.db"))
    with pytest.raises(UserError, match="could not be made"):
        backup(str(tmp_path / "letter" / "copy.db"))
    backup(str(tmp_path / "copy.db"))
    record_working(stop())
    assert "1 orders, 3 events" in backup(str(tmp_path / "copy.db"))


def test_postgresql_has_a_tool_of_its_own(postgres_ledger: str) -> None:
    with pytest.raises(UserError, match="back it up with `pg_dump"):
        backup("copy.dump")


def test_an_engine_on_an_older_copy_takes_up_what_happened_since(tmp_path: Path, migrated_sqlite: Path) -> None:
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    copy = tmp_path / "copy.db"

    async def story() -> None:
        async with Conductor(script("100|" * 30), patience_seconds=600) as conductor:
            await conductor.minute(3)
            conductor.lockstep.detach()
            account = Account(conductor.market.urls["trading_url"])
            await account.buy(10)
            engine = EngineProcess(conductor.market.urls, tmp_path, url)
            try:
                first = await account.one_stop(engine, 10)
                await engine.says("gone=0", times=2)
                made = await asyncio.to_thread(engine.manage, "backup", str(copy))
                assert made.returncode == 0, made.stderr
                await account.cancel(first)  # what the copy does not know: this stop is gone, and there is another
                second = await account.one_stop(engine, 10, other_than=first["id"])
                await engine.says("accepted", times=2)
                assert await engine.stops() == 0, engine.log
            finally:
                engine.kill()
            for end in ("", "-wal", "-shm"):
                (tmp_path / f"trading.db{end}").unlink(missing_ok=True)
            shutil.copyfile(copy, tmp_path / "trading.db")
            again = EngineProcess(conductor.market.urls, tmp_path, url)
            try:
                await again.says("gone=0", times=2)
                stop = await account.one_stop(again, 10)
                assert stop["qty"] == second["qty"]
                assert await again.stops() == 0, again.log
            finally:
                again.kill()
            assert [each["client_order_id"] for each in await account.working()] == [stop["client_order_id"]]

    asyncio.run(story())
    with databases.default_database(url):
        account_id = "alpaca:TEST"
        stops = [each for each in order_store.recent_orders(account_id) if each.role is Role.STOP_LOSS]
        assert sum(each.state is OrderState.ACCEPTED for each in stops) == 1
        assert order_store.audit(using="default").unfaithful == ()
