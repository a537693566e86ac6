"""The engine's memory over several trading days in a row, and whether it grows.

    .venv/bin/python benchmarks/memory.py [--days 14]

`manage.py runengine` with its pages on the built-in market, five symbols, as fast as the engine follows; its memory is
read (VmRSS, megabytes) when each new session has begun. The market, which is in this process then, keeps the bars of
the latest ten sessions, and so grows until the tenth; the four after that, more than 24 hours of trading, show what the
engine does.
Prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine_process import Engine, machine, new_ledger, started

SYMBOLS = "AAPL,AMD,META,NVDA,TSLA"


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=14, help="sessions to play; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.days), indent=2))
    return 0


def measure(folder: Path, days: int = 14) -> dict[str, Any]:
    """Plays so many whole sessions."""
    environment = new_ledger(folder, {"WATCHLIST": SYMBOLS})
    with started(folder, environment, "--provider", "simulator", "--speed", "0") as engine:
        after: list[int] = []

        def is_over() -> bool:
            while len(after) < _sessions_begun(engine) - 1:
                after.append(engine.megabytes())
            return len(after) >= days

        engine.until(is_over)
        seconds = time.time() - engine.started
        peak, on, orders = engine.peak_megabytes(), machine(), engine.count_rows("order_state")
        return {
            "machine": on,
            "symbols": len(SYMBOLS.split(",")),
            "seconds": round(seconds),
            "orders": orders,
            "megabytes_after_each_session": after,
            "grown_in_the_last_four_sessions": after[-1] - after[max(days - 5, 0)],
            "peak_megabytes": peak,
            "shutdown_seconds": engine.stop(),
        }


def _sessions_begun(engine: Engine) -> int:
    """Of how many sessions the engine has recorded bars."""
    return len(list((engine.folder / "runs" / "1").glob("*/bars.csv")))


if __name__ == "__main__":
    sys.exit(main())
