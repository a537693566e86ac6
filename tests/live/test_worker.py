"""The background worker works, comes back when it dies, and never outlives the engine: real processes throughout."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django_q.models import Success
from django_q.tasks import async_task

from trading.live.supervisor import Supervisor
from trading.live.worker import QCLUSTER, Worker, WorkerEnded

PROGRAM = Path(__file__).with_name("worker_program.py")
ROOT = Path(__file__).resolve().parents[2]


def python(text: str) -> list[str]:
    """The command that runs this text."""
    return [sys.executable, "-c", textwrap.dedent(text)]


STUBBORN_FAMILY = python(
    """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork()
    time.sleep(60)
    """
)


def processes_of(group: int) -> list[int]:
    """The living processes of a group."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[int]:
    """The worker as a task of the engine, with the processes of its command up; yields its process group."""
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.pid is not None)
    assert worker.pid is not None
    group = worker.pid
    await until(lambda: len(processes_of(group)) > 1)
    try:
        yield group
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_carries_out_a_task_from_the_queue(
    ledger: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALGO_DATABASE_URL", ledger)
    await sync_to_async(async_task)("math.sqrt", 16)
    async with running(Worker()) as group:
        deadline = time.monotonic() + 30
        while not await sync_to_async(Success.objects.exists)():
            assert time.monotonic() < deadline, "the task was not done"
            await asyncio.sleep(0.1)
    assert (await sync_to_async(Success.objects.get)()).result == 4.0
    assert processes_of(group) == []
    assert [record.name for record in caplog.records if "Processed 'math.sqrt'" in record.getMessage()] == ["django-q"]


async def test_killed_it_is_restarted_and_nothing_of_it_is_left() -> None:
    worker, supervisor = Worker(STUBBORN_FAMILY), Supervisor(lambda reason: None)
    supervisor.start("worker", worker.run, critical=False)
    await until(lambda: worker.pid is not None)
    assert worker.pid is not None
    first = worker.pid
    await until(lambda: len(processes_of(first)) == 3)
    os.kill(first, signal.SIGKILL)
    await until(lambda: worker.pid not in (None, first))
    assert processes_of(first) == []
    await until(lambda: worker.pid is not None and len(processes_of(worker.pid)) == 3)
    await supervisor.stop()


@pytest.mark.parametrize("command", [python("raise SystemExit(3)"), [str(ROOT / "no-such-program")]])
async def test_a_worker_that_ends_is_an_error(command: list[str]) -> None:
    with pytest.raises(WorkerEnded, match="the background worker's process ended"):
        await asyncio.wait_for(Worker(command).run(), timeout=10)


async def test_stopping_gives_it_time_to_finish(tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    command = python(
        f"""
        import signal, sys, time, pathlib
        def finish(*_):
            time.sleep(0.5)
            pathlib.Path({str(finished)!r}).write_text("yes")
            sys.exit()
        signal.signal(signal.SIGTERM, finish)
        pathlib.Path({str(tmp_path / "ready")!r}).touch()
        time.sleep(60)
        """
    )
    async with running(Worker(command)):
        await until((tmp_path / "ready").exists)
    assert finished.read_text() == "yes"


async def test_stopping_ends_the_stubborn_and_their_children_within_seconds() -> None:
    async with running(Worker(STUBBORN_FAMILY)) as group:
        await until(lambda: len(processes_of(group)) == 3)
        before = time.monotonic()
    assert time.monotonic() - before < 5.0
    assert processes_of(group) == []


async def test_stopping_twice_does_not_wait_and_leaves_nothing() -> None:
    task = asyncio.create_task((worker := Worker(STUBBORN_FAMILY)).run())
    await until(lambda: worker.pid is not None and len(processes_of(worker.pid)) == 3)
    assert worker.pid is not None
    group = worker.pid
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, timeout=1.0)
    assert processes_of(group) == []


@pytest.mark.parametrize("command", [STUBBORN_FAMILY, QCLUSTER], ids=["stubborn", "qcluster"])
async def test_it_is_gone_after_its_engine_was_killed(ledger: str, command: tuple[str, ...]) -> None:
    with engine_process(command, ledger) as engine:
        assert engine.stdout is not None
        group = int(engine.stdout.readline())
        await until(lambda: len(processes_of(group)) >= 3, seconds=30)
        engine.kill()
    await until(lambda: processes_of(group) == [], seconds=6)


async def test_its_lines_are_in_our_log_with_level_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    command = python(
        """
        import sys
        print('{"event": "sweep.done", "level": "error", "logger": "sweep", "timestamp": "then", "runs": 12}')
        print("an old-fashioned line", file=sys.stderr)
        print('["not", "ours"]')
        print("no end" * 30_000)
        """
    )
    with caplog.at_level(logging.INFO), pytest.raises(WorkerEnded):
        await Worker(command).run()
    logged = [(record.name, record.levelname, event_of(record)) for record in caplog.records]
    assert ("sweep", "ERROR", {"event": "sweep.done", "runs": 12}) in logged
    assert ("worker", "WARNING", {"event": "worker.output", "line": "an old-fashioned line"}) in logged
    assert ("worker", "WARNING", {"event": "worker.output", "line": '["not", "ours"]'}) in logged
    assert ("worker", "INFO", {"event": "worker.ended", "status": 0}) in logged
    pieces = [event["line"] for _, _, event in logged if str(event.get("line", "")).startswith("no end")]
    assert len(pieces) >= 1
    assert max(len(str(piece)) for piece in pieces) <= 64 * 1024


def engine_process(command: tuple[str, ...], ledger: str) -> subprocess.Popen[str]:
    """An engine that prints the process group of its worker."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ALGO_DATABASE_URL": ledger}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *command], env=environment, stdout=subprocess.PIPE, text=True
    )


def event_of(record: logging.LogRecord) -> dict[str, object]:
    """What structlog handed to logging, without what it adds to every line."""
    fields = record.msg
    assert isinstance(fields, dict)
    return {name: value for name, value in fields.items() if name not in ("level", "logger", "timestamp")}
