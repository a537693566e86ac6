"""`manage.py sweep`, `walkforward` and `montecarlo`, and how workers share a sweep's chunks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from backtests import store, sweep_store, tasks, walkforward_store
from backtests.models import BacktestRun, BacktestSweep, BacktestSweepChunk, BacktestSweepPoint
from backtests.request import make_request
from backtests.sweep import PointResult, make_sweep, parse_grid
from orders.command import UserError
from trading.live import calendar

ROOT = Path(__file__).parents[2]
HEADER = "timestamp,open,high,low,close,volume"
NOW = datetime.fromisoformat("2024-06-03T12:00:00Z")
LATER = NOW + store.LEASE + timedelta(seconds=1)
FAST, SLOW = "velez.sma_fast=5,10,20", "velez.strong_candle_body_pct=40,60"

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Ten sessions of AAPL that go up and down every hour, each day a little further."""
    lines = [HEADER]
    for day, session in enumerate(calendar.sessions(date(2024, 3, 1), date(2024, 3, 14))):
        for minute in range(390):
            price = 100 + abs(30 - minute % 60) * 0.02 * (1 + day % 4)
            stamp = f"{session.open + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            lines.append(f"{stamp},{price:.2f},{price + 0.12:.2f},{price - 0.02:.2f},{price + 0.1:.2f},1000")
    (tmp_path / "AAPL.csv").write_text("\n".join([*lines, ""]))
    return tmp_path / "AAPL.csv"


@pytest.fixture(autouse=True)
def data_dir(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


@pytest.fixture
def run(bars: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the bars with --json and reads what it printed."""

    def run_it(command: str, *arguments: str, start: str = "2024-03-04") -> Any:
        capsys.readouterr()
        call_command(command, *asked(bars, start), *arguments, "--json")
        return json.loads(capsys.readouterr().out)

    return run_it


def asked(bars: Path, start: str = "2024-03-04") -> list[str]:
    return [
        "--strategy", "velez", "--symbols", "AAPL", "--start-date", start, "--end-date", "2024-03-14",
        "--data", str(bars), "--set", "velez.sma_slow=100",
    ]  # fmt: skip


def queued(points: int = 40) -> int:
    """A sweep on the cluster that nobody has begun; its id."""
    base = make_request(
        strategy="velez", symbols=["AAPL"], start_date="2024-03-04", end_date="2024-03-14", initial_capital="25000",
        params={}, config=django_settings.ALGO,
    )  # fmt: skip
    grid = parse_grid([f"velez.sma_fast={numbers(5, 5 + points)}"])
    return sweep_store.create(make_sweep(base, grid), on_cluster=True, real_at=NOW)


def result(number: int) -> PointResult:
    return PointResult(number=number, params={}, metrics={}, moments=None)


def without_seconds(printed: dict[str, Any]) -> dict[str, Any]:
    results = [{**each, "seconds": None} for each in printed["results"]]
    return {**printed, "sweep_id": None, "results": results}


# --- on this machine --------------------------------------------------------------------------------------------------


def test_a_point_of_a_sweep_is_the_backtest_with_its_settings(each_ledger: str, run: Run) -> None:
    swept = run("sweep", "--grid", FAST, "--grid", SLOW, "--workers", "1")
    alone = run("backtest", "--set", "velez.sma_fast=10", "--set", "velez.strong_candle_body_pct=60", "--no-save")
    assert [each["params"]["velez.sma_fast"] for each in swept["results"]] == ["5", "5", "10", "10", "20", "20"]
    assert alone["metrics"]["total_trades"] > 0
    assert swept["results"][3]["metrics"] == alone["metrics"]
    row = sweep_store.find(swept["sweep_id"])
    assert row is not None
    assert (row.status, row.done, row.points, row.progress) == ("done", 6, 6, 100)
    assert swept["variants"] == 6


def test_processes_find_what_one_process_finds(ledger: str, run: Run) -> None:
    grid = ("--grid", FAST, "--grid", SLOW)
    assert without_seconds(run("sweep", *grid, "--workers", "2")) == without_seconds(
        run("sweep", *grid, "--workers", "1")
    )


def test_the_table_names_the_number_of_variants_tried(
    ledger: str, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("sweep", *asked(bars), "--grid", FAST, "--grid", SLOW, "--workers", "1")
    printed = capsys.readouterr().out
    assert "The best 6 of 6 variants tried, by sharpe ratio" in printed
    assert "luckiest of 6 variants without an edge" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grid", "velez.sma_fast=5,4"], "must be a whole number from 5 to 50"),
        ([], "needs at least one --grid"),
        (["--grid", FAST, "--workers", "0"], "--workers 0 is not 1 or more"),
        (["--grid", FAST, "--no-wait"], "--no-wait needs --cluster"),
        (["--grid", FAST, "--set", "sma"], "--set 'sma' is not written as KEY=VALUE"),
        (["--grid", FAST, "--symbols", "MSFT", "--workers", "1"], "no backtest of sweep 1 could be run"),
    ],
)
def test_an_error_says_in_one_line_what_is_wrong(ledger: str, bars: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        call_command("sweep", *asked(bars), *arguments)
    assert "\n" not in str(error.value)


def test_a_killed_worker_process_costs_nothing_but_time(ledger: str, bars: Path) -> None:
    grid = [f"--grid=velez.sma_fast={numbers(5, 45)}", f"--grid=velez.strong_candle_body_pct={numbers(30, 45)}"]
    command = [sys.executable, "manage.py", "sweep", *asked(bars), *grid, "--workers", "2", "--json"]
    environment = os.environ | {"ALGO_DATABASE_URL": ledger}
    sweeping = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not BacktestSweepPoint.objects.exists():
        assert time.monotonic() < deadline
        assert sweeping.poll() is None
        time.sleep(0.01)
    os.kill(a_child_of(sweeping.pid), signal.SIGKILL)
    printed, _ = sweeping.communicate(timeout=120)
    assert sweeping.returncode == 0
    assert [each["number"] for each in json.loads(printed)["results"]] == list(range(600))


def numbers(first: int, end: int) -> str:
    return ",".join(map(str, range(first, end)))


def a_child_of(parent: int) -> int:
    """A worker process, forked or spawned."""
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return next(int(pid) for pid, ppid, args in rows if int(ppid) == parent and "resource_tracker" not in args)


def test_an_interrupted_sweep_is_resumed_where_it_stopped(
    ledger: str, run: Run, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run("sweep", "--grid", FAST, "--workers", "1")
    sweep_id = whole["sweep_id"]
    BacktestSweepPoint.objects.filter(number=1).delete()
    kept = BacktestSweepPoint.objects.get(number=2).finished_at
    BacktestSweep.objects.update(status="running", lease_until=NOW)
    BacktestSweepChunk.objects.update(status="queued")
    sweep_store.fail_abandoned(real_at=LATER)
    row = sweep_store.find(sweep_id)
    assert row is not None
    assert (row.status, f"--resume {sweep_id}" in row.error) == ("failed", True)
    capsys.readouterr()
    call_command("sweep", "--resume", str(sweep_id), "--workers", "1", "--json")
    assert without_seconds(json.loads(capsys.readouterr().out)) == without_seconds(whole)
    assert BacktestSweepPoint.objects.get(number=2).finished_at == kept
    with pytest.raises(UserError, match="there is no sweep 99"):
        call_command("sweep", "--resume", "99")


# --- on the cluster ---------------------------------------------------------------------------------------------------


def test_a_sweep_for_the_cluster_waits_as_one_task_a_chunk(ledger: str, run: Run) -> None:
    sweep_id = run("sweep", "--grid", FAST, "--cluster", "--no-wait")["sweep_id"]
    assert [task.task["func"] for task in OrmQ.objects.all()] == ["backtests.tasks.work_on"] * 3
    assert Schedule.objects.get().func == "backtests.tasks.look_after"
    for _ in range(3):
        tasks.work_on(sweep_id)
    row = sweep_store.find(sweep_id)
    assert row is not None
    assert (row.status, row.done) == ("done", 3)
    tasks.work_on(sweep_id)  # a task that comes again finds nothing to do
    assert BacktestSweepPoint.objects.count() == 3


def test_a_chunk_is_one_workers_until_its_lease_ends(each_ledger: str) -> None:
    sweep_id = queued()
    first, second = (sweep_store.claim(sweep_id, real_at=NOW) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.part, second.part) == (range(2), range(2, 4))
    assert sweep_store.renew(second, real_at=LATER)
    again = sweep_store.claim(sweep_id, real_at=LATER)
    assert again is not None
    assert again.part == first.part  # the first worker is dead, the second lives
    assert not sweep_store.renew(first, real_at=LATER)
    sweep_store.complete(first)  # it was not dead, only slow: the chunk is no longer its own
    assert BacktestSweepChunk.objects.get(id=first.chunk_id).status == "running"


def test_a_point_has_one_result_whoever_comes_later(each_ledger: str) -> None:
    sweep_id = queued()
    sweep_store.record(sweep_id, [result(0), result(1)], worker="a:1", real_at=NOW)
    sweep_store.record(sweep_id, [result(1), result(2)], worker="b:2", real_at=NOW)
    assert sweep_store.workers_of(sweep_id) == [("a:1", 2), ("b:2", 1)]
    with pytest.raises(IntegrityError), transaction.atomic():
        BacktestSweepPoint.objects.create(sweep_id=sweep_id, number=1, params={})


def test_a_sweep_is_done_when_every_point_has_its_result(ledger: str) -> None:
    sweep_id = queued()
    sweep_store.record(sweep_id, map(result, range(39)), worker="a:1", real_at=NOW)
    assert not sweep_store.finish(sweep_id, real_at=NOW)
    sweep_store.record(sweep_id, [result(39)], worker="a:1", real_at=NOW)
    assert sweep_store.finish(sweep_id, real_at=NOW)
    assert sweep_store.claim(sweep_id, real_at=LATER) is None


def test_workers_are_called_again_only_for_what_is_left_and_not_all_the_time(ledger: str) -> None:
    sweep_id = queued()
    assert sweep_store.call_workers(sweep_id, real_at=NOW) == 20
    assert sweep_store.call_workers(sweep_id, real_at=NOW) == 0
    assert sweep_store.claim(sweep_id, real_at=LATER) is not None
    assert sweep_store.call_workers(sweep_id, real_at=LATER) == 19


def test_a_chunk_that_ends_every_worker_fails_the_sweep(ledger: str) -> None:
    sweep_id, now = queued(), NOW
    for _ in range(sweep_store.MOST_ATTEMPTS):
        claimed = sweep_store.claim(sweep_id, real_at=now)
        assert claimed is not None
        assert claimed.part == range(2)
        now += store.LEASE + timedelta(seconds=1)
    assert sweep_store.call_workers(sweep_id, real_at=now) == 0
    row = sweep_store.find(sweep_id)
    assert row is not None
    assert (row.status, row.error) == ("failed", "5 workers ended while they ran points 0 to 1")


def test_a_waiting_command_says_why_the_sweep_failed(ledger: str, run: Run) -> None:
    sweep_id = run("sweep", "--grid", FAST, "--cluster", "--no-wait")["sweep_id"]
    BacktestSweepChunk.objects.update(status="running", lease_until=NOW, attempts=sweep_store.MOST_ATTEMPTS)
    BacktestSweep.objects.update(queued_at=NOW)
    OrmQ.objects.all().delete()
    tasks.look_after()
    row = sweep_store.find(sweep_id)
    assert row is not None
    assert row.status == "failed"


# --- single backtests of dead workers ---------------------------------------------------------------------------------


def wanted() -> int:
    request = make_request(
        strategy="velez", symbols=["AAPL"], start_date="2024-03-04", end_date="2024-03-14", initial_capital="25000",
        params={}, config=django_settings.ALGO,
    )  # fmt: skip
    return store.create(request, real_at=NOW)


def test_a_backtest_is_one_workers_until_its_lease_ends(each_ledger: str) -> None:
    run_id = wanted()
    assert store.begin(run_id, real_at=NOW)
    assert not store.begin(run_id, real_at=NOW)
    assert store.left_behind(real_at=NOW) == []
    assert store.renew(run_id, real_at=LATER)
    assert store.left_behind(real_at=LATER) == []
    assert store.left_behind(real_at=LATER + store.LEASE * 2) == [run_id]


def test_a_dead_workers_backtest_is_queued_again_and_not_for_ever(ledger: str) -> None:
    run_id, now = wanted(), timezone.now()
    for attempt in range(1, store.MOST_ATTEMPTS + 1):
        assert store.begin(run_id, real_at=now - timedelta(days=1) * (store.MOST_ATTEMPTS + 1 - attempt))
        OrmQ.objects.all().delete()
        tasks.look_after()
        assert OrmQ.objects.count() == (1 if attempt < store.MOST_ATTEMPTS else 0)
    row = BacktestRun.objects.get(id=run_id)
    assert (row.status, row.error) == ("failed", "3 workers ended while they ran it")


def test_nothing_is_queued_twice_while_tasks_wait(ledger: str) -> None:
    BacktestRun.objects.filter(id=wanted()).update(created_at=NOW)
    tasks.look_after()
    tasks.look_after()
    assert OrmQ.objects.count() == 1


# --- walk-forward and Monte Carlo -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "first_train"), [((), "2024-03-06"), (("--anchored",), "2024-03-04")])
def test_each_choice_is_tried_on_the_sessions_after_it(
    ledger: str, run: Run, kind: tuple[str, ...], first_train: str
) -> None:
    printed = run("walkforward", "--grid", FAST, "--train", "3", "--test", "2", "--workers", "1", *kind)
    assert [window["test"] for window in printed["windows"]] == [
        ["2024-03-07", "2024-03-08"], ["2024-03-11", "2024-03-12"], ["2024-03-13", "2024-03-14"],
    ]  # fmt: skip
    assert printed["windows"][1]["train"] == [first_train, "2024-03-08"]
    assert printed["windows"][-1]["metrics"]["final_equity"] == printed["final_equity"]
    assert printed["variants"] == 3


def test_a_walk_forward_step_is_the_best_of_its_training_with_the_equity_of_the_step_before(
    ledger: str, run: Run, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(
        "walkforward", "--grid", FAST, "--train", "3", "--test", "4", "--workers", "1", "--by", "total_return"
    )
    (first, second), capital = printed["windows"], "25000"
    for window in (first, second):
        fixed = [f"{key}={value}" for key, value in window["params"].items()]
        capsys.readouterr()
        call_command(
            "backtest", *asked(bars)[:4], "--start-date", window["test"][0], "--end-date", window["test"][1],
            *asked(bars)[8:], *(text for each in fixed for text in ("--set", each)), "--initial-capital", capital,
            "--no-save", "--json",
        )  # fmt: skip
        alone = json.loads(capsys.readouterr().out)["metrics"]
        assert window["metrics"] == alone
        capital = alone["final_equity"]
    assert printed["final_equity"] == capital


def test_a_walk_forward_is_saved_as_it_was_printed_unless_it_should_not_be(ledger: str, run: Run) -> None:
    asked_for = ("walkforward", "--grid", FAST, "--train", "3", "--test", "4", "--workers", "1", "--anchored")
    assert run(*asked_for, "--no-save")["walk_id"] is None
    assert walkforward_store.walks() == []
    printed = run(*asked_for)
    saved = walkforward_store.find(printed.pop("walk_id"))
    assert saved is not None
    assert (saved.status, saved.train_sessions, saved.test_sessions, saved.is_anchored) == ("done", 3, 4, True)
    assert saved.result == printed


def test_too_few_sessions_are_said(ledger: str, bars: Path) -> None:
    with pytest.raises(UserError, match="9 sessions are too few to train on 60 and test after them"):
        call_command("walkforward", *asked(bars), "--grid", FAST)


def test_the_bands_of_a_saved_run(ledger: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    saved = run("backtest")
    assert saved["metrics"]["total_trades"] > 1
    capsys.readouterr()
    call_command("montecarlo", str(saved["run_id"]), "--paths", "200", "--seed", "7", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["paths"], printed["trades"]) == (200, saved["metrics"]["total_trades"])
    bands = [float(printed["final_equity"][percentile]) for percentile in ("5", "25", "50", "75", "95")]
    assert bands == sorted(bands)
    assert bands[0] < float(saved["metrics"]["final_equity"]) < bands[-1]
    call_command("montecarlo", str(saved["run_id"]), "--paths", "200")
    assert "200 histories of" in capsys.readouterr().out


def test_a_run_that_does_not_exist_or_made_no_trade_has_no_bands(ledger: str, run: Run) -> None:
    with pytest.raises(UserError, match="there is no finished backtest 99"):
        call_command("montecarlo", "99")
    quiet = run("backtest", "--set", "velez.enabled=false")
    with pytest.raises(UserError, match="made no trade: there is nothing to draw"):
        call_command("montecarlo", str(quiet["run_id"]))
