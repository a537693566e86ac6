"""The one thread in which the engine reads and writes its database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.db import close_old_connections

Value = TypeVar("Value")


class Ledger:
    """Runs store functions one after another, off the event loop; each is one transaction of its own."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def run(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        """The function's result. Cancelling the caller does not stop a transaction: its outcome is unknown."""
        call = partial(_in_fresh_connection, work, *args, **kwargs)
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, call))

    def close(self) -> None:
        """Waits for what is still being written."""
        self._executor.shutdown(wait=True)


def _in_fresh_connection(work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
    close_old_connections()
    return work(*args, **kwargs)
