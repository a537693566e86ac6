"""The one thread in which the engine reads and writes its database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import structlog
from django.db import (
    DatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
    close_old_connections,
    connection,
)

from trading.live import meters

log = structlog.get_logger("engine")

Value = TypeVar("Value")


class LedgerUnavailable(OperationalError):
    """The database cannot be read or written now: locked, full, read-only, gone. The outcome may be unknown."""


class Ledger:
    """Runs store functions one after another, off the event loop; each is one transaction of its own."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def run(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        """The function's result. Cancelling the caller does not stop a transaction: its outcome is unknown.

        Raises:
            LedgerUnavailable: nothing can be said of the outcome; try again later.
        """
        call = partial(_in_fresh_connection, work, *args, **kwargs)
        running = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(_do_not_complain)
            raise

    def close(self) -> None:
        """Waits for what is still being written."""
        self._executor.shutdown(wait=True)


def _do_not_complain(abandoned: asyncio.Future[Any]) -> None:
    """Nobody waits for its outcome any more, so nobody asks why it failed."""
    if not abandoned.cancelled():
        abandoned.exception()


def _in_fresh_connection(work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
    close_old_connections()
    started = perf_counter()
    try:
        return work(*args, **kwargs)
    except (OperationalError, InterfaceError, InternalError) as error:
        raise _unavailable(error) from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:  # a mistake of ours: what was to be written does not fit
            raise
        raise _unavailable(error) from error  # SQLite: the file is damaged, or no database any more
    finally:
        name, seconds = getattr(work, "__name__", "other"), perf_counter() - started
        meters.WRITE_SECONDS.labels(name).observe(seconds)
        log.debug("ledger.transaction", work=name, duration_ms=round(seconds * 1000, 3))


def _unavailable(error: Exception) -> LedgerUnavailable:
    connection.close()  # a new one may find what this one lost: a restarted server, a file that was put back
    return LedgerUnavailable(" ".join(str(error).split()) or type(error).__name__)
