"""A sweep on the worker cluster, with real processes: what killed workers leave is done again, and nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from socket import gethostname

import pytest
from django.db.models import Count

from backtests.models import BacktestSweep, BacktestSweepChunk, BacktestSweepPoint
from trading.live import calendar

ROOT = Path(__file__).resolve().parents[2]
HEADER = "timestamp,open,high,low,close,volume"
FIVE_HUNDRED = (25, 20)
HUNDRED = (10, 10)
PATIENCE_SECONDS = 240.0
LEASE_SECONDS = 10  # a dead worker's chunk is waited for so long: a slow machine's live ones must renew theirs in time
STARTED, LITTLE = 1, 10


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """A month of sessions that rise and start again every seven minutes: enough to keep a worker busy."""
    lines = [HEADER]
    for day, session in enumerate(calendar.sessions(date(2024, 2, 12), date(2024, 3, 11))):
        for minute in range(390):
            price = 100 + (minute % 7) * 0.05 * (day % 3)
            stamp = f"{session.open + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            lines.append(f"{stamp},{price:.2f},{price + 0.3:.2f},{price - 0.02:.2f},{price + 0.25:.2f},1000")
    (tmp_path / "AAPL.csv").write_text("\n".join([*lines, ""]))
    return tmp_path / "AAPL.csv"


def environment(url: str) -> dict[str, str]:
    """That of every process that takes part."""
    return os.environ | {"ALGO_DATABASE_URL": url, "ALGO_WORKER__LEASE_SECONDS": str(LEASE_SECONDS)}


@contextmanager
def cluster(url: str, log: Path) -> Iterator[int]:
    """A `manage.py qcluster` of its own; yields its process group, which is gone afterwards."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "qcluster"],
            cwd=ROOT, env=environment(url),
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def asked_for(url: str, bars: Path, *, grid: tuple[int, int]) -> "subprocess.Popen[str]":
    """`manage.py sweep --cluster`, waiting for the results of a grid with so many values of two settings."""
    fast, body = grid
    command = [
        sys.executable, "manage.py", "sweep", "--strategy", "velez", "--symbols", "AAPL",
        "--start-date", "2024-02-13", "--end-date", "2024-03-11", "--data", str(bars),
        "--set", "velez.sma_slow=100", "--cluster", "--json",
        "--grid", "velez.sma_fast=" + ",".join(map(str, range(5, 5 + fast))),
        "--grid", "velez.strong_candle_body_pct=" + ",".join(map(str, range(30, 30 + body))),
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def worker_in_the_middle(spared: set[int]) -> tuple[int, int] | None:
    """The process of a worker that has just begun a chunk, and the chunk."""
    for chunk in BacktestSweepChunk.objects.filter(status="running", attempts=1):
        results = BacktestSweepPoint.objects.filter(number__gte=chunk.first, number__lt=chunk.end)
        workers = list(results.values_list("worker", flat=True))
        if STARTED <= len(workers) <= LITTLE and (pid := int(workers[0].rpartition(":")[2])) not in spared:
            return pid, chunk.pk
    return None


def kill_a_worker(already: set[int], sweeping: "subprocess.Popen[str]") -> int:
    """Kills -9 a worker in the middle of its chunk; the chunk."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert sweeping.poll() is None, f"the sweep ended before a worker was killed: {sweeping.communicate()}"
        if found := worker_in_the_middle(already):
            os.kill(found[0], signal.SIGKILL)
            already.add(found[0])
            return found[1]
        time.sleep(0.01)
    pytest.fail("no worker was ever in the middle of a chunk")


def assert_five_hundred_results_and_none_twice(url: str, bars: Path, tmp_path: Path, *, clusters: int) -> None:
    with ExitStack() as running:
        for number in range(clusters):
            running.enter_context(cluster(url, tmp_path / f"cluster-{number}.log"))
        sweeping = asked_for(url, bars, grid=FIVE_HUNDRED)
        killed: set[int] = set()
        chunks = {kill_a_worker(killed, sweeping), kill_a_worker(killed, sweeping)}
        printed, complaints = sweeping.communicate(timeout=PATIENCE_SECONDS)
    assert sweeping.returncode == 0, complaints
    assert [each["number"] for each in json.loads(printed)["results"]] == list(range(500))
    assert list(BacktestSweepPoint.objects.order_by("number").values_list("number", flat=True)) == list(range(500))
    assert not BacktestSweepPoint.objects.exclude(error="").exists()
    assert BacktestSweep.objects.get().status == "done"
    workers = BacktestSweepPoint.objects.values_list("worker").annotate(Count("id")).values_list("worker", flat=True)
    assert {f"{gethostname()}:{pid}" for pid in killed} < set(workers)  # they wrote, and others wrote the rest
    assert len(workers) > len(killed)
    assert len(chunks) == 2
    assert set(BacktestSweepChunk.objects.filter(id__in=chunks).values_list("status", "attempts")) == {("done", 2)}


def test_a_cluster_that_loses_two_workers_has_every_result_once(ledger: str, bars: Path, tmp_path: Path) -> None:
    assert_five_hundred_results_and_none_twice(ledger, bars, tmp_path, clusters=1)


def test_several_clusters_on_one_postgresql_share_a_sweep_and_lose_two_workers(
    postgres_ledger: str, bars: Path, tmp_path: Path
) -> None:
    assert_five_hundred_results_and_none_twice(postgres_ledger, bars, tmp_path, clusters=3)


def test_what_a_killed_cluster_had_taken_is_done_by_the_next_one(ledger: str, bars: Path, tmp_path: Path) -> None:
    with cluster(ledger, tmp_path / "first.log") as group:
        sweeping = asked_for(ledger, bars, grid=HUNDRED)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while BacktestSweepPoint.objects.count() < 8:
            assert time.monotonic() < deadline, (tmp_path / "first.log").read_text()
            time.sleep(0.01)
        os.killpg(group, signal.SIGKILL)
    before = BacktestSweepPoint.objects.count()
    assert 8 <= before < 100
    with cluster(ledger, tmp_path / "second.log"):
        printed, complaints = sweeping.communicate(timeout=PATIENCE_SECONDS)
    assert sweeping.returncode == 0, complaints
    assert [each["number"] for each in json.loads(printed)["results"]] == list(range(100))
