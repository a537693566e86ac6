"""Keeps long tasks running: restart with growing pauses, and a graceful shutdown when a critical one keeps failing."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("supervisor")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
WINDOW_SECONDS = 300.0
MOST_FAILURES = 3

Work = Callable[[], Coroutine[Any, Any, None]]


class Supervisor:
    """Runs named tasks until `stop`. A task that returns has failed as much as one that raises.

    Pauses before a restart are 1 s, 2 s, 4 s ... up to 30 s, by the number of failures in the last five minutes. At
    the third of a critical task it is left alone and `ask_for_shutdown` is told why, once.
    """

    def __init__(
        self,
        ask_for_shutdown: Callable[[str], None],
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask_for_shutdown = ask_for_shutdown
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Work, *, critical: bool = True) -> None:
        """Runs `work()` under this name from now on."""
        if name in self._tasks and not self._tasks[name].done():
            raise ValueError(f"a task named {name} is running already")
        self._tasks[name] = asyncio.create_task(self._run(name, work, critical), name=name)

    async def stop(self, *names: str) -> None:
        """Cancels the named tasks, all of them without a name, and waits until they have ended."""
        tasks = [self._tasks.pop(name) for name in names or tuple(self._tasks) if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: str, work: Work, critical: bool) -> None:
        failures: deque[float] = deque()
        while True:
            reason = await _outcome(name, work)
            now = self._clock()
            failures.append(now)
            while failures[0] <= now - WINDOW_SECONDS:
                failures.popleft()
            log.error("task.failed", task=name, reason=reason, failures=len(failures), critical=critical)
            if critical and len(failures) >= MOST_FAILURES:
                self._ask_for_shutdown(f"{name} failed {len(failures)} times within 5 minutes: {reason}")
                return
            await self._sleep(min(FIRST_PAUSE_SECONDS * 2 ** (len(failures) - 1), LONGEST_PAUSE_SECONDS))


async def _outcome(name: str, work: Work) -> str:
    """Runs the work once and says how it failed. A cancellation that somebody asked of this task goes on."""
    try:
        await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return "something it waited for was cancelled"
    except Exception as error:  # whatever it is, the task is restarted and the error reported
        log.error("task.error", task=name, exc_info=error)
        return f"{type(error).__name__}: {error}"
    return "it ended"
