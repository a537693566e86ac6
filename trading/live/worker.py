"""The background worker (`manage.py qcluster`) as a child process that never outlives the engine."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from threading import Thread

import structlog

from trading.live import worker_guard

PROJECT = Path(__file__).resolve().parents[2]
QCLUSTER = (sys.executable, "manage.py", "qcluster")
LOOK_SECONDS = 0.1
# The guard gives the worker its own grace first.
STOP_SECONDS = worker_guard.GRACE_SECONDS + worker_guard.LOOK_SECONDS + 1.0
LAST_LINES_SECONDS = 0.5
MAX_LINE_BYTES = 64 * 1024


class WorkerEnded(Exception):
    """The worker's process ended though nobody asked it to."""


class Worker:
    """Runs the worker's process and passes its log lines on to ours. `pid` is its process group, None without one."""

    def __init__(self, command: Sequence[str] = QCLUSTER) -> None:
        self.pid: int | None = None
        self._command = command

    async def run(self) -> None:
        """Run the worker until this task is cancelled, which stops it within a few seconds; the supervisor restarts it.

        None of its processes is left behind, whatever happens: they form a group of their own, and a guard in it ends
        the group when the engine is gone.

        Raises:
            WorkerEnded: the process died.
        """
        lifeline, output, process = self._start()
        reading = Thread(target=_log_lines, args=(output,), name="worker log", daemon=True)
        reading.start()
        self.pid = process.pid
        try:
            await _until_ended(process)
        finally:
            self.pid = None
            os.close(lifeline)
            await _end(process)
            reading.join(LAST_LINES_SECONDS)
        raise WorkerEnded("the background worker's process ended")

    def _start(self) -> tuple[int, int, subprocess.Popen[bytes]]:
        """The pipe that keeps it alive, the pipe with its output, and the process."""
        guard_stdin, lifeline = os.pipe()
        output, guard_output = os.pipe()
        process = subprocess.Popen(
            # Isolated and without site-packages: the guard needs neither, and stays small.
            [sys.executable, "-I", "-S", worker_guard.__file__, *self._command],
            cwd=PROJECT,
            env=os.environ | {"ALGO_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"},
            stdin=guard_stdin,
            stdout=guard_output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(guard_stdin)
        os.close(guard_output)
        return lifeline, output, process


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the guard's polite end, then kill what is left of the group, also when nobody waits any longer."""
    try:
        await _until_ended(process, seconds=STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError, PermissionError):  # macOS has no permission for a group of the dead
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _until_ended(process: subprocess.Popen[bytes], *, seconds: float = inf) -> None:
    """Returns when the process has ended or the time is over."""
    deadline = time.monotonic() + seconds
    # asyncio's own wait for a child also waits for whoever else holds its pipes, in some versions of Python.
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)


def _log_lines(output: int) -> None:
    """Log every line of the pipe until all processes of the worker have closed it."""
    with open(output, "rb") as pipe:
        for line in iter(partial(pipe.readline, MAX_LINE_BYTES), b""):
            _log(line.decode(errors="replace").rstrip())


def _log(line: str) -> None:
    """A line of our own JSON format is logged again with its level and fields; any other as it is, as a warning."""
    try:
        fields = json.loads(line)
        event = fields.pop("event")
        level = logging.getLevelNamesMapping()[str(fields.pop("level")).upper()]
        logger = fields.pop("logger")
    except (ValueError, KeyError, TypeError, AttributeError):
        if line:
            structlog.get_logger("worker").warning("worker.output", line=line)
        return
    fields.pop("timestamp", None)
    structlog.get_logger(logger, **fields).log(level, event)
