"""The whole market delivered each minute over the data stream: how soon the engine has decided on the last bar.

    .venv/bin/python benchmarks/whole_market.py [--symbols 11000] [--minutes 3] [--history 105]

The built-in market, in a process of its own and at real speed, sends one bar of every symbol a minute. The engine
(`manage.py runengine`) watches them all, on one-minute candles, so that every bar completes one. Prints one JSON
object. Seconds count from the minute's first frame leaving the market until the engine has decided on the last of its
bars; a bar is lost if the engine's own record of the minute lacks it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice, product
from multiprocessing.connection import Connection
from pathlib import Path
from string import ascii_uppercase
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine_process import KEYS, Engine, machine, running
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.market import Market

DAY, DAY_BEFORE = date(2024, 3, 5), date(2024, 3, 4)
HISTORY_MINUTES = 105  # more than the slow average needs
PLAYED_MINUTES = 30
CENT = Decimal("0.01")
SETTLED_SECONDS = 20
SETTINGS = {
    "STRATEGIES": "velez", "VELEZ__SMA_FAST": "5", "VELEZ__SMA_SLOW": "100", "VELEZ__CANDLE_INTERVAL_MINUTES": "1",
}  # fmt: skip


def main() -> int:
    """Measures and prints; exit status 1 when a bar was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=11_000, help="default: %(default)s")
    parser.add_argument("--minutes", type=int, default=3, help="whole minutes to measure; default: %(default)s")
    parser.add_argument("--history", type=int, default=HISTORY_MINUTES, help="minutes to warm up; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.symbols, options.minutes, options.history)
    print(json.dumps(measured, indent=2))
    return 1 if measured["bars_lost"] else 0


def measure(folder: Path, count: int, minutes: int, history: int) -> dict[str, Any]:
    """Starts both, waits for so many whole minutes, and compares what was sent with what was recorded."""
    names = ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=4), count)]
    settings = {**SETTINGS, "WATCHLIST": ",".join(names)}
    with running(folder, play, names, history, settings=settings) as (engine, market):
        engine.until(engine.is_trading)
        ready = time.time()
        warm = engine.megabytes()
        sent: dict[datetime, tuple[float, float]] = {}

        def has_sent() -> bool:
            while market.poll():
                minute, first, last = market.recv()
                if first > ready:
                    sent[minute] = (first, last)
            return len(sent) >= minutes

        engine.until(has_sent)
        time.sleep(SETTLED_SECONDS)
        peak, on = engine.peak_megabytes(), machine()
        stopped = engine.stop()
        return {
            "machine": on,
            "symbols": count,
            "minutes_of_history": history,
            "start_seconds": round(ready - engine.started, 1),
            "megabytes_when_warm": warm,
            **_compare(engine, sent, count),
            "peak_megabytes": peak,
            "shutdown_seconds": stopped,
        }


def _compare(engine: Engine, sent: dict[datetime, tuple[float, float]], count: int) -> dict[str, Any]:
    decided: dict[datetime, float] = {}
    bars: Counter[datetime] = Counter()
    for line in (engine.folder / "runs" / "1" / f"{DAY}" / "bars.csv").read_text().splitlines()[1:]:
        fields = line.split(",")
        minute = datetime.fromisoformat(fields[1])
        bars[minute] += 1
        decided[minute] = max(decided.get(minute, 0), datetime.fromisoformat(fields[7]).timestamp())
    return {
        "seconds_to_last_decision": [round(decided[minute] - first, 2) for minute, (first, _) in sent.items()],
        "seconds_of_sending": [round(last - first, 2) for first, last in sent.values()],
        "bars_lost": sum(count - bars[minute] for minute in sent),
    }


# --- the market -------------------------------------------------------------------------------------------------------


class TimedMarket(Market):
    """Tells when each minute's frames went out."""

    def __init__(self, told: Connection, **options: Any) -> None:
        self._told = told
        super().__init__(**options)

    async def _step(self, session: Session) -> None:
        first = time.time()
        await super()._step(session)
        self._told.send((self.now - MINUTE, first, time.time()))


class EverySymbol:
    """A bar of every symbol in every minute; the day before, only the last ones."""

    is_endless = False
    description = "every symbol, every minute"

    def __init__(self, names: Sequence[str], history: int) -> None:
        self._history = history
        self.symbols = tuple(names)
        self._numbers = {name: number for number, name in enumerate(names)}
        self._sessions = calendar.sessions(DAY_BEFORE, DAY)
        self.first = self._sessions[1].open

    def knows(self, symbol: str) -> bool:
        return symbol in self._numbers

    def sessions(self, start: date, end: date) -> list[Session]:
        return [session for session in self._sessions if start <= session.date <= end]

    def next_session(self, after: datetime) -> Session | None:
        return next((session for session in self._sessions[1:] if session.open > after), None)

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        length = (session.close - session.open) // MINUTE
        minutes = range(PLAYED_MINUTES) if session.date == DAY else range(length - self._history, length)
        return [_bar(self._numbers[symbol], symbol, session, minute) for minute in minutes]


def _bar(number: int, symbol: str, session: Session, minute: int) -> Bar:
    """Up and down by cents, each symbol in another way."""
    middle = 20 + number % 400 + (minute * 7 + number) % 13 * CENT
    change = 3 * CENT if (minute * 31 + number) % 7 < 3 else -3 * CENT
    return Bar(
        symbol=symbol, timestamp=session.open + minute * MINUTE, open=middle, high=middle + 4 * CENT,
        low=middle - 4 * CENT, close=middle + change, volume=1000 + number,
    )  # fmt: skip


def play(names: Sequence[str], history: int, told: Connection) -> None:
    """The market's process."""

    async def run() -> None:
        market = TimedMarket(told, bars=EverySymbol(names, history), account_number="LOAD", keys=KEYS, speed=1)
        await market.start()
        told.send(market.urls)
        market.begin()
        await market.run()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
