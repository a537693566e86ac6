"""A WebSocket stream kept alive, as an async iterator that survives whatever happens to the connection.

alpaca-py makes the connection, logs in and reads; when to try again and what to report is decided here, because its
own loop says nothing about drops and retries for ever in silence.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog
import websockets
from alpaca.common.utils import reconnect_delay

from trading.broker import StreamState
from trading.live.alpaca_workers import Timing

log = structlog.get_logger("alpaca")

CLOSE_SECONDS = 0.8
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError)
Item = TypeVar("Item")


class Refused(websockets.WebSocketException):
    """The server said no, or that it cannot go on; in its own words."""


class Feed(ABC, Generic[Item]):
    """One stream kept alive: connect, read, report, wait, again.

    `StreamState(connected=True)` comes once the server has confirmed the subscription, and again, with a detail, when
    something was lost on a connection that goes on: each time the reader has to look for what it missed.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._waiting: deque[Item | StreamState] = deque()
        self._arrival = asyncio.Event()
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._stream: Any = None
        self._handshake: asyncio.Timeout | None = None
        self._got_data = False
        self._given_up = ""
        self._is_refused = False

    async def items(self) -> AsyncGenerator[Item | StreamState, None]:
        """What arrives, until `stop`. An error in here, which is a bug, is raised to the reader."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._end)
        try:
            while True:
                while not self._waiting and not self._ended:
                    self._arrival.clear()
                    await self._arrival.wait()
                while self._waiting:
                    yield self._take()
                if self._ended:
                    return
        finally:
            await self.stop()
            if self._task.done() and not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error

    async def reconnect(self, reason: str) -> None:
        """Gives the connection up, for a reason that is reported, and makes another."""
        if self._stream is not None and self._stream._ws is not None:
            self._given_up = reason
            await self._close()

    async def stop(self) -> None:
        """Closes the connection in good manners if the server has any, in under a second."""
        self._end()
        if self._task is not None and not self._task.done():
            await self._close()
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)

    # --- for the two kinds of stream ----------------------------------------------------------------------------------

    @abstractmethod
    async def _ready(self) -> None:
        """Returns when there is something to subscribe to."""

    @abstractmethod
    def _new_stream(self) -> Any:
        """alpaca-py's stream, with our handlers."""

    @abstractmethod
    async def _subscribe(self) -> None:
        """Says what we want to receive."""

    def _confirmed(self) -> None:
        """The server has confirmed the subscription."""
        if self._handshake is not None:
            if self._handshake.expired():
                raise Refused("the subscription was confirmed too late")
            self._handshake.reschedule(None)
            self._handshake = None
            self._put(StreamState(connected=True))

    def _lost(self, detail: str) -> None:
        """Something was lost on a connection that goes on."""
        log.error("alpaca.stream_loss", detail=detail)
        state = StreamState(connected=True, detail=detail)
        if not self._waiting or self._waiting[-1] != state:
            self._put(state)

    def _put(self, item: Item | StreamState) -> None:
        self._waiting.append(item)
        self._arrival.set()

    def _take(self) -> Item | StreamState:
        return self._waiting.popleft()

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        attempts = 0
        while not self._ended:
            await self._ready()
            self._stream = self._new_stream()
            self._got_data = False
            self._given_up = ""
            self._is_refused = False
            started = clock()
            try:
                detail = await self._connection()
                if self._got_data or clock() - started > self._timing.longest_retry_seconds:
                    attempts = 0
                attempts += 1
                delay = reconnect_delay(attempts, self._timing.first_retry_seconds, self._timing.longest_retry_seconds)
                self._put(
                    StreamState(
                        connected=False,
                        detail=self._given_up or detail,
                        retry_seconds=round(delay, 3),
                        is_refused=self._is_refused,
                    )
                )
            finally:
                await self._close()
            await asyncio.sleep(delay)

    async def _connection(self) -> str:
        """Connects and reads until it ends; returns why it did."""
        try:
            # The deadline holds until the subscription is confirmed, however the server is slow: see `_confirmed`.
            async with asyncio.timeout(self._timing.handshake_seconds) as self._handshake:
                await self._stream._start_ws()
                self._stream._running = True
                await self._subscribe()
                await self._read()
        except TimeoutError:
            return "no answer to the handshake"
        except Refused as error:
            self._is_refused = "406" in str(error)
            return f"refused: {error}"
        except websockets.ConnectionClosed as error:
            return f"connection lost: {error}"
        except (websockets.WebSocketException, OSError, *UNREADABLE) as error:
            self._is_refused = "429" in str(error)
            return f"cannot connect: {str(error) or type(error).__name__}"
        finally:
            self._handshake = None
        return "connection closed"

    async def _read(self) -> None:
        while self._stream._ws is not None:
            try:
                await self._stream._consume()
            except UNREADABLE as error:
                if self._stream._ws is None:
                    return  # it was closed here while messages were worked off: alpaca-py reads on, from nothing
                self._lost(f"a message could not be read: {type(error).__name__} {error}")

    async def _close(self) -> None:
        if self._stream is None or self._stream._ws is None:
            return
        connection = self._stream._ws
        with suppress(TimeoutError, OSError, websockets.WebSocketException):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._stream.close()
        if connection.transport is not None:
            connection.transport.abort()

    def _end(self, _task: Any = None) -> None:
        self._ended = True
        self._arrival.set()

    def _websocket_params(self) -> dict[str, Any]:
        return {
            "ping_interval": self._timing.ping_seconds,
            "ping_timeout": self._timing.pong_seconds,
            "open_timeout": self._timing.handshake_seconds,
            "close_timeout": CLOSE_SECONDS / 4,  # websockets waits for it up to four times
            "max_queue": 1024,
            "max_size": None,
        }
