"""The market's lockstep with an engine in another process, and that market's clock: how two processes share one step.

The market waits for an idle engine as it does for one in its own process, also while there is none: then no time
passes. Lines of JSON go over a UNIX socket. The clock is eight bytes of shared memory, written before anything that is
sent at that time.
"""

import asyncio
import json
import mmap
import os
import struct
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading.simulator.lockstep import Lockstep

if TYPE_CHECKING:
    from trading.live.engine import Engine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CLOCK = struct.Struct("q")


class SharedClock:
    """Market time, told by one process and read by another."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            if not file.tell():
                file.write(CLOCK.pack(0))
                file.flush()
            self._memory = mmap.mmap(file.fileno(), CLOCK.size)

    def tell(self, moment: datetime) -> None:
        """It is this time now."""
        CLOCK.pack_into(self._memory, 0, (moment - EPOCH) // MICROSECOND)

    def __call__(self) -> datetime:
        (microseconds,) = CLOCK.unpack_from(self._memory, 0)
        return EPOCH + int(microseconds) * MICROSECOND


class MarketEnd:
    """What stands for the engine in the market's process."""

    def __init__(self, lockstep: Lockstep) -> None:
        self.engine_pid = 0
        self.present = asyncio.Event()
        self._lockstep = lockstep
        self._state: dict[str, Any] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._fired: asyncio.Future[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> asyncio.Server:
        """Takes engines, one after the other."""
        return await asyncio.start_unix_server(self._serve, path)

    def next_due(self) -> datetime | None:
        """The engine's next timer."""
        due = self._state.get("due")
        return datetime.fromisoformat(due) if due else None

    def is_idle(self) -> bool:
        """Whether an engine is there that waits for the market."""
        return bool(self._state.get("idle"))

    async def fire_timers(self, at: datetime) -> None:
        """The engine fires what is due; one that dies over it leaves that to the next."""
        while True:
            await self.present.wait()
            self._fired = asyncio.get_running_loop().create_future()
            self._send({"fire": at.isoformat()})
            await self._fired
            if self.present.is_set():
                return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            async for line in reader:
                self._take(json.loads(line))
        finally:
            writer.close()
            self._writer, self._state = None, {}
            self.present.clear()
            self._has_fired()
            self._lockstep.changed()

    def _take(self, message: dict[str, Any]) -> None:
        self._state.update(message.get("state", {}))
        if "begin" in message:
            self.engine_pid = message["begin"]
            self.present.set()
        if "worked" in message:
            self._lockstep.worked_off(message["worked"])
        if "fired" in message:
            self._has_fired()
        if "settle" in message:
            task = asyncio.create_task(self._settle())
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        self._lockstep.changed()

    def _has_fired(self) -> None:
        if self._fired is not None and not self._fired.done():
            self._fired.set_result(None)

    async def _settle(self) -> None:
        await self._lockstep.settled()
        self._send({"settled": True})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")


class EngineEnd:
    """What stands for the market's lockstep in the engine's process."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._told: dict[str, Any] = {}
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._settled: asyncio.Future[None] | None = None
        self._firing: asyncio.Task[None] | None = None

    async def connect(self, path: Path) -> None:
        """Reaches the market; it does not go on before `begin`."""
        self._reader, self._writer = await asyncio.open_unix_connection(path)

    async def begin(self, engine: "Engine") -> None:
        """Time may pass now; follows the market for ever."""
        self._engine = engine
        self._send({"begin": os.getpid()})
        async for line in self._reader:
            message = json.loads(line)
            if "fire" in message:
                self._firing = asyncio.create_task(self._fire(datetime.fromisoformat(message["fire"])))
            elif self._settled is not None:
                self._settled.set_result(None)
        await asyncio.Event().wait()  # the market is gone; whoever started both will stop us

    async def _fire(self, at: datetime) -> None:
        if self._engine is not None:
            await self._engine.fire_timers(at)
        self._send({"fired": True})

    # --- what the engine says -----------------------------------------------------------------------------------------

    def worked_off(self, kind: str) -> None:
        """A frame was handled."""
        self._send({"worked": kind})

    def changed(self) -> None:
        """The engine may have become idle."""
        if self._engine is not None and self._state() != self._told:
            self._send({})

    async def settled(self) -> None:
        """The market has carried out what was asked of it, and the engine has seen it."""
        self._settled = asyncio.get_running_loop().create_future()
        self._send({"settle": True})
        await self._settled
        self._settled = None

    def between_steps(self) -> AbstractAsyncContextManager[None]:
        """This market is another process and is held by nobody: what comes from outside may come within a step."""
        return nullcontext()

    def _state(self) -> dict[str, Any]:
        if self._engine is None:
            return {}
        due = self._engine.next_due()
        return {"idle": self._engine.is_idle(), "due": due.isoformat() if due else None}

    def _send(self, message: dict[str, Any]) -> None:
        self._told = self._state()
        self._writer.write(json.dumps({**message, "state": self._told}).encode() + b"\n")
