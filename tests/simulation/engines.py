"""Engines as processes: the built-in market beside them, alpaca-py and real sockets between, a data folder each."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backtests.outcome import trade_document
from orders import store as order_store
from tests import databases
from trading import store

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
RUNENGINE = ("--provider", "simulator", "--speed", "0", "--no-web", "--no-worker")
OVERNIGHT = {"risk.flatten_minutes_before_close": "0"}
SHORTS = {"velez.allow_short": "true", "opening_range.allow_short": "true"}

# By name: strategies, symbols, first and last session, settings. AOBC lacks minutes on all of these days, TSLA on the
# first; all have the days before for their averages.
REPLAYS: Mapping[str, tuple[str, str, str, str, Mapping[str, str]]] = {
    "missing minutes": ("velez", "TSLA,AOBC", "2018-02-21", "2018-02-21", {}),
    "shorts over a night": ("velez,opening_range", "TSLA,AOBC", "2018-04-04", "2018-04-05", {**SHORTS, **OVERNIGHT}),
    "partial fills": ("velez", "AOBC,AMD", "2018-03-13", "2018-03-13", {"backtest.max_volume_share": "0.002"}),
}


class Engine:
    """One engine's process and what it left behind in its data folder, which gets a copy of `database` if it is new."""

    def __init__(self, database: Path, folder: Path, *arguments: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'trading.db'}"
        if not folder.exists():
            folder.mkdir()
            databases.copied_sqlite(database, folder / "trading.db")
        variables = {f"ALGO_{key.upper().replace('.', '__')}": text for key, text in settings.items()}
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runengine", *RUNENGINE, *arguments],
                cwd=ROOT,
                env={**os.environ, **variables, "ALGO_DATA_DIR": str(folder), "ALGO_ENV_FILE": os.devnull},
                stdout=log,
                stderr=log,
            )

    def stopped(self) -> "Engine":
        """Asked to stop, it does."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> "Engine":
        """The same, once the process has ended as it should."""
        assert self.process.wait(PATIENCE_SECONDS) == 0, self._log.read_text()[-4000:]
        return self

    def read(self, query: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function of a store says about its account."""
        with databases.default_database(self.url):
            run = store.load_run(1)
            assert run is not None
            return query(run.account_id, *arguments, **options)

    def trades(self) -> list[dict[str, Any]]:
        """Its trades as a backtest prints them."""
        recorded = self.read(order_store.recent_trades, limit=None)
        trades = sorted((each.trade for each in recorded), key=lambda each: (each.exit_at, each.symbol, each.entry_at))
        return [trade_document(trade) for trade in trades]

    def event_types(self) -> set[str]:
        """The types of all events of its orders."""
        orders = self.read(order_store.recent_orders, limit=10_000)
        return {event.event_type for order in orders for event in self.read(order_store.events_of, order.local_id)}
