"""All pages of a full installation, which has traded, and of an empty one, each with its server."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import steady_market
from tests.browser.servers import PASSWORD, ROOT, Server

SYMBOLS = ("AAPL", "TSLA", "NVDA")
PAGES = {
    "dashboard": "/",
    "orders": "/orders/",
    "trades": "/trades/",
    "backtests": "/backtests/",
    "backtest-new": "/backtests/new/",
    "sweeps": "/sweeps/",
    "replay": "/replay/",
    "first-steps": "/start/",
    "settings": "/admin/risk/settingsoverride/",
    "notifications": "/admin/trading/notificationchannel/",
    "records": "/admin/",
}
MAKE_LOGIN = f"""
from django.contrib.auth.models import User
User.objects.create_superuser("operator", password={PASSWORD!r})
"""


@contextmanager
def installation(folder: Path, *, full: bool, command: tuple[str, ...] = ()) -> Iterator[Server]:
    """A new data folder and its server: `command`, else an engine on a still market, or if empty the pages alone."""
    program = Server(folder)
    program.environment.pop("ALGO_TEST_ISOLATED", None)
    for step in (("migrate", "--no-input", "-v0"), ("shell", "-v0", "-c", MAKE_LOGIN)):
        subprocess.run(
            [sys.executable, "manage.py", *step],
            cwd=ROOT,
            env=program.environment,
            check=True,
            capture_output=True,
        )
    if command:
        process = program.start(*command)
    elif full:
        bars = steady_market.write_bars(folder / "bars-to-replay", SYMBOLS)
        process = program.start(*steady_market.engine_arguments(bars, SYMBOLS, speed=10))
    else:
        process = program.start("-m", "daphne", "-p", str(program.port), "algotrader.asgi:application")
    try:
        yield program
    finally:
        process.terminate()
        process.wait(30)


def chromium_path() -> str:
    """The browser. Raises SystemExit with one line if there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("Chromium is not installed.")
    return path


def let_it_trade(program: Server, page: Page) -> None:
    """Waits for the positions, then closes one, so that there is a trade."""
    page.goto(program.url)
    expect(page.locator("#positions tbody tr")).to_have_count(len(SYMBOLS), timeout=120_000)
    page.get_by_role("button", name="Move stop of TSLA").click()
    page.get_by_label("New stop, dollars").fill("100.40")
    page.get_by_role("dialog").get_by_role("button", name="Move stop").click()
    page.get_by_role("button", name="Close the position in NVDA").click()
    page.get_by_role("dialog").get_by_role("button", name="Close at market").click()
    expect(page.locator("#positions tbody tr")).to_have_count(len(SYMBOLS) - 1, timeout=30_000)
    time.sleep(2)


def environment_is_plain() -> None:
    """Nothing of the caller's own configuration may show."""
    for name in [name for name in os.environ if name.startswith("ALGO_")]:
        del os.environ[name]
