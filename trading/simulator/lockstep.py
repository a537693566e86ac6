"""The handshake of the built-in market with an engine in the same process: the market waits until all is worked off."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

log = structlog.get_logger("market")

# An engine that is never idle because it waits for the very answer that is held back gets it after this time.
LONGEST_HOLD_SECONDS = 0.25
# Whoever comes between two steps waits so long for the one that is under way, in real time; most take milliseconds.
LONGEST_STEP_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    next_due: Callable[[], datetime | None]
    fire_timers: Callable[[datetime], Awaitable[None]]
    is_idle: Callable[[], bool]


class Lockstep:
    """Counts the frames under way, by kind, and lets the market wait for them and for the engine's timers.

    Without an engine attached nothing is ever waited for. An engine that does not work its frames off within
    `timeout_seconds` of real time is given up on with a warning; the market goes on.
    """

    def __init__(self, *, timeout_seconds: float = 30.0) -> None:
        self._timeout_seconds = timeout_seconds
        self._engine: _Engine | None = None
        self._deliver: Callable[[], Awaitable[bool]] | None = None
        self._under_way: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._stepping = asyncio.Lock()

    # --- the engine's side --------------------------------------------------------------------------------------------

    def attach(
        self,
        *,
        next_due: Callable[[], datetime | None],
        fire_timers: Callable[[datetime], Awaitable[None]],
        is_idle: Callable[[], bool],
    ) -> None:
        """From now on the market waits for this engine.

        `next_due` tells the market time of its earliest timer, `fire_timers` works off all timers due at or before a
        time, `is_idle` says whether nothing is being handled and no request is under way.
        """
        self._engine = _Engine(next_due=next_due, fire_timers=fire_timers, is_idle=is_idle)
        self.changed()

    def detach(self) -> None:
        """The engine leaves; nothing is waited for any more."""
        self._engine = None
        self._under_way.clear()
        self.changed()

    def worked_off(self, kind: str) -> None:
        """One frame of that kind has been handled to the end."""
        if self._under_way[kind] > 0:  # a frame of a connection that was lost meanwhile is not waited for any more
            self._under_way[kind] -= 1
        self.changed()

    def changed(self) -> None:
        """Something that is waited for may have happened: whoever waits looks again."""
        self._changed.set()

    async def settled(self) -> None:
        """Returns when every frame has been worked off, the engine is idle and the market holds nothing back for it."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    while not self._is_settled():
                        if not await self.wait_for_change(LONGEST_HOLD_SECONDS):
                            await self._deliver_held()
                    if not await self._deliver_held():
                        return
        except TimeoutError:
            log.warning("lockstep.engine_stuck", under_way=dict(+self._under_way), seconds=self._timeout_seconds)
            self._under_way.clear()

    @asynccontextmanager
    async def between_steps(self) -> AsyncIterator[None]:
        """Holds the market between two of its steps, so that nothing comes in the middle of one.

        What an operator wants and the engine's end come at a moment of real time; this gives them a place in the order
        of the market's events, in which a run can be repeated. A step that does not end is not waited for.
        """
        is_held = False
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_STEP_SECONDS):
                is_held = await self._stepping.acquire()
        if not is_held:
            log.warning("lockstep.step_does_not_end", seconds=LONGEST_STEP_SECONDS)
        try:
            yield
        finally:
            if is_held:
                self._stepping.release()

    # --- the market's side --------------------------------------------------------------------------------------------

    def serve(self, *, deliver: Callable[[], Awaitable[bool]]) -> None:
        """The market's part: `deliver` sends what it holds back until the engine is idle, False for nothing."""
        self._deliver = deliver

    def step(self) -> asyncio.Lock:
        """To be held by the market while its time moves on and what happens then is told and answered."""
        return self._stepping

    @property
    def is_attached(self) -> bool:
        """Whether there is an engine to wait for."""
        return self._engine is not None

    def frame_sent(self, kind: str) -> None:
        """A frame is on its way to a connected, subscribed client."""
        if self._engine is not None:
            self._under_way[kind] += 1

    def connection_lost(self, kind: str) -> None:
        """What was under way on the connection of that kind will never be worked off."""
        del self._under_way[kind]
        self.changed()

    def next_due(self) -> datetime | None:
        """Market time of the engine's earliest timer."""
        return self._engine.next_due() if self._engine else None

    async def timers(self, at: datetime) -> None:
        """Has the engine work off its timers due at or before `at`, and waits until that is done."""
        if self._engine is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._engine.fire_timers(at)
        except TimeoutError:
            log.warning("lockstep.timers_stuck", at=at.isoformat(), seconds=self._timeout_seconds)
        await self.settled()

    async def wait_for_change(self, timeout_seconds: float) -> bool:
        """Returns at the next change, False if `timeout_seconds` of real time go by without one."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                return await self._changed.wait()
        return False

    async def _deliver_held(self) -> bool:
        return self._deliver is not None and await self._deliver()

    def _is_settled(self) -> bool:
        return self._engine is None or (not +self._under_way and self._engine.is_idle())
