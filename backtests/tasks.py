"""Backtests and sweeps for the workers: asked for as rows, carried out in the background.

A worker holds what it runs by a lease that it renews. When it dies the lease ends, and `look_after`, which the cluster
calls every minute, has another worker do the work. Every task may be repeated: it does what is left to do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import getpid
from socket import gethostname
from threading import Event, Thread
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection
from django.db.utils import OperationalError
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.tasks import async_task, schedule

from backtests import store, sweep_store, walkforward_store
from backtests.execution import NoBacktest, execute
from backtests.request import BacktestRequest, BadRequest
from backtests.sweep import PointResult, Sweep, missing
from backtests.validation import Window, windows
from backtests.walkforward import document, walk
from backtests.workers import Bench
from orders import guards
from trading.live import calendar
from trading.live.barstore import BarStore

LOOK_AFTER = "backtests.tasks.look_after"
RENEW_SECONDS = store.LEASE_SECONDS / 5


# --- one backtest -----------------------------------------------------------------------------------------------------


def queue_backtest(request: BacktestRequest, *, created_by: str, sweep_id: str | None = None) -> int:
    """Writes down that a backtest is wanted, and tells the worker; the id of its run."""
    guards.require()
    run_id = store.create(request, created_by=created_by, sweep_id=sweep_id, real_at=timezone.now())
    async_task("backtests.tasks.run_backtest", run_id)
    _have_looked_after()
    return run_id


def run_backtest(run_id: int) -> None:
    """Carries out a queued run. Safe to repeat: a dead worker's run is made anew, one that is over is left alone."""
    guards.require()
    if not store.begin(run_id, real_at=timezone.now()):
        return
    try:
        with _renewing(lambda: store.renew(run_id, real_at=timezone.now())):
            _carry_out(run_id)
    except (BadRequest, NoBacktest) as error:
        store.fail(run_id, str(error), real_at=timezone.now())
    except Exception as error:
        store.fail(run_id, f"stopped by a fault in the program: {error!r}", real_at=timezone.now())
        raise  # the worker keeps the traceback


def _carry_out(run_id: int) -> None:
    run = store.find(run_id)
    if run is None:
        return
    request = store.request_of(run)
    percent = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal percent
        if (now := 100 * done // total) > percent:
            percent = now
            store.report_progress(run_id, percent)

    store_of_bars = BarStore(settings.DATA_DIR / "bars")
    outcome = execute(request, store_of_bars, with_scenarios=True, on_progress=on_progress)
    store.finish(run_id, outcome, real_at=timezone.now())


# --- sweeps -----------------------------------------------------------------------------------------------------------


def queue_sweep(sweep: Sweep, *, created_by: str = "") -> int:
    """Writes down that a sweep is wanted, and tells the workers; its id."""
    guards.require()
    sweep_id = sweep_store.create(sweep, on_cluster=True, created_by=created_by, real_at=timezone.now())
    call_workers(sweep_id)
    return sweep_id


def call_workers(sweep_id: int) -> None:
    """Queues a task for every chunk that nobody works on; at most once in the time of a lease."""
    for _ in range(sweep_store.call_workers(sweep_id, real_at=timezone.now())):
        async_task("backtests.tasks.work_on", sweep_id)
    _have_looked_after()


def work_on(sweep_id: int) -> None:
    """Takes the next chunk of the sweep, whichever it is, and runs the points of it that have no result yet."""
    guards.require()
    claimed = sweep_store.claim(sweep_id, real_at=timezone.now())
    row = sweep_store.find(sweep_id)
    if claimed and row:
        try:
            _work_off(claimed, row)
        except Exception as error:
            text = str(error) if isinstance(error, BadRequest) else f"stopped by a fault in the program: {error!r}"
            sweep_store.fail(sweep_id, text, real_at=timezone.now())
            raise  # the worker keeps the traceback
    if row:
        sweep_store.finish(sweep_id, real_at=timezone.now())


# --- walk-forward -----------------------------------------------------------------------------------------------------


def queue_walk(sweep: Sweep, *, train: int, test: int, is_anchored: bool, figure: str, created_by: str) -> int:
    """Writes down that a walk-forward is wanted, and tells the worker; its id.

    Raises:
        BadRequest: the sessions do not make one window.
    """
    guards.require()
    windows_of(sweep, train=train, test=test, is_anchored=is_anchored)
    walk_id = walkforward_store.create(
        sweep,
        train=train,
        test=test,
        is_anchored=is_anchored,
        figure=figure,
        created_by=created_by,
        real_at=timezone.now(),
    )
    async_task("backtests.tasks.run_walk", walk_id)
    _have_looked_after()
    return walk_id


def run_walk(walk_id: int) -> None:
    """Carries out a queued walk-forward, in this process alone. Safe to repeat, as a run is."""
    guards.require()
    row = walkforward_store.find(walk_id)
    if row is None or not walkforward_store.begin(walk_id, real_at=timezone.now()):
        return
    try:
        with _renewing(lambda: walkforward_store.renew(walk_id, real_at=timezone.now())):
            result = _walked(row)
        walkforward_store.finish(walk_id, result, real_at=timezone.now())
    except (BadRequest, NoBacktest) as error:
        walkforward_store.fail(walk_id, str(error), real_at=timezone.now())
    except Exception as error:
        walkforward_store.fail(walk_id, f"stopped by a fault in the program: {error!r}", real_at=timezone.now())
        raise  # the worker keeps the traceback


def _walked(row: walkforward_store.WalkRow) -> dict[str, Any]:
    sweep = row.sweep()
    parts = windows_of(sweep, train=row.train_sessions, test=row.test_sessions, is_anchored=row.is_anchored)
    bench = Bench(BarStore(settings.DATA_DIR / "bars"))
    done = 0

    def train(training: Sweep) -> list[PointResult]:
        nonlocal done
        results = []
        for number in range(training.points):
            results.append(bench.point(training, number))
            done += 1
            walkforward_store.report_progress(row.id, 100 * done // (len(parts) * sweep.points))
        if all(each.error for each in results):
            raise NoBacktest(results[0].error)
        return results

    found = walk(sweep, parts, figure=row.figure, train=train, test=bench.run)
    return document(sweep, found, figure=row.figure, is_anchored=row.is_anchored)


def windows_of(sweep: Sweep, *, train: int, test: int, is_anchored: bool) -> list[Window]:
    """The windows of a sweep's sessions.

    Raises:
        BadRequest: there is none.
    """
    try:
        sessions = calendar.sessions(sweep.base.start_date, sweep.base.end_date)
        found = windows(sessions, train=train, test=test, is_anchored=is_anchored)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if not found:
        raise BadRequest(f"{len(sessions)} sessions are too few to train on {train} and test after them")
    return found


def worker_name() -> str:
    """This process, as results name it."""
    return f"{gethostname()}:{getpid()}"


# A worker process runs many chunks of one sweep: it keeps that one's bars.
_bench: dict[str, Bench] = {}


def _work_off(claimed: sweep_store.Claim, row: sweep_store.SweepRow) -> None:
    sweep = row.sweep()
    if row.sweep_id not in _bench:
        _bench.clear()
        _bench[row.sweep_id] = Bench(BarStore(settings.DATA_DIR / "bars"))
    bench = _bench[row.sweep_id]
    with _renewing(lambda: sweep_store.renew(claimed, real_at=timezone.now())) as lost:
        for number in missing(claimed.part, sweep_store.numbers_done(claimed.sweep_id, claimed.part)):
            if lost.is_set():
                return
            result = bench.point(sweep, number)
            sweep_store.record(claimed.sweep_id, [result], worker=worker_name(), real_at=timezone.now())
    sweep_store.complete(claimed)


# --- what dead workers left -------------------------------------------------------------------------------------------


def look_after() -> None:
    """Has the work of dead workers done again, and fails what nobody can finish; the cluster calls it every minute."""
    guards.require()
    now = timezone.now()
    sweep_store.fail_abandoned(real_at=now)
    if get_broker().queue_size():
        return  # tasks wait: the workers are busy, and come to it
    for run_id in store.left_behind(real_at=now):
        async_task("backtests.tasks.run_backtest", run_id)
    for walk_id in walkforward_store.left_behind(real_at=now):
        async_task("backtests.tasks.run_walk", walk_id)
    for sweep_id in sweep_store.unfinished():
        call_workers(sweep_id)


def _have_looked_after() -> None:
    with suppress(IntegrityError):  # django-q's word for: is scheduled already
        schedule(LOOK_AFTER, name=LOOK_AFTER, schedule_type="I", minutes=1, q_options={"save": False})


@contextmanager
def _renewing(renew: Callable[[], bool]) -> Iterator[Event]:
    """Renews a lease while the work goes on; the event is set when it is another worker's."""
    over, lost = Event(), Event()

    def go_on() -> None:
        try:
            while not over.wait(RENEW_SECONDS):
                with suppress(OperationalError):  # a database that is busy now is tried again
                    if not renew():
                        lost.set()
                        return
        finally:
            connection.close()

    thread = Thread(target=go_on, name="renew the lease")
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()
