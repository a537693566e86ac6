"""Two engines on one database are refused, on SQLite and on PostgreSQL: real processes that lock, die and come back."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PROGRAM = Path(__file__).with_name("lock_program.py")
ROOT = Path(__file__).resolve().parents[2]
SERVER: dict[str, Any] = {"host": "127.0.0.1", "port": 5432, "user": "postgres"}
Database = dict[str, Any]
Start = Callable[[Database], "Engine"]


class Engine:
    """A process with an EngineLock."""

    def __init__(self, database: Database) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(database)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, method: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(method, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines that end with the test."""
    engines: list[Engine] = []

    def start_one(database: Database) -> Engine:
        engines.append(Engine(database))
        return engines[-1]

    yield start_one
    for engine in engines:
        with engine.process as process:
            process.kill()


def sqlite(path: Path) -> Database:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}


@pytest.fixture
def postgresql() -> Iterator[Database]:
    """A new, empty database on the PostgreSQL server of this machine."""
    name = f"algotrader_lock_{os.getpid()}"
    try:
        server = psycopg.connect(**SERVER, dbname="postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        if os.environ.get("ALGO_TEST_REQUIRE_ALL") == "1":
            raise
        pytest.skip(f"no PostgreSQL on 127.0.0.1:5432: {error}")
    with server:
        server.execute(f"CREATE DATABASE {name}")
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "HOST": SERVER["host"],
            "PORT": SERVER["port"],
            "USER": SERVER["user"],
            "OPTIONS": {"pool": True},
        }
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite(tmp_path / "trading.db")
    found: Database = request.getfixturevalue("postgresql")
    return found


def test_a_second_engine_is_refused_and_told_who_runs(database: Database, start: Start) -> None:
    first, second = start(database), start(database)
    assert first.do("acquire") is None
    kind, text = second.do("acquire")
    assert kind == "AnotherEngine"
    who = f"engine {first.process.pid} on {socket.gethostname()}"
    assert text == (f"Another engine ({who}) runs on this database: stop it first with `manage.py stopengine`.")
    assert first.do("is_held")
    assert not second.do("is_held")


def test_a_stopped_engine_makes_way(database: Database, start: Start) -> None:
    first, second = start(database), start(database)
    first.do("acquire")
    first.do("release")
    assert not first.do("is_held")
    assert second.do("acquire") is None
    assert first.do("acquire")[0] == "AnotherEngine"


def test_an_engine_that_was_killed_makes_way_though_its_children_live_on(database: Database, start: Start) -> None:
    first, second = start(database), start(database)
    first.do("acquire")
    first.kill()
    assert within_seconds(5, lambda: second.do("acquire") is None)


def test_a_lost_connection_is_noticed_and_the_lock_taken_again(postgresql: Database, start: Start) -> None:
    engine = start(postgresql)
    engine.do("acquire")
    disconnect_everybody(postgresql)
    assert not engine.do("is_held")
    assert engine.do("acquire") is None
    assert engine.do("is_held")


def test_an_engine_that_lost_its_lock_does_not_take_it_from_the_next(postgresql: Database, start: Start) -> None:
    first, second = start(postgresql), start(postgresql)
    first.do("acquire")
    disconnect_everybody(postgresql)
    assert second.do("acquire") is None
    assert not first.do("is_held")
    assert first.do("acquire")[0] == "AnotherEngine"


def test_engines_on_two_databases_of_one_server_are_welcome(postgresql: Database, start: Start) -> None:
    first, second = start(postgresql), start(postgresql | {"NAME": "postgres"})
    assert first.do("acquire") is None
    assert second.do("acquire") is None
    assert first.do("is_held")
    assert second.do("is_held")


def test_a_data_folder_replaced_under_the_engine_is_noticed(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    engine = start(sqlite(folder / "trading.db"))
    engine.do("acquire")
    folder.rename(tmp_path / "moved")
    assert not engine.do("is_held")
    folder.mkdir()
    assert engine.do("acquire") is None
    assert engine.do("is_held")


def test_two_paths_to_one_file_are_one_database(tmp_path: Path, start: Start) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "trading.db")
    first, second = start(sqlite(tmp_path / "trading.db")), start(sqlite(tmp_path / "link.db"))
    assert first.do("acquire") is None
    assert second.do("acquire")[0] == "AnotherEngine"


def test_a_lock_that_cannot_be_asked_for_is_said_in_one_line(tmp_path: Path, start: Start) -> None:
    no_folder = sqlite(tmp_path / "nowhere/trading.db")
    no_server = {"ENGINE": "django.db.backends.postgresql", "NAME": "any", "HOST": "127.0.0.1", "PORT": "1"}
    for database, beginning in [(no_folder, "Cannot open the engine's lock file"), (no_server, "Cannot reach the")]:
        kind, text = start(database).do("acquire")
        assert kind == "LockFailed"
        assert text.startswith(beginning)
        assert "\n" not in text


def disconnect_everybody(database: Database) -> None:
    """What a restart of the PostgreSQL server does to its clients."""
    with psycopg.connect(**SERVER, dbname="postgres", autocommit=True) as server:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database["NAME"]])


def within_seconds(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
