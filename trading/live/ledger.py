"""The one thread in which the engine reads and writes its database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
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
        self._file: tuple[int, int] | None = None  # SQLite's file when it was last looked at

    async def run(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        """The function's result. Cancelling the caller does not stop a transaction: its outcome is unknown.

        Raises:
            LedgerUnavailable: nothing can be said of the outcome; try again later.
        """
        call = partial(self._work, work, *args, **kwargs)
        running = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(_do_not_complain)
            raise

    def close(self) -> None:
        """Waits for what is still being written."""
        self._executor.submit(connection.close)
        self._executor.shutdown(wait=True)

    def _work(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        self._check_connection()
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

    def _check_connection(self) -> None:
        """SQLite's connection is kept, as to open it takes longer than most transactions; PostgreSQL has a pool.

        What is written into a file that was moved or deleted meanwhile would be lost, and no error would tell. An empty
        one is not made in its place: that would throw away the log of what was not yet written into the moved one.
        """
        if connection.vendor != "sqlite":
            close_old_connections()
            return
        path = Path(connection.settings_dict["NAME"])
        file = _identity(path)
        if file != self._file:
            connection.close()
            self._file = file
        if file is None:
            raise LedgerUnavailable(f"{path} is not there")


def _do_not_complain(abandoned: asyncio.Future[Any]) -> None:
    """Nobody waits for its outcome any more, so nobody asks why it failed."""
    if not abandoned.cancelled():
        abandoned.exception()


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of the file, None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unavailable(error: Exception) -> LedgerUnavailable:
    connection.close()  # a new one may find what this one lost: a restarted server, a file that was put back
    return LedgerUnavailable(" ".join(str(error).split()) or type(error).__name__)
