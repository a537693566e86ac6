"""From the last bar of a minute leaving the market to the orders arriving there: five symbols, real sockets, SQLite.

    .venv/bin/python benchmarks/bar_to_order.py [--orders 50]

All five symbols give a signal in the same minute, again and again; the built-in market, in a process of its own, plays
a minute in two seconds and notes when the minute's last frame left and when each order request arrived. Meanwhile
another process writes to the engine's database twenty times a second. Prints one JSON object; times in milliseconds.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine_process import KEYS, Engine, machine, percentiles, running
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.market import Market
from trading.simulator.orders import BrokerOrder
from trading.simulator.tickets import Ticket

SYMBOLS = ("AAPL", "AMD", "META", "NVDA", "TSLA")
DAY, DAY_BEFORE = date(2024, 3, 5), date(2024, 3, 4)
SPEED = 30.0
CYCLE_MINUTES = 8  # a signal, its entry's expiry, and flat averages again
WRITES_PER_SECOND = 20
SETTINGS = {
    "WATCHLIST": ",".join(SYMBOLS), "STRATEGIES": "velez", "VELEZ__SMA_FAST": "5", "VELEZ__SMA_SLOW": "100",
    "VELEZ__CANDLE_INTERVAL_MINUTES": "1", "RISK__MAX_ORDERS_PER_MINUTE": "1000", "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "json",
}  # fmt: skip


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=50, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.orders), indent=2))
    return 0


def measure(folder: Path, orders: int) -> dict[str, Any]:
    """Waits for so many orders."""
    waits: list[float] = []
    with running(folder, play, settings=SETTINGS) as (engine, market):
        engine.until(engine.is_trading)
        stopped = threading.Event()
        admin = threading.Thread(target=_write_beside, args=(folder / "trading.db", stopped))
        admin.start()

        def has_enough() -> bool:
            while market.poll():
                waits.append(market.recv())
            return len(waits) >= orders

        try:
            engine.until(has_enough)
        finally:
            stopped.set()
            admin.join()
        on = machine()
        engine.stop()
        return {
            "machine": on,
            "orders": len(waits),
            "bar_to_order_ms": percentiles(waits),
            "write_transactions": len(written := _writes(engine)),
            "write_transaction_ms": percentiles(written),
        }


def _writes(engine: Engine) -> list[float]:
    lines = (json.loads(line) for line in engine.log.splitlines() if '"ledger.write"' in line)
    return [float(line["duration_ms"]) for line in lines]


def _write_beside(path: Path, stopped: threading.Event) -> None:
    """What an admin's page does: short transactions on the same file."""
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE written_beside (at TEXT NOT NULL)")
        while not stopped.wait(1 / WRITES_PER_SECOND):
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO written_beside VALUES (?)", (str(time.time()),))
            database.execute("COMMIT")


# --- the market -------------------------------------------------------------------------------------------------------


class TimedMarket(Market):
    """Tells how long after a minute's last frame each entry arrived, in milliseconds."""

    def __init__(self, told: Connection, **options: Any) -> None:
        super().__init__(**options)
        self._told = told
        self._left_at = 0.0
        self._submit = self.book.submit
        self.book.submit = self._timed  # type: ignore[method-assign]

    def _timed(self, ticket: Ticket, *, now: datetime) -> BrokerOrder:
        arrived = time.perf_counter()
        order = self._submit(ticket, now=now)
        self._told.send((arrived - self._left_at) * 1000)
        return order

    async def _step(self, session: Session) -> None:
        await super()._step(session)
        self._left_at = time.perf_counter()


class Signals:
    """Flat at 100 dollars, with one strong green candle every few minutes that nothing follows."""

    is_endless = False
    description = "signals"
    symbols = SYMBOLS

    def __init__(self) -> None:
        self._sessions = calendar.sessions(DAY_BEFORE, DAY)
        self.first = self._sessions[1].open

    def knows(self, symbol: str) -> bool:
        return symbol in SYMBOLS

    def sessions(self, start: date, end: date) -> list[Session]:
        return [session for session in self._sessions if start <= session.date <= end]

    def next_session(self, after: datetime) -> Session | None:
        return next((session for session in self._sessions[1:] if session.open > after), None)

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        length = (session.close - session.open) // MINUTE
        return [_bar(symbol, session, minute) for minute in range(length)]


def _bar(symbol: str, session: Session, minute: int) -> Bar:
    flat = Decimal(100)
    top = Decimal("100.50") if session.date == DAY and minute % CYCLE_MINUTES == CYCLE_MINUTES - 1 else flat
    return Bar(
        symbol=symbol, timestamp=session.open + minute * MINUTE, open=flat, high=top, low=flat, close=top, volume=10_000
    )  # fmt: skip


def play(told: Connection) -> None:
    """The market's process."""

    async def run() -> None:
        market = TimedMarket(told, bars=Signals(), account_number="LOAD", keys=KEYS, speed=SPEED)
        await market.start()
        told.send(market.urls)
        market.begin()
        await market.run()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
