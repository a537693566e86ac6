"""Our run of the benchmark's bars several times in one process, as peers are: prints seconds and trades as JSON.

    .venv/bin/python benchmarks/ours.py FOLDER_OF_THE_BAR_STORE SYMBOL START END RUNS

Every run begins with the bars alone: candles and averages are made anew.
"""

import json
import sys
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from algotrader import config
from backtests.execution import execute_on, load
from backtests.request import make_request
from trading.live.barstore import BarStore


def main() -> None:
    """Run and print."""
    folder, symbol, start, end, runs = sys.argv[1:]
    request = make_request(
        strategy="velez",
        symbols=[symbol],
        start_date=start,
        end_date=end,
        initial_capital="25000",
        params={"risk.consecutive_loss_pause": 10},
        config=config.load({}),
    )
    seconds, cpu = [], []
    for _ in range(int(runs)):
        loaded = load(request, BarStore(Path(folder)))
        begun, spent = perf_counter(), process_time()
        outcome = execute_on(loaded, request)
        seconds.append(perf_counter() - begun)
        cpu.append(process_time() - spent)
    metrics = outcome.metrics
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "trades": metrics.total_trades,
                "final_equity": float(metrics.final_equity),
            }
        )
    )


if __name__ == "__main__":
    main()
