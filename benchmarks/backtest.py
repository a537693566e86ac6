"""How fast backtests are here, as one JSON object on stdout; `make bench` runs it.

    .venv/bin/python benchmarks/backtest.py [--runs 3] [--skip many,sweep,peers]

Bars are made from a seed (`made_bars.py`), one symbol-year has 97 110 of them. Every figure of ours is `manage.py` in a
process of its own, on a data folder of its own, as a user starts it:

- `symbol_year`: one backtest from the bar store. `run_seconds` is the run itself, in which a bar is worked off at most
  once and for the first time; the process is everything from the command line to the saved result with its range on
  three paths and at four costs. `bare` does a peer's work alone: one run, nothing saved.
- `fifty_symbol_years`: fifty symbols on one capital. `peak_mb` is the largest memory the process had.
- `sweep`: a hundred points on one symbol-year, on as many processes as there are processors.

Peers are those that `make bench-peers` has installed, each in an environment of its own. They get the same bars, and
the same signals, entry prices and stops ready-made (`prepared.py`); their process ends without saving or printing
more. Their runs are compared with ours, each the best of several in one process (`ours.py`), so warm. The entries are
the same: the pause after losses in a row, which they lack, is at its bound of ten. Ratios are ours divided by theirs,
below 1 we are faster: on a machine that has other work, believe those of the processor's time (`cpu`).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Process
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATES = ("2023-01-03", "2023-12-29")
SYMBOLS = [f"B{first}{second}" for first in "ABCDE" for second in "ABCDEFGHIJ"]
SEED = 1
BASIC = ("--strategy", "velez", "--start-date", DATES[0], "--end-date", DATES[1], "--json")
AS_PEERS = ("--no-range", "--no-save", "--set", "risk.consecutive_loss_pause=10")
GRID = (
    "--grid",
    "velez.tightness_threshold_pct=0.5,1,1.5,2,2.5,3,3.5,4,4.5,5",
    "--grid",
    "velez.strong_candle_body_pct=30,35,40,45,50,55,60,65,70,75",
)
PEERS = {"backtesting.py": "backtesting", "vectorbt": "vectorbt", "NautilusTrader": "nautilus"}
WARM_RUNS = 4
PARTS = ("many", "sweep", "peers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One process: what it printed, the wall-clock and processor seconds it took, its largest memory."""

    printed: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_mb: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each the best of so many counts; default: %(default)s")
    parser.add_argument("--skip", default="", metavar="A,B", help=f"any of {', '.join(PARTS)}")
    options = parser.parse_args()
    skipped = set(filter(None, options.skip.split(",")))
    if options.runs < 1 or not skipped <= set(PARTS):
        parser.error(f"--runs is 1 or more, --skip names any of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(figures(Path(folder), options.runs, skipped), indent=2))
    return 0


def figures(folder: Path, runs: int, skipped: set[str]) -> dict[str, Any]:
    """Everything that is measured, on a data folder that is made for it."""
    note("making bars")
    making = Process(target=make_bars, args=(folder, SYMBOLS if "many" not in skipped else SYMBOLS[:1]))
    making.start()
    making.join()
    if making.exitcode:
        raise SystemExit("the bars could not be made")
    manage(folder, "migrate", "--verbosity", "0")
    found: dict[str, Any] = {"machine": machine(), "runs": runs}
    found["symbol_year"] = one_symbol_year(folder, runs)
    if "many" not in skipped:
        found["fifty_symbol_years"] = many_symbol_years(folder, runs)
    if "sweep" not in skipped:
        found["sweep"] = sweep(folder, runs)
    if "peers" not in skipped:
        found["peers"] = peers(folder, runs, found["symbol_year"])
    return found


def one_symbol_year(folder: Path, runs: int) -> dict[str, Any]:
    """One symbol-year as users run it, and as peers do."""
    note("one symbol-year")
    command = ("backtest", *BASIC, "--symbols", SYMBOLS[0])
    whole = best(runs, lambda: manage(folder, *command))
    bare = best(runs, lambda: manage(folder, *command, *AS_PEERS))
    script = [sys.executable, str(ROOT / "benchmarks" / "ours.py"), str(folder / "bars"), SYMBOLS[0], *DATES]
    warm = measure([*script, str(WARM_RUNS)], folder).printed
    run_seconds, bars = bare.printed["seconds"]["run"], bare.printed["bars"]
    return {
        "bars": bars,
        "trades": whole.printed["metrics"]["total_trades"],
        "process": spent(whole),
        "bare": {
            "trades": bare.printed["metrics"]["total_trades"],
            "final_equity": float(bare.printed["metrics"]["final_equity"]),
            "run_seconds": round(run_seconds, 3),
            "bars_per_second": round(bars / run_seconds),
            **spent(bare),
        },
        "warm": warm_run(warm, bars),
    }


def many_symbol_years(folder: Path, runs: int) -> dict[str, Any]:
    """Fifty symbols on shared capital."""
    note(f"{len(SYMBOLS)} symbol-years")
    measured = best(
        min(runs, 2),
        lambda: manage(folder, "backtest", *BASIC, "--symbols", ",".join(SYMBOLS), "--no-range", "--no-save"),
    )
    run_seconds = measured.printed["seconds"]["run"]
    return {
        "bars": measured.printed["bars"],
        "trades": measured.printed["metrics"]["total_trades"],
        "load_seconds": round(measured.printed["seconds"]["load"], 3),
        "run_seconds": round(run_seconds, 3),
        "bars_per_second": round(measured.printed["bars"] / run_seconds),
        **spent(measured),
    }


def sweep(folder: Path, runs: int) -> dict[str, Any]:
    """A grid of a hundred points on one symbol-year."""
    note("a sweep")
    measured = best(min(runs, 2), lambda: manage(folder, "sweep", *BASIC, "--symbols", SYMBOLS[0], *GRID))
    return {
        "points": measured.printed["variants"],
        "failed": sum(bool(point["error"]) for point in measured.printed["results"]),
        **spent(measured),
    }


def peers(folder: Path, runs: int, ours: dict[str, Any]) -> dict[str, Any]:
    """What each installed peer takes for the same, and ours as a ratio."""
    return {name: peer(folder, runs, each, ours) for name, each in PEERS.items()}


def peer(folder: Path, runs: int, name: str, ours: dict[str, Any]) -> dict[str, Any] | str:
    """One peer: its process with one run, and its best run of several in one process."""
    python = ROOT / ".bench" / name / "bin" / "python"
    if not (python.parent.parent / "installed").exists():
        return "not installed: make bench-peers"
    note(name)

    def started(count: int) -> Measured:
        script = ROOT / "benchmarks" / "peers" / f"{name}_peer.py"
        return measure([str(python), "-W", "ignore", str(script), str(folder / "prepared.npz"), str(count)], folder)

    started(1)  # whatever it compiles and caches is there from now on
    whole, warm = best(runs, lambda: started(1)), started(WARM_RUNS).printed
    theirs = warm_run(warm, ours["bars"])
    return {
        **theirs,
        **spent(whole),
        "ours_to_theirs": {
            "run": ratio(ours["warm"]["run_seconds"], theirs["run_seconds"]),
            "run_cpu": ratio(ours["warm"]["run_cpu_seconds"], theirs["run_cpu_seconds"]),
            "process": ratio(ours["bare"]["seconds"], whole.seconds),
            "process_cpu": ratio(ours["bare"]["cpu_seconds"], whole.cpu_seconds),
        },
    }


def warm_run(printed: dict[str, Any], bars: int) -> dict[str, Any]:
    """The best of several runs in one process."""
    seconds = min(printed["seconds"])
    return {
        "trades": printed["trades"],
        "final_equity": printed["final_equity"],
        "run_seconds": round(seconds, 4),
        "run_cpu_seconds": round(min(printed["cpu_seconds"]), 4),
        "bars_per_second": round(bars / seconds),
    }


def make_bars(folder: Path, symbols: Sequence[str]) -> None:
    """Fills the bar store, and prepares the first symbol's bars for peers.

    In a process of its own: what this one takes of memory would count as that of the processes it starts.
    """
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from benchmarks.made_bars import symbol_year
    from benchmarks.prepared import prepared
    from trading.live.barstore import BarStore

    store = BarStore(folder / "bars")
    for seed, symbol in enumerate(symbols, SEED):
        bars = symbol_year(symbol, seed)
        store.merge(bars)
        if symbol == symbols[0]:
            np.savez(folder / "prepared.npz", **prepared(bars))  # type: ignore[arg-type]  # arrays by name


# --- processes --------------------------------------------------------------------------------------------------------


def manage(folder: Path, *arguments: str) -> Measured:
    """One `manage.py` command on the data folder, with the settings of an untouched installation."""
    return measure([sys.executable, str(ROOT / "manage.py"), *arguments], folder)


def measure(command: Sequence[str], folder: Path) -> Measured:
    """Runs the command to its end. Raises CalledProcessError when it fails."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "PYTHON"))}
    environment |= {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(folder)}
    output = folder / "output"
    with output.open("w+") as file:
        started = perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    text = output.read_text()
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Measured(
        printed=json.loads(text) if text else {},
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=kilobytes / 1024,
    )


def best(runs: int, measured: Callable[[], Measured]) -> Measured:
    """The fastest of several."""
    return min((measured() for _ in range(runs)), key=lambda each: each.seconds)


def spent(measured: Measured) -> dict[str, float]:
    """What a process took, for reading."""
    return {
        "seconds": round(measured.seconds, 3),
        "cpu_seconds": round(measured.cpu_seconds, 3),
        "peak_mb": round(measured.peak_mb),
    }


def ratio(ours: float, theirs: float) -> float:
    """With three significant digits."""
    return float(f"{ours / theirs:.3g}")


def machine() -> dict[str, Any]:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def note(text: str) -> None:
    """What is being done, for whoever waits."""
    print(f"{text} ...", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
