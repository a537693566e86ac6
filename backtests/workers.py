"""Runs points of a sweep: in this process with the bars kept between them, or on several processes of this machine."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from os import _exit
from pathlib import Path
from threading import Thread, active_count
from time import perf_counter

from backtests.execution import Loaded, NoBacktest, execute_on, load, needs_of
from backtests.metrics import daily_returns
from backtests.outcome import Outcome, metrics_document
from backtests.request import BacktestRequest
from backtests.sweep import PointResult, Sweep
from backtests.validation import Moments, moments
from trading.live.barstore import BarStore

# Points that need different histories before the first session have bars of their own; this many are kept.
MOST_LOADED = 4
LOOK_SECONDS = 5.0
# A chunk in which so many workers died is given up: the next one would die in it as well.
MOST_DEATHS = 5


class WorkersDied(Exception):
    """Worker processes ended again and again, killed or out of memory; the text is one line."""


class Bench:
    """Backtests of one set of symbols and dates, one after the other, on bars that are read once."""

    def __init__(self, store: BarStore) -> None:
        self._store = store
        self._loaded: dict[object, Loaded] = {}

    def run(self, request: BacktestRequest) -> Outcome:
        """One backtest.

        Raises:
            NoBacktest: bars, sessions or files are missing or cannot be read.
        """
        return execute_on(self.load(request), request)

    def point(self, sweep: Sweep, number: int) -> PointResult:
        """The backtest at a point of a sweep; what prevents it is written into the result."""
        started = perf_counter()
        params = sweep.params(number)
        try:
            outcome = self.run(sweep.request(number))
        except NoBacktest as error:
            return PointResult(number=number, params=params, metrics=None, moments=None, error=str(error))
        return PointResult(
            number=number,
            params=params,
            metrics=metrics_document(outcome.metrics),
            moments=moments_of(outcome),
            seconds=round(perf_counter() - started, 6),
        )

    def load(self, request: BacktestRequest) -> Loaded:
        """The bars of a request, kept for others with the same.

        Raises:
            NoBacktest: bars, sessions or files are missing or cannot be read.
        """
        key = (request.data, request.symbols, request.start_date, request.end_date, needs_of(request))
        if key not in self._loaded:
            while len(self._loaded) >= MOST_LOADED:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = load(request, self._store)
        return self._loaded[key]


def moments_of(outcome: Outcome) -> Moments | None:
    """The moments of a run's daily returns."""
    return moments(daily_returns([outcome.request.initial_capital, *outcome.result.daily_equity]))


class Processes:
    """Worker processes of this machine, kept from sweep to sweep; a single one is this process itself."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        """`folder` is the bar store's."""
        self._folder = folder
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._bench = Bench(BarStore(folder))

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def run(
        self, sweep: Sweep, parts: Sequence[Sequence[int]], *, on_look: Callable[[], None] = lambda: None
    ) -> Iterator[list[PointResult]]:
        """The results of the parts as they come. `on_look` is called every few seconds, or after every part.

        The part of a worker that dies is done again.

        Raises:
            WorkersDied: too often.
        """
        if self._workers == 1 or len(parts) == 1:
            for part in parts:
                yield [self._bench.point(sweep, number) for number in part]
                on_look()
            return
        waiting = [tuple(part) for part in parts]
        deaths = 0
        while waiting:
            try:
                for part, results in self._in_pool(sweep, list(waiting), on_look):
                    waiting.remove(part)
                    yield results
            except BrokenProcessPool:
                self._close()
                deaths += 1
                if deaths == MOST_DEATHS:
                    raise WorkersDied(f"worker processes ended {deaths} times, killed or out of memory") from None

    def _in_pool(
        self, sweep: Sweep, parts: Sequence[tuple[int, ...]], on_look: Callable[[], None]
    ) -> Iterator[tuple[tuple[int, ...], list[PointResult]]]:
        if self._pool is None:
            self._pool = self._new_pool(sweep)
        futures: dict[Future[list[PointResult]], tuple[int, ...]] = {
            self._pool.submit(_part, sweep, part): part for part in parts
        }
        while futures:
            finished, _ = wait(futures, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in finished:
                yield futures.pop(future), future.result()
            on_look()

    def _new_pool(self, sweep: Sweep) -> ProcessPoolExecutor:
        """Forked workers share what is imported and loaded here; a process with threads cannot be forked safely."""
        if sys.platform == "linux" and active_count() == 1:
            with suppress(NoBacktest):  # each point says so
                self._bench.load(sweep.request(0))
            return ProcessPoolExecutor(
                self._workers, mp_context=get_context("fork"), initializer=_open, initargs=(self._bench,)
            )
        bench = Bench(BarStore(self._folder))
        return ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"), initializer=_open, initargs=(bench,))

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


# --- in a worker process ----------------------------------------------------------------------------------------------

_opened: list[Bench] = []


def _open(bench: Bench) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes: these end without a word
    Thread(target=end_with_parent, name="end with parent", daemon=True).start()
    _opened.append(bench)


def _part(sweep: Sweep, part: Sequence[int]) -> list[PointResult]:
    return [_opened[0].point(sweep, number) for number in part]


def end_with_parent() -> None:
    """A worker waits for more work for ever: when its parent was killed, nobody would tell it to stop."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        _exit(1)
