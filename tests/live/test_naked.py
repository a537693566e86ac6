"""Shares without a stop are measured, shown, alarmed, and kept for figures: a real engine on a market in our hands."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.built_in_market import Conductor, script
from tests.live.engine_process import Account, EngineProcess
from trading import store
from trading.messages import ActivityType, Level

ACCOUNT = "alpaca:TEST"


@pytest.fixture(autouse=True)
def ledgers_may_be_read(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests look into the engines' databases."""
    with django_db_blocker.unblock():
        yield


def test_a_position_whose_stop_cannot_be_placed_raises_the_alarm_and_is_kept_for_the_figures(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")

    async def story() -> dict[str, Any]:
        async with Conductor(script("100|" * 30), patience_seconds=600) as conductor:
            await conductor.minute(3)
            conductor.lockstep.detach()  # time moves only as we say from here
            market = conductor.market
            account = Account(market.urls["trading_url"])
            await account.buy(10)
            engine = EngineProcess(market.urls, tmp_path, url, "--seed", "1")
            try:
                stop = await account.one_stop(engine, 10)
                await engine.says("gone=0", times=2)
                market.book.restrictions = replace(market.book.restrictions, suspend_trade=True)
                await account.cancel(stop)
                await engine.says("refused")
                market.now += timedelta(seconds=6)
                await engine.says("without a stop for")
                (position,) = (await engine.api("GET", "dashboard"))["positions"]
                assert position["naked_seconds"] >= 6
                assert position["naked_dollars"] == pytest.approx(1000.1)
                assert position["naked_since"] == "2024-03-04T14:33:00.000000Z"
                market.book.restrictions = replace(market.book.restrictions, suspend_trade=False)
                market.now += timedelta(seconds=40)
                await account.one_stop(engine, 10, other_than=stop["id"])
                await engine.api("POST", "flatten")
                await engine.says("cover.measured")
                assert await account.held() == {}
                figures: dict[str, Any] = await engine.api("GET", "cover")
                assert await engine.stops() == 0, engine.log
                return figures
            finally:
                engine.kill()

    figures = asyncio.run(story())
    assert figures["positions"] == 1
    assert 40 < figures["p50_seconds"] == figures["p99_seconds"] == figures["max_seconds"] < 120
    assert figures["most_dollars"] == "1000.1"
    with databases.default_database(url):
        alarms = [record for _, record in store.activities(ACCOUNT) if "without a stop for" in record.message]
        assert [(alarm.type, alarm.level) for alarm in alarms] == [(ActivityType.NAKED, Level.CRITICAL)]
