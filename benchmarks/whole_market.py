"""The whole market delivered each minute over the data stream: how soon the engine has decided on the last bar.

    .venv/bin/python benchmarks/whole_market.py [--symbols 11000] [--minutes 2]

The built-in market, in a process of its own and at real speed, sends one bar of every symbol a minute, about one in
fifty of them a strong candle. The engine (`manage.py runengine`) watches them all, on one-minute candles, so that every
bar completes one. Its bar store holds the day before, a half day that was fetched whole: it warms up the averages of
200 candles. Prints one JSON object. Seconds count from the minute's first frame leaving the market until the engine has
decided on the last of its bars and written down what came of it; a bar is lost if the engine's own record of the minute
lacks it. At last the engine is told to stop (SIGTERM) while a minute's bars come in, and timed until its process ends.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine_process import Engine, machine, running
from benchmarks.market_process import DAY, DAY_BEFORE, MadeBars, play
from trading.columns import BarColumns
from trading.live.barstore import BarStore
from trading.market import Bar, Session

PLAYED_MINUTES = 30
CENT = 100  # in the integers prices are kept in
SETTLED_SECONDS = 15
SETTINGS = {
    "STRATEGIES": "velez", "VELEZ__SMA_FAST": "20", "VELEZ__SMA_SLOW": "200", "VELEZ__CANDLE_INTERVAL_MINUTES": "1",
    "RISK__MAX_ORDERS_PER_MINUTE": "1000",
}  # fmt: skip


def main() -> int:
    """Measures and prints; exit status 1 when a bar was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=11_000, help="default: %(default)s")
    parser.add_argument("--minutes", type=int, default=2, help="whole minutes to measure; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.symbols, options.minutes)
    print(json.dumps(measured, indent=2))
    return 1 if measured["bars_lost"] else 0


def measure(folder: Path, count: int = 11_000, minutes: int = 2) -> dict[str, Any]:
    """Starts both, waits for so many whole minutes, and compares what was sent with what was recorded."""
    names = ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=4), count)]
    bars = EverySymbol(names)
    settings = {**SETTINGS, "WATCHLIST": ",".join(names)}
    with running(folder, partial(play, bars, 1.0), settings=settings, prepare=partial(_fill_store, bars)) as (
        engine,
        market,
    ):
        engine.until(engine.is_trading)
        ready = time.time()
        warm = engine.megabytes()
        sent: dict[datetime, tuple[float, float]] = {}

        def has_sent() -> bool:
            while market.poll():
                match market.recv():
                    case ("minute", minute, first, last) if first > ready:
                        sent[minute] = (first, last)
            return len(sent) >= minutes

        def streams() -> bool:
            """Whether the bars of another minute have just begun to come in."""
            heard = False
            while market.poll():
                heard = market.recv()[0] == "begun" or heard
            return heard

        engine.until(has_sent)
        time.sleep(SETTLED_SECONDS)
        peak, on = engine.peak_megabytes(), machine()
        engine.until(streams)
        stopped = engine.stop()
        return {
            "machine": on,
            "symbols": count,
            "start_seconds": round(ready - engine.started, 1),
            "megabytes_when_warm": warm,
            **_compare(engine, sent, count),
            "signals_decided": engine.count_rows("decision"),
            "orders": engine.count_rows("order_state"),
            "peak_megabytes": peak,
            "shutdown_seconds_while_bars_come_in": stopped,
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


# --- the bars ---------------------------------------------------------------------------------------------------------


class EverySymbol(MadeBars):
    """A bar of every symbol in every minute; of the day that is played, the first half an hour."""

    description = "every symbol, every minute"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.symbols = tuple(names)
        self._numbers = {name: number for number, name in enumerate(names)}

    def knows(self, symbol: str) -> bool:
        return symbol in self._numbers

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        return self.columns(symbol, session).bars()

    def columns(self, symbol: str, session: Session) -> BarColumns:
        """Up and down by cents around a price that climbs, each symbol in another way."""
        number = self._numbers[symbol]
        length = (session.close - session.open).seconds // 60
        minutes = np.arange(PLAYED_MINUTES if session.date == DAY else length)
        middle = (20 + number % 400) * 100 * CENT + (minutes * 7 + number) % 13 * CENT
        is_strong = (minutes * 31 + number) % 50 == 0
        change = np.where(is_strong, 4, np.where((minutes * 31 + number) % 7 < 3, 1, -1)) * CENT
        return BarColumns(
            symbol=symbol,
            timestamps=int(session.open.timestamp()) + minutes * 60,
            open=middle - change,
            high=middle + 4 * CENT,
            low=middle - 4 * CENT,
            close=middle + change,
            volume=np.full_like(minutes, 1000 + number),
        )

    def day_before(self) -> Session:
        """The session that is history."""
        return self._sessions[0]


def _fill_store(bars: EverySymbol, folder: Path, urls: dict[str, str]) -> None:
    """As `manage.py fetchbars` would have: the day before, fetched whole from this market."""
    store = BarStore(folder / "bars")
    session = bars.day_before()
    store.merge(*(bars.columns(symbol, session) for symbol in bars.symbols))
    source = f"iex {urls['data_url'].removeprefix('http://')}"
    for symbol in bars.symbols:
        store.mark_fetched(symbol, [DAY_BEFORE], source=source)


if __name__ == "__main__":
    sys.exit(main())
