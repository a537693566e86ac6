"""How an engine ends: gracefully with stops verified, at once by a second signal, with status 1 if shares are bare."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.built_in_market import Conductor, script
from tests.live.engine_process import Account, EngineProcess
from trading import store
from trading.simulator.faults import Fault, Kind, On, Schedule


@pytest.fixture(autouse=True)
def ledgers_may_be_read(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests look into the engines' databases."""
    with django_db_blocker.unblock():
        yield


@asynccontextmanager
async def holding(folder: Path, template: Path) -> AsyncIterator[tuple[Account, EngineProcess, Conductor]]:
    """An engine that holds 10 AAPL under a stop."""
    url = databases.copied_sqlite(template, folder / "trading.db")
    async with Conductor(script("100|" * 30), patience_seconds=600) as conductor:
        await conductor.minute(3)
        conductor.lockstep.detach()
        account = Account(conductor.market.urls["trading_url"])
        await account.buy(10)
        engine = EngineProcess(conductor.market.urls, folder, url)
        try:
            await account.one_stop(engine, 10)
            await engine.says("gone=0", times=2)
            yield account, engine, conductor
        finally:
            engine.kill()


def ending(url: str) -> tuple[str, str, bool]:
    """How the run ended, by the ledger: outcome, reason, and whether somebody still has the lease."""
    with databases.default_database(url):
        run = store.last_run()
        assert run is not None
        return run.outcome, run.reason, store.peek_lease() is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_positions_keep_their_stops_which_are_verified(
    tmp_path: Path, migrated_sqlite: Path, number: signal.Signals
) -> None:
    async def story() -> EngineProcess:
        async with holding(tmp_path, migrated_sqlite) as (account, engine, _):
            assert await engine.stops(number) == 0, engine.log
            assert [each["type"] for each in await account.working()] == ["stop"]
            assert "shutdown.position_left" in engine.log
            return engine

    engine = asyncio.run(story())
    assert ending(engine.url) == ("stopped", number.name, False)


def test_shares_without_a_stop_at_the_broker_make_it_a_failure_that_says_so(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    async def story() -> EngineProcess:
        async with holding(tmp_path, migrated_sqlite) as (account, engine, conductor):
            book = conductor.market.book
            book.restrictions = replace(book.restrictions, suspend_trade=True)
            (stop,) = await account.working()
            await account.cancel(stop)
            await engine.says("refused")
            assert await engine.stops() == 1
            return engine

    engine = asyncio.run(story())
    outcome, reason, has_lease = ending(engine.url)
    assert (outcome, has_lease) == ("failed", False)
    assert reason == "SIGTERM; no stop works at the broker for AAPL"


def test_an_engine_that_is_stopped_while_it_starts_protects_first_what_it_finds(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    async def story() -> EngineProcess:
        async with holding(tmp_path, migrated_sqlite) as (account, engine, conductor):
            engine.kill()
            (stop,) = await account.working()
            await account.cancel(stop)
            second = EngineProcess(conductor.market.urls, tmp_path, engine.url, log_level="DEBUG")
            await second.says("work=take_lease")
            assert await second.stops() == 0, second.log
            assert [(each["type"], each["qty"]) for each in await account.working()] == [("stop", "10")]
            return second

    engine = asyncio.run(story())
    assert ending(engine.url) == ("stopped", "SIGTERM", False)


def test_an_engine_that_could_not_ask_the_broker_before_it_was_stopped_says_so(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    silence = Schedule(faults=(Fault(on=On.FILLS, kind=Kind.HANG, number=1, times=9, seconds=600),))

    async def story() -> EngineProcess:
        url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
        async with Conductor(script("100|" * 30), patience_seconds=600, faults=silence) as conductor:
            conductor.lockstep.detach()
            engine = EngineProcess(conductor.market.urls, tmp_path, url, log_level="DEBUG")
            try:
                await engine.says("work=start_run")
                assert await engine.stops() == 1, engine.log
            finally:
                engine.kill()
            return engine

    engine = asyncio.run(story())
    assert ending(engine.url) == ("failed", "SIGTERM; ledger and broker were not compared", False)


def test_a_second_signal_ends_it_at_once_and_the_stop_stays(tmp_path: Path, migrated_sqlite: Path) -> None:
    async def story() -> None:
        async with holding(tmp_path, migrated_sqlite) as (account, engine, _):
            engine.process.send_signal(signal.SIGTERM)
            engine.process.send_signal(signal.SIGINT)
            assert await engine.ends() == 130
            assert [each["type"] for each in await account.working()] == ["stop"]

    asyncio.run(story())


def test_a_second_engine_is_refused_and_a_dead_ones_place_is_free(tmp_path: Path, migrated_sqlite: Path) -> None:
    async def story() -> EngineProcess:
        async with holding(tmp_path, migrated_sqlite) as (account, engine, conductor):
            second = EngineProcess(conductor.market.urls, tmp_path, engine.url)
            assert await second.ends() == 1
            assert f"Another engine (engine {engine.process.pid} on " in second.log
            engine.kill()
            third = EngineProcess(conductor.market.urls, tmp_path, engine.url)
            try:
                await third.says("gone=0", times=2)
                assert len(await account.working()) == 1
                assert await third.stops() == 0, third.log
            finally:
                third.kill()
            return third

    assert ending(asyncio.run(story()).url)[0] == "stopped"
