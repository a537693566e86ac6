"""The engine as its own process on a market of the benchmark's, and the machine it runs on."""

import multiprocessing
import os
import platform
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.market_process import KEYS

ROOT = Path(__file__).resolve().parent.parent
MANAGE = (sys.executable, str(ROOT / "manage.py"))
PATIENCE_SECONDS = 900
LOOK_SECONDS = 0.2


class Engine:
    """A running `manage.py runengine` and its log."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *arguments: str) -> None:
        self.folder = folder
        self.environment = environment
        self._log = folder / "engine.log"
        self.started = time.time()
        with self._log.open("w") as log:
            command = [*MANAGE, "runengine", "--no-worker", *arguments]
            self.process = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log)

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self._log.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the condition. Raises RuntimeError when the engine ends first or too much time passes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine ended or hangs: {self.log[-3000:]}")
            time.sleep(LOOK_SECONDS)

    def is_trading(self) -> bool:
        """Whether both streams are up."""
        log = self.log
        return "trade updates" in log and log.count("stream.connected") >= 2

    def count_rows(self, table: str) -> int:
        """How many rows a table of its ledger has."""
        with closing(sqlite3.connect(self.folder / "trading.db")) as database:
            (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        return int(count)

    def peak_megabytes(self) -> int:
        """The most memory it has had so far."""
        return self._memory("VmHWM")

    def megabytes(self) -> int:
        """The memory it has now."""
        return self._memory("VmRSS")

    def stop(self) -> float:
        """Seconds from SIGTERM to the end. Raises RuntimeError unless it ends well."""
        asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(120):
            raise RuntimeError(f"the engine ended with {self.process.returncode}: {self.log[-3000:]}")
        return round(time.monotonic() - asked, 2)

    def _memory(self, field: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith(field))


@contextmanager
def running(
    folder: Path,
    play: Callable[[Connection], None],
    *,
    settings: Mapping[str, str],
    arguments: tuple[str, ...] = ("--no-web",),
    prepare: Callable[[Path, dict[str, str]], None] = lambda folder, urls: None,
) -> Iterator[tuple[Engine, Connection]]:
    """An engine on the market that `play(connection)` opens in a process of its own.

    The first thing that comes over the connection are the market's URLs. `prepare` is called with the data folder and
    the URLs before the engine starts.
    """
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    market = spawn.Process(target=play, args=(there,), daemon=True)
    market.start()
    urls = here.recv()
    variables = {
        **{f"BROKER__{name.upper()}": url for name, url in urls.items()},
        "BROKER__PROVIDER": "alpaca", "BROKER__API_KEY": KEYS[0], "BROKER__SECRET_KEY": KEYS[1], **settings,
    }  # fmt: skip
    try:
        environment = new_ledger(folder, variables)
        prepare(folder, urls)
        with started(folder, environment, *arguments) as engine:
            yield engine, here
    finally:
        market.kill()


def new_ledger(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Makes an empty ledger in the folder; the environment of those who work with it."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"DATA_DIR": str(folder), "ENV_FILE": os.devnull, "WEB__PORT": str(port), **settings}
    environment = kept | {f"ALGO_{name}": text for name, text in variables.items()}
    subprocess.run([*MANAGE, "migrate", "--verbosity", "0"], env=environment, check=True)
    return environment


@contextmanager
def started(folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Engine]:
    """An engine that does not outlive the block."""
    engine = Engine(folder, environment, *arguments)
    try:
        yield engine
    finally:
        engine.process.kill()
        engine.process.wait()


def machine() -> dict[str, Any]:
    """Where the figures come from, and how busy it was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if "model name" in line]
    return {
        "processors": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Middle, 99 of 100 and largest, rounded."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "p50": round(ordered[last // 2], 2),
        "p99": round(ordered[-(-last * 99 // 100)], 2),
        "max": round(ordered[-1], 2),
    }
