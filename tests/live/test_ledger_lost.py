"""The ledger cannot be written: positions stay protected, entries stop, and all is written once that works again.

Every fault is a real one, under a real engine in its own process.
"""

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from orders import store as order_store
from orders.lifecycle import OrderState, Role
from tests import databases
from tests.built_in_market import Conductor, script
from tests.live import postgres_server
from tests.live.engine_process import Account, EngineProcess
from tests.live.postgres_server import PostgresServer
from tests.requirements_for_tests import require
from trading import store

ACCOUNT = "alpaca:TEST"
LOCKER = """
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
ledger.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""

Fault = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def ledgers_may_be_read(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests look into the engines' databases."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def folder(tmp_path: Path, migrated_sqlite: Path) -> Path:
    """A data folder with a migrated ledger."""
    databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    return tmp_path


@pytest.fixture
def small_disk(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Path]:
    """A data folder with a migrated ledger on a disk of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True)
    require(mounted.returncode == 0, "this user may not mount a small file system")
    try:
        databases.copied_sqlite(migrated_sqlite, disk / "trading.db")
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with a migrated ledger."""
    with postgres_server.running() as server:
        yield server


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process holds the database for itself."""
    locker = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(folder / "trading.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            locker.kill()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The database cannot be opened for writing, by root neither."""
    with closing(sqlite3.connect(folder / "trading.db", timeout=30)) as reader:
        reader.execute("SELECT count(*) FROM order_state").fetchone()  # from now on the log beside it is there to stay
        files = [str(folder / name) for name in ("trading.db", "trading.db-wal")]
        frozen = subprocess.run(["chattr", "+i", *files], capture_output=True)
        require(frozen.returncode == 0, "this file system or user cannot make files immutable")
        try:
            yield
        finally:
            subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is left on the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
            yield
        finally:
            filler.unlink()


@asynccontextmanager
async def holding(folder: Path, url: str = "") -> AsyncIterator[tuple[Account, EngineProcess, str, Conductor]]:
    """An engine that holds 10 AAPL under a stop; the account, the engine, the stop's id, the market."""
    async with Conductor(script("100|" * 30), patience_seconds=600) as conductor:
        await conductor.minute(3)
        conductor.lockstep.detach()  # time stands still from here; requests are carried out as they come
        account = Account(conductor.market.urls["trading_url"])
        await account.buy(10)
        engine = EngineProcess(conductor.market.urls, folder, url or f"sqlite:///{folder / 'trading.db'}")
        try:
            stop = await account.one_stop(engine, 10)
            await engine.says("gone=0", times=2)  # compared once more after the stream is up
            yield account, engine, stop["id"], conductor
        finally:
            engine.kill()


def ledger_is_whole(url: str) -> list[str]:
    """The events give the orders, and exactly one stop works; the client ids of all orders."""
    with databases.default_database(url):
        orders = sorted(order_store.recent_orders(ACCOUNT, limit=1000), key=lambda each: each.local_id)
        assert sorted(order_store.rebuild(ACCOUNT), key=lambda each: each.local_id) == orders
        working = [each for each in orders if each.state is OrderState.ACCEPTED and each.role is Role.STOP_LOSS]
        assert [each.qty_requested for each in working] == [10]
        assert any("cannot be written" in record.message for _, record in store.activities(ACCOUNT))
        return [each.client_order_id for each in orders]


async def lost_and_regained(folder: Path, fault: Fault, url: str = "") -> tuple[str, str]:
    """The stop vanishes at the broker while nothing can be written: another one goes out, and is written later.

    The database, and the client id of the second stop.
    """
    async with holding(folder, url) as (account, engine, first, _):
        with fault(folder):
            await engine.says("ledger.lost")
            await account.cancel({"id": first})
            second = await account.one_stop(engine, 10, other_than=first)
        await engine.says("ledger.regained")
        await engine.says("the ledger is written again")
        await engine.says("gone=0", times=3)  # and the broker was asked again
        assert (await account.one_stop(engine, 10))["id"] == second["id"]
        assert await engine.stops() == 0, engine.log
        return engine.url, second["client_order_id"]


def test_a_ledger_locked_by_another_process(folder: Path) -> None:
    url, stop = asyncio.run(lost_and_regained(folder, locked))
    assert stop in ledger_is_whole(url)


def test_a_ledger_made_read_only(folder: Path) -> None:
    url, stop = asyncio.run(lost_and_regained(folder, read_only))
    assert stop in ledger_is_whole(url)


def test_a_full_disk(small_disk: Path) -> None:
    url, stop = asyncio.run(lost_and_regained(small_disk, full))
    assert stop in ledger_is_whole(url)


def test_a_postgresql_server_that_is_restarted(tmp_path: Path, server: PostgresServer) -> None:
    url, stop = asyncio.run(lost_and_regained(tmp_path, server.gone, server.url))
    assert stop in ledger_is_whole(url)


def test_files_that_may_not_grow(folder: Path) -> None:
    @contextmanager
    def may_not_grow(folder: Path) -> Iterator[None]:
        engine = engine_of(folder)
        limits = resource.prlimit(engine, resource.RLIMIT_FSIZE)
        resource.prlimit(engine, resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            yield
        finally:
            resource.prlimit(engine, resource.RLIMIT_FSIZE, limits)

    url, stop = asyncio.run(lost_and_regained(folder, may_not_grow))
    assert stop in ledger_is_whole(url)


def engine_of(folder: Path) -> int:
    """The process of the engine that works in this data folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            variables = (process / "environ").read_bytes().split(b"\0")
            if b"runengine" in (process / "cmdline").read_bytes() and f"ALGO_DATA_DIR={folder}".encode() in variables:
                found.append(int(process.name))
    (engine,) = found
    return engine


def test_what_a_killed_engine_could_only_note_in_the_journal_is_written_at_the_next_start(small_disk: Path) -> None:
    async def story() -> tuple[str, str]:
        async with holding(small_disk) as (account, engine, first, conductor):
            with full(small_disk):
                await engine.says("ledger.lost")
                await account.cancel({"id": first})
                second = await account.one_stop(engine, 10, other_than=first)
                engine.kill()
            again = EngineProcess(conductor.market.urls, small_disk, engine.url)
            try:
                await again.says("gone=0", times=2)
                assert "ledger.journal_written" in again.log
                assert "reconcile.stray_order" not in again.log
                assert [each["id"] for each in await account.working()] == [second["id"]]
                assert await again.stops() == 0, again.log
            finally:
                again.kill()
            return engine.url, second["client_order_id"]

    url, stop = asyncio.run(story())
    assert stop in ledger_is_whole(url)


def test_an_engine_that_is_stopped_with_a_full_disk_says_so_and_the_next_one_finds_what_it_did(
    small_disk: Path,
) -> None:
    async def story() -> tuple[str, str]:
        async with holding(small_disk) as (account, engine, first, conductor):
            with full(small_disk):
                await engine.says("ledger.lost")
                await account.cancel({"id": first})
                second = await account.one_stop(engine, 10, other_than=first)
                assert await engine.stops() == 1
                assert "ledger.left_behind" in engine.log
                assert "Traceback" not in engine.log
            again = EngineProcess(conductor.market.urls, small_disk, engine.url)
            try:
                await again.says("gone=0", times=2)
                assert [each["id"] for each in await account.working()] == [second["id"]]
                assert await again.stops() == 0, again.log
            finally:
                again.kill()
            return engine.url, second["client_order_id"]

    url, stop = asyncio.run(story())
    assert stop in ledger_is_whole(url)
