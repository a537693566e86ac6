"""Replays that several tests look at: each is played once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.simulation.engines import REPLAYS, Engine


@pytest.fixture(autouse=True)
def databases_of_the_engines(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """They may be read."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session")
def replays(
    migrated_sqlite: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Engine]]:
    """An engine for each replay, all of them under way."""
    engines = {}
    for name, (strategies, symbols, start, end, settings) in REPLAYS.items():
        span = ("--symbols", symbols, "--start-date", start, "--end-date", end)
        engines[name] = Engine(
            migrated_sqlite,
            tmp_path_factory.mktemp("replay") / "data",
            *("--data", str(shared_data / "stockbot2018"), *span),
            settings={"strategies": strategies, **settings},
        )
    yield engines
    for engine in engines.values():
        engine.process.kill()
        engine.process.wait()
