"""A backtest started in the browser goes from waiting to its result by itself, over the real background worker."""

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ROOT, Serve, Server, add_login, browsing, sign_in
from tests.browser.every_page import write_synthetic_bars

SYMBOLS = ("AAPL", "AMD", "TSLA")
FIRST_DAY, LAST_DAY = date(2025, 3, 4), date(2025, 10, 31)
WORKED_MS = 120_000
NOTE_PROGRESS = """
new MutationObserver(() => {
  const bar = document.querySelector("progress");
  const shown = JSON.parse(sessionStorage.shown ?? "[]");
  if (bar && shown.at(-1) !== bar.value) sessionStorage.shown = JSON.stringify([...shown, bar.value]);
}).observe(document, { childList: true, subtree: true });
"""


@pytest.fixture(scope="module")
def program(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The pages on a store of eight months of bars; no worker yet."""
    folder = tmp_path_factory.mktemp("bars")
    bars = write_synthetic_bars(folder, SYMBOLS, seed=1, first=FIRST_DAY, last=LAST_DAY)
    program = serve(fill=lambda: add_login("viewer"))
    imported = program.manage("importbars", *map(str, bars))
    assert imported.returncode == 0, imported.stderr
    return program


def test_a_run_waits_for_its_worker_moves_on_and_ends_on_two_open_pages_of_which_one_may_only_look(
    program: Server, chromium: Browser, tmp_path: Path
) -> None:
    with browsing(chromium, complaints=[]) as trader, browsing(chromium, complaints=[]) as viewer:
        sign_in(trader, f"{program.url}/backtests/new/")
        trader.get_by_label("Symbols").fill(", ".join(SYMBOLS))
        trader.locator("[name=start_date]").fill(FIRST_DAY.isoformat())
        trader.locator("[name=end_date]").fill(LAST_DAY.isoformat())
        trader.get_by_role("button", name="Start backtest").click()
        expect(trader).to_have_url(re.compile(r"/backtests/\d+/"))
        expect(trader.locator("main")).to_contain_text(re.compile("waiting|queued", re.IGNORECASE))
        viewer.add_init_script(NOTE_PROGRESS)
        sign_in(viewer, trader.url, name="viewer")
        expect(viewer.locator("main")).to_contain_text(re.compile("waiting|queued", re.IGNORECASE))
        with (tmp_path / "worker").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "manage.py", "qcluster"], cwd=ROOT, env=program.environment, stdout=log, stderr=log
            )
        try:
            for window in (trader, viewer):
                expect(window.locator("main")).to_contain_text("Final equity", timeout=WORKED_MS)
        finally:
            worker.terminate()
            worker.wait(30)
        shown = json.loads(viewer.evaluate("sessionStorage.shown"))
        assert shown == sorted(shown)
        assert any(0 < share < 100 for share in shown), shown
        expect(trader.get_by_role("link", name=re.compile("again", re.IGNORECASE))).to_be_visible()
        expect(viewer.get_by_role("link", name=re.compile("again", re.IGNORECASE))).to_have_count(0)
        answer = viewer.goto(f"{program.url}/backtests/new/")
        assert answer is not None
        assert answer.status == 403
