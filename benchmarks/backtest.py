"""How fast a backtest is, as one JSON object: bars a second of the run, and the time of the whole process.

    .venv/bin/python benchmarks/backtest.py [--runs 3] [--data ../shared/data/stockbot2018]

Each run is `manage.py backtest` in a process of its own, as a user starts it; the best of them counts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SYMBOLS = "AAPL,AMD,FB,JPM,MSFT,NVDA,TSLA"
DATES = ("2018-02-16", "2018-04-20")


def main() -> int:
    """Measure and print; exit status 1 when there are no bars to measure with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "stockbot2018")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"{options.data}: there is no such folder; name one with bars of {SYMBOLS} by --data", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as data_dir:
        measured = [measure(options.data, data_dir) for _ in range(options.runs)]
    best = min(measured, key=lambda each: each["process_seconds"])
    run_seconds = min(each["seconds"]["run"] for each in measured)
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "runs": options.runs,
                "symbols": len(best["symbols"]),
                "sessions": best["metrics"]["sessions"],
                "bars": best["bars"],
                "trades": best["metrics"]["total_trades"],
                "load_seconds": min(each["seconds"]["load"] for each in measured),
                "run_seconds": run_seconds,
                "process_seconds": round(best["process_seconds"], 3),
                "bars_per_second": round(best["bars"] / run_seconds),
                "bars_per_process_second": round(best["bars"] / best["process_seconds"]),
            },
            indent=2,
        )
    )
    return 0


def measure(data: Path, data_dir: str) -> dict[str, Any]:
    """What one backtest printed, with the seconds its process took."""
    command = [sys.executable, str(ROOT / "manage.py"), "backtest", "--strategy", "velez", "--symbols", SYMBOLS]
    command += ["--start-date", DATES[0], "--end-date", DATES[1], "--data", str(data), "--no-save", "--json"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ALGO_")}
    environment |= {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": data_dir}
    started = perf_counter()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    printed: dict[str, Any] = json.loads(done.stdout)
    return {**printed, "process_seconds": perf_counter() - started}


if __name__ == "__main__":
    sys.exit(main())
