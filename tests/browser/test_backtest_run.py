"""A backtest started in the browser goes from waiting to its result by itself, over the real background worker."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser, expect
from pytest_django import DjangoDbBlocker

from tests.browser import steady_market
from tests.browser.conftest import ROOT, Server, browsing, server, sign_in
from tests.browser.servers import PASSWORD

SYMBOLS = ("AAPL", "TSLA")
WORKED_MS = 120_000


def add_viewer() -> None:
    """A second login, which may look and not start anything."""
    viewer = User.objects.create(username="viewer", password=User.objects.get(username="operator").password)
    viewer.groups.add(Group.objects.get(name="viewer"))


@pytest.fixture(scope="module")
def pages(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Server]:
    """The pages on a store of three days of bars; no worker yet."""
    bars = steady_market.write_bars(tmp_path_factory.mktemp("bars") / "bars", SYMBOLS)
    folder = tmp_path_factory.mktemp("moves")
    with server(migrated_sqlite, folder, django_db_blocker, fill=add_viewer) as program:
        imported = program.manage("importbars", *(str(bars / f"{symbol}.csv") for symbol in SYMBOLS))
        assert imported.returncode == 0, imported.stderr
        process = program.start("-m", "daphne", "-p", str(program.port), "algotrader.asgi:application")
        yield program
        process.kill()
        process.wait()


def test_a_run_waits_for_its_worker_and_ends_on_two_open_pages_of_which_one_may_only_look(
    pages: Server, chromium: Browser, tmp_path: Path
) -> None:
    with browsing(chromium, complaints=[]) as trader, browsing(chromium, complaints=[]) as viewer:
        sign_in(trader, f"{pages.url}/backtests/new/")
        trader.get_by_label("Symbols").fill(", ".join(SYMBOLS))
        trader.locator("[name=start_date]").fill("2024-03-05")
        trader.locator("[name=end_date]").fill(steady_market.DAY)
        trader.get_by_role("button", name="Start backtest").click()
        expect(trader).to_have_url(re.compile(r"/backtests/\d+/"))
        expect(trader.locator("main")).to_contain_text(re.compile("waiting|queued", re.IGNORECASE))
        viewer.goto(trader.url)
        viewer.get_by_label("User name").fill("viewer")
        viewer.get_by_label("Password").fill(PASSWORD)
        viewer.get_by_role("button", name="Sign in").click()
        expect(viewer.locator("main")).to_contain_text(re.compile("waiting|queued", re.IGNORECASE))
        with (tmp_path / "worker").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "manage.py", "qcluster"], cwd=ROOT, env=pages.environment, stdout=log, stderr=log
            )
        try:
            for window in (trader, viewer):
                expect(window.locator("main")).to_contain_text("Final equity", timeout=WORKED_MS)
        finally:
            worker.terminate()
            worker.wait(30)
        expect(trader.get_by_role("link", name=re.compile("again", re.IGNORECASE))).to_be_visible()
        expect(viewer.get_by_role("link", name=re.compile("again", re.IGNORECASE))).to_have_count(0)
        answer = viewer.goto(f"{pages.url}/backtests/new/")
        assert answer is not None
        assert answer.status == 403
