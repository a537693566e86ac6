"""Ctrl-C stops the engine gracefully, a second one at once: a real process and real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

PROGRAM = Path(__file__).with_name("signals_program.py")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 20


@contextmanager
def engine(kind: str = "idle", *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """The program, ready for signals."""
    with subprocess.Popen(
        [*prefix, sys.executable, str(PROGRAM), kind],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # What hangs fails instead.
        patience = Timer(PATIENCE_SECONDS, process.kill)
        patience.start()
        try:
            assert read_line(process) == "ready"
            yield process
        finally:
            patience.cancel()
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline().rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_gracefully(number: signal.Signals) -> None:
    with engine() as process:
        process.send_signal(number)
        assert read_line(process) == number.name
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_exits_at_once_with_every_line_written(first: signal.Signals, second: signal.Signals) -> None:
    with engine() as process:
        process.send_signal(first)
        assert read_line(process) == first.name
        before = time.monotonic()
        process.send_signal(second)
        assert process.communicate(timeout=10)[0] == "not flushed yet"
        assert process.returncode == 130
        assert time.monotonic() - before < 1.0


def test_the_second_signal_ends_a_hanging_engine() -> None:
    with engine("hangs") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 130


def test_the_second_signal_ends_an_engine_whose_log_nobody_reads() -> None:
    with engine("deaf") as process:
        process.send_signal(signal.SIGINT)
        assert read_line(process) == "SIGINT"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_after_a_closed_terminal_the_next_signal_leaves_the_stop_graceful(number: signal.Signals) -> None:
    with engine() as process:
        process.send_signal(signal.SIGHUP)
        assert read_line(process) == "SIGHUP"
        process.send_signal(number)
        assert process.wait(timeout=10) == 0


def test_an_engine_under_nohup_outlives_its_terminal() -> None:
    with engine("idle", "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert read_line(process) == "SIGTERM"
        assert process.wait(timeout=10) == 0
