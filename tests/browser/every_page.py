"""All pages of a full installation, which has traded and tested, and of an empty one, each with its server."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import steady_market
from tests.browser.servers import PASSWORD, ROOT, Server
from trading.simulator.synthetic import SyntheticBars

SYMBOLS = ("AAPL", "TSLA", "NVDA")
PAGES = {
    "dashboard": "/",
    "orders": "/orders/",
    "trades": "/trades/",
    "backtests": "/backtests/",
    "backtest-new": "/backtests/new/",
    "sweeps": "/sweeps/",
    "sweep-new": "/sweeps/new/",
    "walks": "/walkforwards/",
    "replay": "/replay/",
    "first-steps": "/start/",
    "settings": "/admin/risk/settingsoverride/",
    "notifications": "/admin/trading/notificationchannel/",
    "records": "/admin/",
}
BACKTEST_PAGES = {  # of what `run_backtests` makes
    "backtest": "/backtests/1/",
    "compare": "/backtests/compare/?a=1&b=2",
    "monte-carlo": "/backtests/1/montecarlo/?seed=1",
    "sweep": "/sweeps/1/",
    "walk": "/walkforwards/1/",
}
BACKTESTED = ("AAPL", "AMD", "TSLA")
FIRST_DAY, LAST_DAY = date(2025, 3, 4), date(2025, 4, 30)
WHAT = (
    "--strategy", "velez", "--symbols", ",".join(BACKTESTED), "--slippage", "0.08",
    "--start-date", FIRST_DAY.isoformat(), "--end-date", LAST_DAY.isoformat(),
)  # fmt: skip
GRID = ("--grid", "velez.sma_fast=10,15,20,25", "--grid", "velez.tightness_threshold_pct=0.5,1,2,3")
WALK = f"""
from django.conf import settings
from backtests import tasks
from backtests.request import make_request
from backtests.sweep import make_sweep, parse_grid
first, last = "{FIRST_DAY}", "{LAST_DAY}"
request = make_request(
    strategy="velez", symbols={BACKTESTED!r}, start_date=first, end_date=last, initial_capital="25000",
    params={{"backtest.slippage_per_share": "0.08"}}, config=settings.ALGO, data=None,
)
sweep = make_sweep(request, parse_grid({GRID[1::2]!r}))
walk = tasks.queue_walk(
    sweep, train=15, test=5, is_anchored=False, figure="sharpe_ratio", created_by="operator"
)
tasks.run_walk(walk)
"""
BACKTESTS = (
    ("backtest", *WHAT),
    ("backtest", *WHAT, "--set", "velez.sma_fast=10"),
    ("sweep", *WHAT, *GRID),
    ("shell", "-v0", "-c", WALK),
)
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
        run_backtests(program)
        bars = steady_market.write_bars(folder / "bars-to-replay", SYMBOLS)
        process = program.start(*steady_market.engine_arguments(bars, SYMBOLS, speed=10))
    else:
        process = program.start(*program.pages_alone)
    try:
        yield program
    finally:
        process.terminate()
        process.wait(30)


def run_backtests(program: Server) -> None:
    """Two backtests, a sweep and a walk-forward on two months of the built-in market's bars."""
    folder = program.data_dir / "bars-to-import"
    folder.mkdir()
    files = write_synthetic_bars(folder, BACKTESTED, seed=1, first=FIRST_DAY, last=LAST_DAY)
    for command in (("importbars", *map(str, files)), *BACKTESTS):
        done = program.manage(*command)
        if done.returncode:
            sys.exit(f"{command[0]}: {done.stderr}")


def write_synthetic_bars(folder: Path, symbols: Sequence[str], *, seed: int, first: date, last: date) -> list[Path]:
    """The built-in market's bars of these days as a file for each symbol."""
    market = SyntheticBars(seed=seed, symbols=symbols)
    files = [folder / f"{symbol}.csv" for symbol in symbols]
    for symbol, file in zip(symbols, files, strict=True):
        bars = [bar for session in market.sessions(first, last) for bar in market.session_bars(symbol, session)]
        rows = [f"{b.timestamp:%Y-%m-%dT%H:%M:%SZ},{b.open},{b.high},{b.low},{b.close},{b.volume}" for b in bars]
        file.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]))
    return files


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
