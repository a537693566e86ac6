"""Every command that the README names is executed as it stands there, with its placeholders filled in."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tests.live.split_layout import (
    BUSY_STRATEGY,
    PATIENCE_SECONDS,
    PLAYED_DAY,
    ROOT,
    WARM_UP_DAY,
    free_port,
    until,
    write_bars,
)

DAYS = f"--start-date {PLAYED_DAY} --end-date {PLAYED_DAY}"
FAST = "--set velez.sma_slow=100 --set velez.candle_interval_minutes=1"
STARTED = {
    "make run",
    "make test",
    "manage.py runmarket",
    "manage.py enginestatus",
    "manage.py flatten",
    "manage.py stopengine",
}
# What stands in the README -> what is executed, in this order, on one data folder; {bars} is a folder of two sessions.
EXECUTED = {
    "manage.py showconfig": "showconfig",
    "manage.py importbars FILE...": "importbars {bars}/AAPL.csv {bars}/TSLA.csv {bars}/AMD.csv",
    "manage.py datareport": f"datareport --symbols AAPL {DAYS}",
    "manage.py backtest --strategy velez --symbols AAPL,TSLA --start-date D --end-date D --data PATH": (
        f"backtest --strategy velez --symbols AAPL,TSLA {DAYS} --data {{bars}} {FAST}"
    ),
    "manage.py sweep ... --grid KEY=V1,V2": (
        f"sweep --strategy velez --symbols AAPL {DAYS} --data {{bars}} {FAST} --grid velez.sma_fast=5,10"
    ),
    "manage.py walkforward": (
        "walkforward --strategy velez --symbols AAPL --start-date 2024-03-04 --end-date 2024-03-05 --data {bars}"
        f" {FAST} --grid velez.sma_fast=5,10 --train 1 --test 1"
    ),
    "manage.py montecarlo RUN": "montecarlo 1",
    "manage.py runengine --speed 0 --data PATH --start-date D --end-date D": (
        f"runengine --speed 0 --data {{bars}} {DAYS}"
    ),
    "manage.py parity RUN": "parity 1",
    "manage.py parity DAY": f"parity {PLAYED_DAY}",
    "manage.py halt": "halt",
    "manage.py resume": "resume",
    "manage.py backup": "backup",
}
# The market alone plays the second session, so the first is its history.
RUNMARKET = f"runmarket --port 0 --data {{bars}} {DAYS}"
WITH_A_MARKET = {
    "manage.py fetchbars": f"fetchbars --symbols AAPL --start-date {WARM_UP_DAY} --end-date {WARM_UP_DAY}",
}


def named_in_readme() -> set[str]:
    """The commands of the first block and of the table; `a` / `b` and `a` or `b` stand for several of one kind."""
    text = (ROOT / "README.md").read_text()
    found = {line.partition("#")[0].strip() for line in text.split("```\n")[1].splitlines()}
    for row in re.findall(r"^\| (`\.venv/bin/python manage\.py .*?`) \|", text, re.MULTILINE):
        cell = row.replace("` or `", "`/`")
        first, *others = (part.removeprefix(".venv/bin/python ") for part in re.findall(r"`([^`/][^`]*)`", cell))
        found.add(first)
        for other in others:
            found.add(f"manage.py {other}" if other.islower() or " " in other else first.replace("RUN", other))
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A new installation with a data folder of its own, and two sessions of bars."""
    folder = tmp_path_factory.mktemp("installation")
    write_bars(folder / "bars")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    ours = {"ALGO_DATA_DIR": str(folder / "data"), "ALGO_ENV_FILE": os.devnull, "ALGO_WEB__PORT": str(free_port())}
    return {**clean, **ours, **BUSY_STRATEGY, "BARS": str(folder / "bars")}


def manage(arguments: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    words = arguments.format(bars=environment["BARS"]).split()
    return subprocess.run(
        [sys.executable, "manage.py", *words], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


class Running:
    """A program that goes on until it is stopped, and what it has said so far."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def said(self, words: str) -> bool:
        assert self.process.poll() is None or any(words in line for line in self.lines), "".join(self.lines)
        return any(words in line for line in self.lines)

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


def test_the_readme_names_no_command_that_is_not_executed_here() -> None:
    assert named_in_readme() == STARTED | set(EXECUTED) | set(WITH_A_MARKET)


def test_make_run_starts_what_the_readme_promises_and_stopengine_ends_it(environment: dict[str, str]) -> None:
    running = Running("make", "run", "ARGS=--no-worker", environment=environment)
    try:
        until(lambda: running.said("Dashboard: http://127.0.0.1:"), "no dashboard")
        assert running.said("Login of the dashboard, shown only now: user admin, password ")
        until(lambda: "connected" in manage("enginestatus", environment).stdout, "the engine is not connected")
        flattened = manage("flatten --yes", environment)
        assert flattened.returncode == 0, flattened.stdout + flattened.stderr
        stopped = manage("stopengine", environment)
        assert (stopped.returncode, stopped.stdout.splitlines()[0]) == (0, "Engine stopped."), stopped.stderr
        assert running.process.wait(PATIENCE_SECONDS) == 0
    finally:
        running.kill()


def test_make_test_runs_the_tests(environment: dict[str, str]) -> None:
    tested = subprocess.run(
        ["make", "test", "ARGS=tests/core/test_market.py -q"], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert (tested.returncode, "passed" in tested.stdout) == (0, True), tested.stdout


def test_the_everyday_commands_do_what_they_say_one_after_another(environment: dict[str, str]) -> None:
    environment = {**environment, "ALGO_DATA_DIR": f"{environment['ALGO_DATA_DIR']}-everyday"}
    assert manage("migrate --no-input -v0", environment).returncode == 0
    for named, arguments in EXECUTED.items():
        done = manage(arguments, environment)
        assert done.returncode == 0, f"{named}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    words = RUNMARKET.format(bars=environment["BARS"]).split()
    market = Running(sys.executable, "manage.py", *words, environment=environment)
    try:
        until(lambda: market.said("SECRET_KEY="), "the market does not start")
        told = dict(line.strip().split("=", 1) for line in market.lines if line.startswith("ALGO_"))
        for named, arguments in WITH_A_MARKET.items():
            done = manage(arguments, {**environment, **told})
            assert done.returncode == 0, f"{named}: {done.stderr[-2000:]}"
        market.process.send_signal(signal.SIGTERM)
        assert market.process.wait(PATIENCE_SECONDS) == 0
    finally:
        market.kill()
