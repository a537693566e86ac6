"""An event loop whose time stands still while anything happens, and jumps to the next timer when nothing does.

Sockets and worker threads are real, but they take no time: before time moves on, everything that was read, sent or
computed has been worked off. Blocking work on threads is started piece by piece, and which piece is started or handed
back next is drawn from a seed: the same seed gives the same interleaving, another seed another one.

A `Life` is a part of the program that can be killed as a process is: its tasks never take another step, what it had
not started never starts, its sockets close. Work that a thread had begun is finished, and nobody hears of it.
"""

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from heapq import heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

Value = TypeVar("Value")
Arguments = TypeVarTuple("Arguments")
AnyHandle = TypeVar("AnyHandle", bound=asyncio.Handle)
LIFE: ContextVar["Life | None"] = ContextVar("life", default=None)
LOGS_ITS_END = "_log_destroy_pending"  # of a task: whether it complains when it is forgotten before it has ended
PATIENCE_SECONDS = 60  # real time while this process is not suspended; no piece of work takes that long


class Life:
    """One run of a part of the program. `context` is what its first task has to run in."""

    def __init__(self) -> None:
        self.is_over = False
        self.transports: list[asyncio.Transport] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.executors: set[ThreadPoolExecutor] = set()
        self.context = copy_context()
        self.context.run(LIFE.set, self)


class NothingWillHappen(Exception):
    """No timer, no work and no message: whoever waits waits for ever."""


class _Job:
    """One piece of blocking work."""

    def __init__(self, executor: ThreadPoolExecutor, work: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        self.executor = executor
        self.work = work
        self.answer = answer
        self.life = LIFE.get()


class VirtualLoop(asyncio.SelectorEventLoop):
    """`held` says how many pieces of work wait for an answer that is kept back until some time has passed.

    `on_step` is called whenever nothing is under way, before anything else is begun. Time is in seconds from 0.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _write_to_self: Callable[[], None]

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(f"interleaving/{seed}")
        self._now = 0.0
        self.held: Callable[[], int] = lambda: 0
        self.on_step: Callable[[], None] = lambda: None
        self.steps = 0
        self._queued: list[_Job] = []
        self._running: set[_Job] = set()
        self._finished: list[tuple[_Job, Future[Any]]] = []
        self._own_executor = ThreadPoolExecutor(4, thread_name_prefix="simulation")
        self._graveyard: list[Life] = []
        self._numbers = count()
        super().__init__(_Selector(self))
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def close(self) -> None:
        """Ends the loop; the dead stay where they are, so that nothing of theirs is tidied up."""
        self._own_executor.shutdown(wait=True)
        super().close()

    # --- the dead -----------------------------------------------------------------------------------------------------

    def begin(self, life: Life, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` as a life of its own."""
        return self.create_task(work, context=life.context)

    def kill(self, life: Life) -> None:
        """Ends a life as SIGKILL does."""
        life.is_over = True
        self._graveyard.append(life)
        for handle in [*self._scheduled, *self._ready]:
            if _life_of(handle) is life:
                handle.cancel()
        self._queued = [job for job in self._queued if job.life is not life]
        for task in life.tasks:
            setattr(task, LOGS_ITS_END, False)
        for transport in life.transports:
            copy_context().run(self._abort, transport)
        for executor in life.executors:
            executor.shutdown(wait=False, cancel_futures=True)

    def _abort(self, transport: asyncio.Transport) -> None:
        LIFE.set(None)
        transport.abort()

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As ever, but not for the dead."""
        return self._unless_dead(super().call_soon(callback, *args, context=context))

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As ever, but not for the dead."""
        return self._unless_dead(super().call_soon_threadsafe(callback, *args, context=context))

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As ever, but not for the dead, and of timers of one moment the older first."""
        timer = _Timer(when, callback, args, self, context)
        timer.number = next(self._numbers)
        timer._scheduled = True
        heappush(self._scheduled, timer)
        return self._unless_dead(timer)

    def _unless_dead(self, handle: AnyHandle) -> AnyHandle:
        life = _life_of(handle)
        if life is not None and life.is_over:
            handle.cancel()
        return handle

    def _make_socket_transport(self, *args: Any, **options: Any) -> Any:
        transport = super()._make_socket_transport(*args, **options)  # type: ignore[misc]
        if (life := LIFE.get()) is not None:
            life.transports.append(transport)
        return transport

    # --- work on threads ----------------------------------------------------------------------------------------------

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Value],
        *args: *Arguments,
    ) -> asyncio.Future[Value]:
        """Queues the work; it is begun when nothing else is under way."""
        pool = executor or self._own_executor
        if not isinstance(pool, ThreadPoolExecutor):
            raise TypeError(f"{type(pool).__name__} is not a pool of threads")
        answer: asyncio.Future[Any] = self.create_future()
        job = _Job(pool, lambda: func(*args), answer)
        if job.life is not None and executor is not None:
            job.life.executors.add(pool)
        self._queued.append(job)
        answer.add_done_callback(lambda _: self._forget(job))
        return answer

    def _forget(self, job: _Job) -> None:
        if job.answer.cancelled() and job in self._queued:
            self._queued.remove(job)

    def _begin(self, job: _Job) -> None:
        self._queued.remove(job)
        try:
            future = job.executor.submit(job.work)
        except RuntimeError as error:  # the pool was shut down meanwhile
            if not job.answer.done():
                job.answer.set_exception(error)
            return
        self._running.add(job)
        future.add_done_callback(lambda done: self._ended(job, done))

    def _ended(self, job: _Job, done: Future[Any]) -> None:
        """On the worker's thread."""
        self._finished.append((job, done))
        self._write_to_self()

    def _hand_back(self, job: _Job, done: Future[Any]) -> None:
        is_heard = job.life is None or not job.life.is_over
        if job.answer.done() or not is_heard:
            return
        if done.cancelled():
            job.answer.cancel()
        elif (error := done.exception()) is not None:
            job.answer.set_exception(error)
        else:
            job.answer.set_result(done.result())

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def has_callbacks(self) -> bool:
        """Whether there is something to do without looking for more."""
        return bool(self._ready)

    def go_on(self, look: Callable[[float], list[Any]]) -> list[Any]:
        """Nothing is ready: hands back, begins or waits for one piece of work, else lets time pass."""
        for job, _ in self._finished:
            self._running.discard(job)
        if len(self._running) > self.held():
            for _ in range(PATIENCE_SECONDS):
                if events := look(1):
                    return events
            raise NothingWillHappen("a piece of work on a thread does not end")
        if events := look(0):
            return events
        self.steps += 1
        self.on_step()
        if self._ready:
            return []
        choices = [*self._finished_in_order(), *self._beginnings()]
        if choices:
            self._chance.choice(choices)()
        elif events := look(0):  # the system may take a moment to deliver
            return events
        elif self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        else:
            raise NothingWillHappen("there is no timer")
        return []

    def _finished_in_order(self) -> Generator[Callable[[], None], None, None]:
        """What may be handed back next; of a pool's results the oldest, as that is the only order a ledger knows."""
        pools = set()
        for pair in self._finished:
            if pair[0].executor not in pools:
                pools.add(pair[0].executor)
                yield lambda pair=pair: self._take_back(pair)  # type: ignore[misc]

    def _take_back(self, pair: tuple[_Job, Future[Any]]) -> None:
        self._finished.remove(pair)
        self._hand_back(*pair)

    def _beginnings(self) -> Generator[Callable[[], None], None, None]:
        pools = set()
        for job in self._queued:
            if job.executor in pools:
                continue
            pools.add(job.executor)
            busy = sum(running.executor is job.executor for running in self._running)
            if busy < job.executor._max_workers:
                yield lambda job=job: self._begin(job)  # type: ignore[misc]


class _Timer(asyncio.TimerHandle):
    """A timer with a number: without it, which of two comes first depends on all others that there are."""

    __slots__ = ("number",)
    number: int
    _scheduled: bool

    def __lt__(self, other: Any) -> bool:
        return (self._when, self.number) < (other._when, other.number)  # type: ignore[attr-defined]


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        look = super().select
        if self._loop.has_callbacks:
            return []
        return look(0) if timeout is not None and timeout <= 0 else self._loop.go_on(look)


def _life_of(handle: asyncio.Handle) -> Life | None:
    context: Context = handle._context  # type: ignore[attr-defined]
    return context.get(LIFE)


def _new_task(loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    life = (context.get(LIFE) if context is not None else None) or LIFE.get()
    if life is not None:
        life.tasks.append(task)
    return task
