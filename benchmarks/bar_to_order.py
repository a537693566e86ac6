"""From the last bar of a minute leaving the market to the orders arriving there: five symbols, real sockets, SQLite.

    .venv/bin/python benchmarks/bar_to_order.py [--orders 60]

All five symbols give a signal in the same minute, again and again. The built-in market, in a process of its own, plays
36 minutes in one; it notes when a minute's frame is about to be sent and when each order request comes in. Meanwhile
another process writes to the engine's database twenty times a second. Prints one JSON object; times in milliseconds.
`write_transaction_ms` is a transaction that writes orders, decisions or activities, from its beginning to its commit,
with its wait for that other process; `write_or_heartbeat_transaction_ms` counts heartbeats as well: that is all that
the engine writes. `write_with_its_wait_ms` is the first with what its statements are made of, its turn in the queue,
and the way there and back. `fsync_ms` is what the disk takes to keep 8 kB; every transaction contains one of these.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine_process import Engine, machine, percentiles, running
from benchmarks.market_process import DAY, MadeBars, play
from trading.market import MINUTE, Bar, Session

SYMBOLS = ("AAPL", "AMD", "META", "NVDA", "TSLA")
SPEED = 36.0  # faster, the engine would wait for its own limit of requests a minute
CYCLE_MINUTES = 8  # a signal, its entry's expiry, and flat averages again
WRITES_PER_SECOND = 20
FSYNCS, FSYNC_BYTES = 200, 8192
WRITES = {"write_batch", "write_once"}
HEARTBEAT = {"beat"}
SETTINGS = {
    "WATCHLIST": ",".join(SYMBOLS), "STRATEGIES": "velez", "VELEZ__SMA_FAST": "5", "VELEZ__SMA_SLOW": "100",
    "VELEZ__CANDLE_INTERVAL_MINUTES": "1", "RISK__MAX_ORDERS_PER_MINUTE": "1000", "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "json",
}  # fmt: skip


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.orders), indent=2))
    return 0


def measure(folder: Path, orders: int = 60) -> dict[str, Any]:
    """Waits for so many orders."""
    waits: list[float] = []
    with running(folder, partial(play, Signals(), SPEED), settings=SETTINGS) as (engine, market):
        engine.until(engine.is_trading)
        stopped = threading.Event()
        admin = threading.Thread(target=_write_beside, args=(folder / "trading.db", stopped))
        admin.start()

        def has_enough() -> bool:
            while market.poll():
                match market.recv():
                    case ("order", seconds):
                        waits.append(seconds * 1000)
            return len(waits) >= orders

        try:
            engine.until(has_enough)
        finally:
            stopped.set()
            admin.join()
        on, fsyncs = machine(), _fsyncs(folder / "written_bare")
        engine.stop()
        transactions, beats = (_durations(engine, work) for work in (WRITES, HEARTBEAT))
        return {
            "machine": on,
            "orders": len(waits),
            "bar_to_order_ms": percentiles(waits),
            "write_transactions": len(transactions),
            "write_transaction_ms": percentiles(transactions),
            "heartbeat_transactions": len(beats),
            "write_or_heartbeat_transaction_ms": percentiles(transactions + beats),
            "write_with_its_wait_ms": percentiles([line["duration_ms"] for line in _logged(engine, "ledger.write")]),
            "fsync_ms": percentiles(fsyncs),
        }


def _durations(engine: Engine, work: set[str]) -> list[float]:
    return [line["duration_ms"] for line in _logged(engine, "ledger.transaction") if line["work"] in work]


def _logged(engine: Engine, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in engine.log.splitlines() if f'"{event}"' in line]


def _write_beside(path: Path, stopped: threading.Event) -> None:
    """What an admin's page does: short transactions on the same file."""
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE written_beside (at TEXT NOT NULL)")
        while not stopped.wait(1 / WRITES_PER_SECOND):
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO written_beside VALUES (?)", (str(time.time()),))
            database.execute("COMMIT")


def _fsyncs(path: Path) -> list[float]:
    """Milliseconds of each of many writes to the end of a file, as the write-ahead log of SQLite is written."""
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(1 / FSYNCS)
    return taken


class Signals(MadeBars):
    """Flat at 100 dollars, with one strong green candle every few minutes that nothing follows."""

    description = "signals"
    symbols = SYMBOLS

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        length = (session.close - session.open) // MINUTE
        return [_bar(symbol, session, minute) for minute in range(length)]


def _bar(symbol: str, session: Session, minute: int) -> Bar:
    flat = Decimal(100)
    top = Decimal("100.50") if session.date == DAY and minute % CYCLE_MINUTES == CYCLE_MINUTES - 1 else flat
    return Bar(
        symbol=symbol, timestamp=session.open + timedelta(minutes=minute), open=flat, high=top, low=flat, close=top,
        volume=10_000,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
