"""Engine, pages, worker, PostgreSQL and Redis as processes of their own: each may die, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django_q.models import Success
from django_q.tasks import async_task
from pytest_django import DjangoDbBlocker

from orders import store as order_store
from orders.lifecycle import TERMINAL, OrderState, Role
from tests import databases
from tests.live import postgres_server, split_layout
from tests.live.postgres_server import PostgresServer
from tests.live.split_layout import ROOT, Layout, PageSocket, until
from tests.requirements_for_tests import require
from trading import store

OUTAGE = timedelta(minutes=10)  # of the market: time for several signals


@pytest.fixture
def server(django_db_blocker: DjangoDbBlocker) -> Iterator[PostgresServer]:
    """A PostgreSQL server of the layout's own, with a migrated ledger that the test looks into."""
    with (
        django_db_blocker.unblock(),
        postgres_server.running() as server,
        databases.default_database(server.url),
    ):
        yield server


@pytest.fixture
def layout(server: PostgresServer, tmp_path: Path) -> Iterator[Layout]:
    """All processes, on a database of their own."""
    require(shutil.which("redis-server"), "no redis-server on this machine")
    with split_layout.running(tmp_path, server.url) as layout:
        yield layout


@pytest.fixture
def page(layout: Layout) -> Iterator[PageSocket]:
    """The WebSocket of a page in which somebody has signed in."""
    browser = Client()
    browser.force_login(User.objects.create_user("operator", is_staff=True))
    page = PageSocket(layout.port, browser.cookies[settings.SESSION_COOKIE_NAME].value)
    yield page
    page.close()


class Operator:
    """Somebody who asks the engine for things through whichever web process answers."""

    def __init__(self, layout: Layout) -> None:
        self._url = f"http://127.0.0.1:{layout.port}/api"
        printed = layout.manage("apitoken", "--role", "admin", "--minutes", "60")
        self._headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self._url}/{path}", headers=self._headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def readiness(self) -> int:
        """The status of a web process's answer to whoever asks whether it can do its work."""
        return requests.get(f"{self._url}/health/ready", timeout=30).status_code

    def ask(self, action: str) -> int:
        answer = requests.post(f"{self._url}/{action}", headers=self._headers, timeout=30)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    def done(self, request_id: int) -> None:
        until(lambda: store.find_request(request_id).done_at, "the engine did not do what it was asked")
        assert store.find_request(request_id).error == ""


def last_run() -> store.Run:
    run = store.last_run()
    assert run is not None
    return run


def run_id() -> int:
    return last_run().id


def is_trading() -> bool:
    lease = store.live_lease()
    return lease is not None and lease.state == "running"


def work_is_done() -> None:
    """The worker carries out a task that is asked for now."""
    before = Success.objects.count()
    async_task("math.sqrt", 16)
    until(lambda: Success.objects.count() > before, "the worker does not work")


def assert_ledger_is_the_brokers(layout: Layout) -> None:
    """Orders by state, quantity and average price, and the cash: here as there, with nothing open."""
    account_id = last_run().account_id
    ours = {order.client_order_id[:36]: order for order in order_store.recent_orders(account_id, limit=10_000)}
    theirs = layout.at_the_broker("orders", status="all", limit="500")
    last = {order["client_order_id"][:36]: order for order in sorted(theirs, key=lambda each: each["created_at"])}
    assert last.keys() <= ours.keys()
    assert {ours[unsent].state for unsent in ours.keys() - last.keys()} <= {OrderState.SUBMIT_FAILED}
    for client_order_id, there in last.items():
        order = ours[client_order_id]
        assert order.state in TERMINAL
        assert (str(order.state), order.qty_filled) == (there["status"], Decimal(there["filled_qty"])), order
        if order.avg_fill_price is not None:
            assert order.avg_fill_price == pytest.approx(Decimal(there["filled_avg_price"]), abs=Decimal("0.000001"))
    trades = order_store.recent_trades(account_id, limit=None)
    assert trades
    cash = Decimal(layout.at_the_broker("account")["cash"])
    assert cash == 25_000 + sum(each.trade.pnl for each in trades)


def close_everything(layout: Layout, operator: Operator) -> None:
    """Nothing is held and nothing works, at the broker and in the ledger."""
    operator.done(operator.ask("flatten"))
    until(lambda: layout.at_the_broker("positions") == [], "positions stay open")
    until(lambda: layout.at_the_broker("orders", status="open") == [], "orders stay open")
    until(lambda: operator.get("orders?unfinished_only=true") == [], "the ledger does not hear of it")


def is_covered(layout: Layout) -> bool:
    """At the broker every share that is held has a working stop, and something is held."""
    held = {each["symbol"]: abs(int(each["qty"])) for each in layout.at_the_broker("positions")}
    stops = [each for each in layout.at_the_broker("orders", status="open") if each["type"] == "stop"]
    return held != {} and all(
        any((stop["symbol"], int(stop["qty"])) == (symbol, qty) for stop in stops) for symbol, qty in held.items()
    )


def sent_at_the_broker(layout: Layout) -> set[str]:
    """The client ids of all orders that ever reached the broker."""
    return {order["client_order_id"][:36] for order in layout.at_the_broker("orders", status="all", limit="500")}


def test_each_process_may_be_killed_while_the_market_runs(layout: Layout, page: PageSocket) -> None:
    until(is_trading, "the engine does not trade")
    first_run = run_id()
    page.until_engine_speaks(run_id=first_run)
    operator = Operator(layout)
    assert operator.get("dashboard")["connection"]["status"] == "connected"
    work_is_done()

    for name in ("web 1", "web 2"):
        layout.kill(name)
        operator.done(operator.ask("halt"))  # the other one answers
        layout.start(name)
        page.until_engine_speaks(run_id=first_run)
        operator.done(operator.ask("resume"))
    assert page.connects >= 2

    layout.kill("redis")
    assert operator.get("dashboard")["connection"]["engine"] == "silent"  # what the database knows
    operator.done(operator.ask("halt"))
    layout.start("redis")
    page.until_engine_speaks(run_id=first_run)
    operator.done(operator.ask("resume"))

    layout.kill("worker")
    layout.start("worker")
    work_is_done()

    layout.kill("market")
    layout.start("market")
    page.until_engine_speaks(run_id=first_run)

    layout.kill("engine")
    page.until_engine_is_missed()
    layout.start("engine")
    until(lambda: is_trading() and run_id() > first_run, "the engine does not come back")
    page.until_engine_speaks(run_id=run_id())

    until(lambda: operator.get("trades"), "nothing is traded")
    until(lambda: layout.at_the_broker("positions"), "no position to be closed")
    close_everything(layout, operator)
    assert_ledger_is_the_brokers(layout)
    stopped = layout.manage("stopengine")
    assert (stopped.returncode, stopped.stdout) == (0, "Engine stopped.\n"), stopped.stderr
    assert layout.processes.pop("engine").wait(split_layout.PATIENCE_SECONDS) == 0
    assert layout.stop("web 1") == 0


def test_the_database_may_be_killed_while_shares_are_held(
    layout: Layout, server: PostgresServer, page: PageSocket
) -> None:
    until(is_trading, "the engine does not trade")
    run = run_id()
    page.until_engine_speaks(run_id=run)
    operator = Operator(layout)
    until(lambda: is_covered(layout), "no shares are held under a stop")

    server.kill()
    until(lambda: "ledger.lost" in layout.log("engine"), "the engine does not notice")
    page.until_ledger_is_lost(True)
    assert operator.readiness() == 503
    assert requests.get(f"http://127.0.0.1:{layout.port}/api/health", timeout=30).status_code == 200
    before = sent_at_the_broker(layout)
    working_from = layout.market_time()
    until(lambda: layout.market_time() - working_from > OUTAGE, "the market does not go on")
    assert is_covered(layout)
    during = sent_at_the_broker(layout) - before

    server.start()
    connection.close()  # this test's own was cut as well
    until(lambda: "ledger.regained" in layout.log("engine"), "the engine does not go on")
    page.until_ledger_is_lost(False)
    page.until_engine_speaks(run_id=run)
    until(lambda: operator.readiness() == 200, "the pages do not come back")
    assert (is_trading(), run_id()) == (True, run)  # the same engine, under its lock again
    orders = {
        order.client_order_id[:36]: order for order in order_store.recent_orders(last_run().account_id, limit=10_000)
    }
    assert {orders[sent].role for sent in during} <= {Role.STOP_LOSS, Role.EXIT}
    work_is_done()
    until(lambda: sent_at_the_broker(layout) - before - during, "nothing is traded any more")
    close_everything(layout, operator)
    assert_ledger_is_the_brokers(layout)
    assert layout.stop("engine") == 0


def web_alone(database_url: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`daphne algotrader.asgi:application` to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    ours = {"ALGO_DATABASE_URL": database_url, "ALGO_DATA_DIR": str(folder), "ALGO_ENV_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "daphne", "-p", str(split_layout.free_port()), "algotrader.asgi:application"],
        cwd=ROOT, env=clean | ours | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DROP TABLE order_event", "no tables yet, or not all: run `manage.py migrate`"),
        ("DROP TRIGGER no_delete_trade", "no_delete_trade missing: run `manage.py migrate`"),
    ],
)
def test_the_web_alone_refuses_a_database_that_does_not_protect_its_history(
    sqlite_ledger: str, tmp_path: Path, damage: str, words: str
) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "trading.db") as database:
        database.execute(damage)
    ended = web_alone(sqlite_ledger, tmp_path / "data")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("The pages are not served: ")
    assert line.endswith(words)


def test_the_web_alone_says_in_a_line_that_the_database_or_a_setting_cannot_be_used(tmp_path: Path) -> None:
    away = web_alone(f"{databases.POSTGRES_URL.partition('?')[0]}_that_is_not_there", tmp_path)
    assert (away.returncode, len(away.stderr.splitlines())) == (1, 1), away.stderr
    wrong = web_alone("", tmp_path, ALGO_RISK__MAX_DAILY_LOSS_PCT="0.5")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1), wrong.stderr
    assert "ALGO_RISK__MAX_DAILY_LOSS_PCT" in wrong.stderr
