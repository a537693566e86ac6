"""Part of `make bench-pages`: from a fill leaving the broker to its line on an open dashboard."""

import subprocess
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.engine_process import MANAGE, machine, percentiles, running
from benchmarks.market_process import DAY, MadeBars, play
from tests.browser.every_page import MAKE_LOGIN
from tests.browser.servers import sign_in
from trading.market import MINUTE, Bar, Session

SPEED = 30.0
SIGNALS = (24, 36)  # minutes of the session; ten losses in a row, the most that may be allowed, are twenty fills
SETTINGS = {
    "WATCHLIST": "AAPL,AMD,META,NVDA,TSLA", "STRATEGIES": "velez", "VELEZ__SMA_FAST": "5", "VELEZ__SMA_SLOW": "100",
    "VELEZ__CANDLE_INTERVAL_MINUTES": "1", "RISK__MAX_ORDERS_PER_MINUTE": "1000", "RISK__CONSECUTIVE_LOSS_PAUSE": "10",
    "VELEZ__BUY_STOP_EXPIRY_CANDLES": "2",
}  # fmt: skip
WATCH = """
window.fills = [];
document.addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
  for (const item of changes.flatMap((change) => [...change.addedNodes])) {
    if (item.dataset?.type !== "order_filled") continue;
    window.fills.push([item.dataset.symbol, (performance.timeOrigin + performance.now()) / 1000]);
  }
}).observe(document.getElementById("activity") ?? document.body, { childList: true }));
"""


class EntriesAndStops(MadeBars):
    """Flat at 100 dollars; after each signal rises that fill the entry, and then a fall that fills its stop.

    The built-in market shows a minute only to orders that were there when it began, so each comes twice.
    """

    symbols = tuple(SETTINGS["WATCHLIST"].split(","))
    eventful = (
        ("100", "100.50"), ("100.50", "100.80"), ("100.80", "100.80"), ("100.80", "100.80"),
        ("100.80", "99"), ("99", "99"),
    )  # fmt: skip

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """The day before is flat throughout."""
        length = (session.close - session.open) // MINUTE
        return [self._bar(symbol, session, minute) for minute in range(length)]

    def _bar(self, symbol: str, session: Session, minute: int) -> Bar:
        signals = SIGNALS if session.date == DAY else ()
        after = next((minute - each for each in signals if 0 <= minute - each < len(self.eventful)), None)
        opened, closed = map(Decimal, ("100", "100") if after is None else self.eventful[after])
        return Bar(
            symbol=symbol, timestamp=session.open + timedelta(minutes=minute), open=opened, high=max(opened, closed),
            low=min(opened, closed), close=closed, volume=10_000,
        )  # fmt: skip


def fill_to_page(browser: Browser) -> dict[str, Any]:
    """Waits for all fills. Market, engine with its pages, and browser are processes of one machine with one clock."""
    expected = 2 * len(SIGNALS) * len(EntriesAndStops.symbols)
    left: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as data:
        market_process = partial(play, EntriesAndStops(), SPEED)
        with running(Path(data), market_process, settings=SETTINGS, arguments=()) as (engine, market):
            engine.until(engine.is_trading)
            subprocess.run(
                [*MANAGE, "shell", "-v0", "-c", MAKE_LOGIN], env=engine.environment, check=True, capture_output=True
            )
            page = browser.new_context().new_page()
            page.add_init_script(WATCH)
            sign_in(page, f"http://127.0.0.1:{engine.environment['ALGO_WEB__PORT']}")
            page.wait_for_selector("#positions-empty")

            def all_are_there() -> bool:
                page.wait_for_timeout(100)  # lets the browser tell
                while market.poll():
                    match market.recv():
                        case ("fill", symbol, seconds):
                            left.append((symbol, seconds))
                return len(left) >= expected and len(page.evaluate("fills")) >= expected

            engine.until(all_are_there)
            shown = page.evaluate("fills")
            on = machine()
            engine.stop()
            page.context.close()
    waits = []
    for symbol in EntriesAndStops.symbols:
        moments = [[at for name, at in those if name == symbol] for those in (left, shown)]
        waits += [(there - here) * 1000 for here, there in zip(*moments, strict=True)]
    return {"page": "fill on the dashboard", "machine": on, "fills": len(waits), "fill_to_page_ms": percentiles(waits)}
