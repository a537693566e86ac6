"""Worker threads for blocking clients, and how long the adapter waits for anything."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from trading.broker import BrokerUnavailable

Client = TypeVar("Client")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the adapter waits: for answers, and between attempts to reach a stream.

    `read_seconds` is between two pieces of an answer. A stream without an answer to a ping within `pong_seconds` is
    lost (alpaca-py itself would take three minutes). A connection unused for `idle_seconds` is not used again: what is
    sent on a dead one is missed only after a timeout. `unix_time` is the clock by which the broker says when it takes
    requests again.
    """

    connect_seconds: float = 3.0
    read_seconds: float = 10.0
    idle_seconds: float = 45.0
    handshake_seconds: float = 10.0
    first_retry_seconds: float = 1.0
    longest_retry_seconds: float = 30.0
    ping_seconds: float = 10.0
    pong_seconds: float = 20.0
    unix_time: Callable[[], float] = time.time


DEFAULT_TIMING = Timing()


class Workers(Generic[Client]):
    """Threads that make the blocking requests, each with a client of its own: a `requests` session is not shared."""

    def __init__(self, make_client: Callable[[], Client], *, threads: int, name: str) -> None:
        self._make_client = make_client
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._own = threading.local()
        self._closed = False

    async def run(self, work: Callable[[Client], Value]) -> Value:
        """Does `work` on a thread; what comes back in an unexpected shape is no usable answer."""
        if self._closed:
            raise BrokerUnavailable("the connection was closed here")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, work)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BrokerUnavailable(f"the broker's answer cannot be read: {type(error).__name__} {error}") from error

    def close(self) -> None:
        """Takes no more work; a request on its way ends by its timeout."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, work: Callable[[Client], Value]) -> Value:
        if not hasattr(self._own, "client"):
            self._own.client = self._make_client()
        return work(self._own.client)
