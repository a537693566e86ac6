"""`manage.py flatten` against a market in a process of its own, with the engine running, hung, dead, or never there."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from django.db import connection
from pytest_django import DjangoDbBlocker

from orders import store as order_store
from orders.lifecycle import Role
from risk import store as risk_store
from tests import databases
from tests.live.alpaca_peer import Answer, Peer
from tests.live.engine_on_peer import Stage
from tests.live.engine_process import PATIENCE_SECONDS, ROOT, Account, EngineProcess, environment
from trading import store

KEYS = ("simulator", "simulator")
ACCOUNT = "alpaca:SIM-1"
STOP_ID = "00000000-0000-4000-8000-000000000077"


@pytest.fixture(autouse=True)
def ledgers_may_be_read(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests look into the engines' databases."""
    with django_db_blocker.unblock():
        yield


class Scene:
    """A market, an account with 10 AAPL and 5 TSLA that somebody bought, and the engine's data folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.urls: dict[str, str] = {}
        self.engine: EngineProcess | None = None
        self.chance = random.Random(1)
        self.open_market()
        for symbol, qty in (("AAPL", "10"), ("TSLA", "5")):
            order = {"symbol": symbol, "qty": qty, "side": "buy", "type": "market", "time_in_force": "day"}
            self.account.call("POST", "/v2/orders", json=order)
        self.until(lambda: len(self.held()) == 2)

    def open_market(self) -> None:
        """The market's process, on the account as it was left."""
        self.market = subprocess.Popen(
            [sys.executable, "manage.py", "runmarket", "--port", "0", "--speed", "1", "--symbols", "AAPL,TSLA"],
            cwd=ROOT,
            env=environment({}, self.folder / "market", self.url, keys=("", ""), broker__provider="simulator"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.market.stdout is not None
        for line in self.market.stdout:
            name, _, value = line.strip().partition("=")
            if name.endswith("URL"):
                self.urls[name.removeprefix("ALGO_BROKER__").lower()] = value
            if name.endswith("SECRET_KEY"):
                break
        self.account = Account(self.urls["trading_url"], KEYS)

    def close_market(self) -> None:
        """Ends the market's process."""
        self.market.kill()
        self.market.wait()
        assert self.market.stdout is not None
        self.market.stdout.close()

    def held(self) -> dict[str, int]:
        return {each["symbol"]: int(each["qty"]) for each in self.account.call("GET", "/v2/positions")}

    def working(self) -> list[tuple[str, str]]:
        return sorted((each["symbol"], each["type"]) for each in self.account.call("GET", "/v2/orders?status=open"))

    def start(self, **settings: str) -> EngineProcess:
        """An engine that has taken the shares over and protects them."""
        self.engine = EngineProcess(
            self.urls, self.folder, self.url, keys=KEYS, watchlist="AAPL,TSLA", web__port="9", **settings
        )
        self.until(lambda: self.working() == [("AAPL", "stop"), ("TSLA", "stop")])
        self.until(lambda: "stream=bars" in self.log())
        return self.engine

    def log(self) -> str:
        return self.engine.log if self.engine else ""

    def hang_outside_a_transaction(self) -> None:
        """The engine is stopped where the ledger is free."""
        assert self.engine is not None
        self.until(lambda: self._is_hanging() and not self._holds_ledger())

    def hang_within_a_transaction(self) -> None:
        """The engine is stopped where it holds the ledger: a slow heartbeat is what makes the moment long enough."""
        assert self.engine is not None
        count = "WITH RECURSIVE row(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM row WHERE n < 3000000)"
        with closing(sqlite3.connect(self.folder / "trading.db", isolation_level=None)) as ledger:
            ledger.execute(
                "CREATE TRIGGER slowly BEFORE UPDATE ON engine_lease "
                f"BEGIN SELECT (SELECT max(n) FROM ({count} SELECT n FROM row)); END"
            )
        self.until(lambda: self._is_hanging() and self._holds_ledger())

    def _is_hanging(self) -> bool:
        """Goes on for a moment that differs each time, and is stopped again."""
        assert self.engine is not None
        self.engine.process.send_signal(signal.SIGCONT)
        time.sleep(self.chance.uniform(0.001, 0.05))
        self.engine.process.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        return True

    def _holds_ledger(self) -> bool:
        with closing(sqlite3.connect(self.folder / "trading.db", timeout=0, isolation_level=None)) as ledger:
            try:
                ledger.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            ledger.execute("ROLLBACK")
            return False

    def hang_at_the_server(self, table: str, rows: str = "") -> None:
        """The engine is stopped as soon as its transaction updates a row of that PostgreSQL table, and holds it.

        With `rows` it has locked those of another table as well. A slow server is what makes the moment long enough.
        """
        assert self.engine is not None
        lock = f"PERFORM 1 FROM {rows} FOR UPDATE;" if rows else ""
        is_slow = f"BEGIN {lock} PERFORM pg_sleep(1); RETURN NEW; END"
        function = "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ {} $$"
        is_seen = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {}"
        with databases.default_database(self.url), connection.cursor() as cursor:

            def answers(where: str) -> bool:
                cursor.execute(is_seen.format(where))
                return bool(cursor.fetchone()[0])

            cursor.execute(function.format(is_slow))
            cursor.execute(f"CREATE TRIGGER slowly BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION slowly()")
            self.until(lambda: answers("wait_event = 'PgSleep'"))
            self.engine.process.send_signal(signal.SIGSTOP)
            self.until(lambda: answers("state = 'idle in transaction' AND backend_xid IS NOT NULL"))
            cursor.execute(function.format("BEGIN RETURN NEW; END"))

    def flatten(self, **settings: str) -> subprocess.CompletedProcess[str]:
        variables = environment(
            self.urls, self.folder, self.url, keys=KEYS, watchlist="AAPL,TSLA", log_level="CRITICAL", **settings
        )
        return subprocess.run(
            [sys.executable, "manage.py", "flatten", "--yes"],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.1)

    def end(self) -> None:
        if self.engine is not None:
            self.engine.kill()
        self.close_market()

    def ledger(self) -> dict[str, Any]:
        """What is in the ledger: it is whole, halted, and holds nothing."""
        with databases.default_database(self.url):
            orders = sorted(order_store.recent_orders(ACCOUNT, limit=1000), key=lambda each: each.local_id)
            assert sorted(order_store.rebuild(ACCOUNT), key=lambda each: each.local_id) == orders
            return {
                "halted": risk_store.is_halted(ACCOUNT),
                "unfinished": len(order_store.unfinished_orders(ACCOUNT)),
                "exits": sorted((each.symbol, int(each.qty_filled)) for each in orders if each.role is Role.EXIT),
                "trades": sorted(
                    (each.trade.symbol, int(each.trade.qty)) for each in order_store.recent_trades(ACCOUNT)
                ),
                "lease": store.live_lease(),
            }


CLOSED = [("AAPL", 10), ("TSLA", 5)]


@pytest.fixture
def scene(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Scene]:
    """The market and the account."""
    (tmp_path / "market").mkdir()
    scene = Scene(tmp_path, databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db"))
    yield scene
    scene.end()


@pytest.fixture
def scene_on_postgres(tmp_path: Path, migrated_postgres: str) -> Iterator[Scene]:
    """The same with the ledger on PostgreSQL."""
    (tmp_path / "market").mkdir()
    with databases.copied_postgres(migrated_postgres, f"algotrader_test_{os.getpid()}_flatten") as url:
        scene = Scene(tmp_path, url)
        yield scene
        scene.end()


def is_proven(done: subprocess.CompletedProcess[str]) -> bool:
    """It says what was there and that nothing is."""
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Halted: no new entries until somebody resumes." in lines[:2]
    assert "Before: 2 positions, 2 working orders at the broker." in lines
    assert "After: 0 positions, 0 working orders at the broker." in lines
    return lines[-1] == "Flat: the broker shows no position and no working order."


def test_a_running_engine_does_it(scene: Scene) -> None:
    engine = scene.start()
    done = scene.flatten()
    assert is_proven(done)
    assert f"The engine (process {engine.process.pid} on " in done.stdout
    assert (scene.held(), scene.working()) == ({}, [])
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(PATIENCE_SECONDS) == 0, engine.log
    assert scene.ledger() == {"halted": True, "unfinished": 0, "exits": CLOSED, "trades": CLOSED, "lease": None}


def test_past_an_engine_that_hangs_and_that_touches_nothing_when_it_wakes_up(scene: Scene) -> None:
    engine = scene.start()
    scene.hang_outside_a_transaction()
    done = scene.flatten()
    assert is_proven(done)
    assert "It does not answer within 5 s: closing past it." in done.stdout
    assert (scene.held(), scene.working()) == ({}, [])
    engine.process.send_signal(signal.SIGCONT)
    assert engine.process.wait(PATIENCE_SECONDS) == 1, engine.log
    assert "another" in engine.log
    assert (scene.held(), scene.working()) == ({}, [])
    assert scene.ledger() == {"halted": True, "unfinished": 0, "exits": CLOSED, "trades": CLOSED, "lease": None}


def test_an_engine_that_hangs_within_a_transaction_is_ended_first(scene: Scene) -> None:
    engine = scene.start()
    scene.hang_within_a_transaction()
    done = scene.flatten()
    assert is_proven(done)
    assert f"The engine (process {engine.process.pid}) hangs and holds the ledger: it was ended" in done.stdout
    assert engine.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert (scene.held(), scene.working()) == ({}, [])
    assert scene.ledger() == {"halted": True, "unfinished": 0, "exits": CLOSED, "trades": CLOSED, "lease": None}


def test_after_an_engine_that_is_dead_and_the_next_one_finds_nothing_to_do(scene: Scene) -> None:
    engine = scene.start()
    engine.kill()
    with databases.default_database(scene.url):
        lease = store.live_lease()
        assert lease is not None
    assert is_proven(scene.flatten())
    assert (scene.held(), scene.working()) == ({}, [])
    books = scene.ledger()
    assert books == {"halted": True, "unfinished": 0, "exits": CLOSED, "trades": CLOSED, "lease": None}
    again = scene.engine = EngineProcess(scene.urls, scene.folder, scene.url, keys=KEYS, watchlist="AAPL,TSLA")
    scene.until(lambda: again.log.count("gone=0") >= 2)
    assert "strays=0 unknown=0" in again.log
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(PATIENCE_SECONDS) == 0, again.log
    assert scene.ledger() == books


def wakes_up_and_touches_nothing(engine: EngineProcess, scene: Scene) -> None:
    """The hung engine goes on, finds itself replaced, and ends with status 1."""
    engine.process.send_signal(signal.SIGCONT)
    assert engine.process.wait(PATIENCE_SECONDS) == 1, engine.log
    assert (scene.held(), scene.working()) == ({}, [])
    assert scene.ledger() == {"halted": True, "unfinished": 0, "exits": CLOSED, "trades": CLOSED, "lease": None}


def test_past_an_engine_that_hangs_with_its_ledger_on_postgresql(scene_on_postgres: Scene) -> None:
    scene = scene_on_postgres
    engine = scene.start()
    engine.process.send_signal(signal.SIGSTOP)
    done = scene.flatten()
    assert is_proven(done)
    assert "closing past it." in done.stdout
    assert (scene.held(), scene.working()) == ({}, [])
    wakes_up_and_touches_nothing(engine, scene)


@pytest.mark.parametrize("rows", ["", "trading_session"])
def test_past_an_engine_that_hangs_within_a_transaction_on_postgresql(scene_on_postgres: Scene, rows: str) -> None:
    """Its heartbeat holds the lease; or, with the account's day as well, even a halt would wait for it."""
    scene = scene_on_postgres
    engine = scene.start()
    scene.hang_at_the_server("engine_lease", rows)
    done = scene.flatten()
    assert is_proven(done)
    assert "held the ledger for" in done.stdout
    assert (scene.held(), scene.working()) == ({}, [])
    wakes_up_and_touches_nothing(engine, scene)


def test_past_an_engine_that_hangs_while_it_takes_the_request_up(scene_on_postgres: Scene) -> None:
    scene = scene_on_postgres
    engine = scene.start()
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(scene.flatten)
        scene.hang_at_the_server("operator_request")
        done = asked.result()
    assert is_proven(done)
    assert "The engine cannot be asked" in done.stdout
    assert (scene.held(), scene.working()) == ({}, [])
    wakes_up_and_touches_nothing(engine, scene)


async def flattened_at_night(folder: Path, url: str) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """12 AAPL and their stop, at a broker that answers as the test says and in whose New York it is 18:30.

    The built-in market is never closed for long. With what the command did comes what it sent.
    """
    async with Peer() as peer:
        stage = Stage(peer, folder)
        stage.script()
        peer.on("GET", "/market/clock", {"now": "2026-08-12T22:30:00Z", "speed": 1.0})
        peer.on("GET", "/v2/assets/AAPL", {"symbol": "AAPL", "status": "active", "tradable": True})
        stage.holds("AAPL", "12", "103")
        stage.works(STOP_ID, symbol="AAPL", client_order_id="by-hand", side="sell", qty="12", stop_price="99")

        async def canceled(_request: web.Request) -> Answer:
            stage.orders[STOP_ID] |= {"status": "canceled"}
            return Answer(status=204, text="")

        async def waits(request: web.Request) -> Any:
            order = await stage._taken(request)
            order |= {"status": "accepted", "qty": "12"}
            return order

        peer.on("DELETE", f"/v2/orders/{STOP_ID}", canceled)
        peer.on("POST", "/v2/orders", waits)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "manage.py", "flatten", "--yes"),
            cwd=ROOT,
            env=environment(
                {
                    "trading_url": peer.url, "trading_stream_url": peer.trading_stream_url, "data_url": peer.url,
                    "data_stream_url": peer.data_stream_url,
                },
                folder, url, keys=("key", "secret"), watchlist="AAPL", log_level="CRITICAL",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = (each.decode() for each in await process.communicate())
        assert process.returncode is not None
        done = subprocess.CompletedProcess([], process.returncode, output, errors)
        return done, [request.body for request in peer.asked("POST", "/v2/orders")]


def test_while_the_market_is_closed_sales_wait_for_the_open_and_it_is_not_done(
    tmp_path: Path, migrated_sqlite: Path
) -> None:
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    done, bodies = asyncio.run(flattened_at_night(tmp_path, url))
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert lines[:2] == ["Halted: no new entries until somebody resumes.", "No engine is running: closing directly."]
    assert lines[2:5] == [
        "Before: 1 position, 1 working order at the broker.",
        "  12 AAPL long at 103",
        "  sell 12 AAPL stop at 99 (new)",
    ]
    assert lines[5:] == [
        "After: 1 position, 1 working order at the broker.",
        "  12 AAPL long at 103",
        "  sell 12 AAPL market (accepted)",
    ]
    assert "The market is closed: a market order waits for the open for every position, and no stop" in done.stderr
    assert [(body["side"], body["qty"], body["type"]) for body in bodies] == [("sell", 12, "market")]
    with databases.default_database(url):
        assert risk_store.is_halted("alpaca:PA1")


def test_without_a_ledger_what_the_broker_shows_is_closed(scene: Scene) -> None:
    engine = scene.start()
    engine.kill()
    (scene.folder / "trading.db").write_bytes(b"no database any more" * 1000)
    done = scene.flatten()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("The ledger cannot be written (")
    assert (scene.held(), scene.working()) == ({}, [])


def test_shares_that_are_not_ours_are_left_alone(scene: Scene) -> None:
    before = scene.held()
    done = scene.flatten(adopt_positions="false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "After: 0 positions, 0 working orders at the broker; 2 of somebody else's are left alone." in done.stdout
    assert scene.held() == before


def test_nobody_is_asked_without_a_terminal(scene: Scene) -> None:
    asked = subprocess.run(
        [sys.executable, "manage.py", "flatten"],
        cwd=ROOT,
        env=environment(scene.urls, scene.folder, scene.url, keys=KEYS),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert (asked.returncode, asked.stderr) == (2, "CommandError: nobody can be asked here: give --yes\n")
    assert len(scene.held()) == 2
