"""The handshake between market and engine: nothing is waited for too long, and nothing is waited for in vain."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trading.simulator.lockstep import Lockstep

NOW = datetime(2024, 3, 4, 15, tzinfo=UTC)


class Engine:
    """An engine of the test: idle or not as it says, with timers that it notes when they fire."""

    def __init__(self, lockstep: Lockstep) -> None:
        self.is_idle = True
        self.due: list[datetime] = []
        self.fired: list[datetime] = []
        lockstep.attach(
            next_due=lambda: min(self.due, default=None), fire_timers=self.fire, is_idle=lambda: self.is_idle
        )

    async def fire(self, at: datetime) -> None:
        self.fired += [due for due in self.due if due <= at]
        self.due = [due for due in self.due if due > at]


async def is_waiting(task: "asyncio.Task[Any]") -> bool:
    await asyncio.sleep(0.02)
    return not task.done()


async def test_without_an_engine_nothing_is_waited_for() -> None:
    lockstep = Lockstep()
    lockstep.frame_sent("bar")
    await lockstep.settled()
    await lockstep.timers(NOW)
    assert lockstep.next_due() is None
    assert not lockstep.is_attached


async def test_the_market_waits_for_every_frame_and_for_idleness() -> None:
    lockstep = Lockstep()
    engine = Engine(lockstep)
    for kind in ("bar", "bar", "update"):
        lockstep.frame_sent(kind)
    waiting = asyncio.create_task(lockstep.settled())
    for kind in ("bar", "update"):
        lockstep.worked_off(kind)
        assert await is_waiting(waiting)
    engine.is_idle = False
    lockstep.worked_off("bar")
    assert await is_waiting(waiting)
    engine.is_idle = True
    lockstep.changed()
    await asyncio.wait_for(waiting, 1)


async def test_a_lost_connections_frames_are_not_waited_for() -> None:
    lockstep = Lockstep()
    Engine(lockstep)
    lockstep.frame_sent("bar")
    waiting = asyncio.create_task(lockstep.settled())
    assert await is_waiting(waiting)
    lockstep.connection_lost("bar")
    await asyncio.wait_for(waiting, 1)
    lockstep.worked_off("bar")  # the engine was still at it
    lockstep.frame_sent("bar")
    waiting = asyncio.create_task(lockstep.settled())
    assert await is_waiting(waiting)
    lockstep.detach()
    await asyncio.wait_for(waiting, 1)


async def test_what_the_market_holds_back_is_delivered_before_it_goes_on() -> None:
    lockstep = Lockstep()
    Engine(lockstep)
    held = ["replaced", "new"]

    async def deliver() -> bool:
        if not held:
            return False
        lockstep.frame_sent("update")
        asyncio.get_running_loop().call_later(0.01, lockstep.worked_off, "update")
        held.pop(0)
        return True

    lockstep.serve(deliver=deliver)
    await lockstep.settled()
    assert held == []


async def test_an_engine_that_waits_for_the_held_answer_gets_it() -> None:
    lockstep = Lockstep()
    engine = Engine(lockstep)
    engine.is_idle = False
    delivered: list[bool] = []

    async def deliver() -> bool:
        if delivered:
            return False
        delivered.append(True)
        engine.is_idle = True
        return True

    lockstep.serve(deliver=deliver)
    await asyncio.wait_for(lockstep.settled(), 2)
    assert delivered == [True]


async def test_a_stuck_engine_is_given_up_on_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lockstep = Lockstep(timeout_seconds=0.05)
    Engine(lockstep)
    lockstep.frame_sent("bar")
    await lockstep.settled()
    await lockstep.settled()  # and it is not waited for again
    assert "lockstep.engine_stuck" in caplog.text


async def test_timers_that_hang_are_given_up_on_too(caplog: pytest.LogCaptureFixture) -> None:
    lockstep = Lockstep(timeout_seconds=0.05)
    lockstep.attach(next_due=lambda: None, fire_timers=lambda at: asyncio.sleep(60), is_idle=lambda: True)
    await lockstep.timers(NOW)
    assert "lockstep.timers_stuck" in caplog.text


async def test_timers_fire_at_the_time_the_market_says() -> None:
    lockstep = Lockstep()
    engine = Engine(lockstep)
    engine.due = [NOW, NOW + timedelta(seconds=90)]
    assert lockstep.next_due() == NOW
    await lockstep.timers(NOW + timedelta(seconds=30))
    assert (engine.fired, lockstep.next_due()) == ([NOW], NOW + timedelta(seconds=90))


# --- what comes from outside the market -------------------------------------------------------------------------------


async def test_what_comes_between_two_steps_waits_for_the_one_under_way_and_holds_up_the_next() -> None:
    lockstep = Lockstep()
    happened: list[str] = []

    async def operator() -> None:
        async with lockstep.between_steps():
            happened.append("halted")
            await asyncio.sleep(0.02)
            happened.append("written down")

    async with lockstep.step():
        halting = asyncio.create_task(operator())
        assert await is_waiting(halting)
        happened.append("first minute")
    async with lockstep.step():
        happened.append("second minute")
    assert happened == ["first minute", "halted", "written down", "second minute"]
    await halting


async def test_a_step_that_does_not_end_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    lockstep = Lockstep()
    async with lockstep.step():
        async with lockstep.between_steps():
            assert "lockstep.step_does_not_end" in caplog.text
        waiting = asyncio.create_task(lockstep.step().acquire())
        assert await is_waiting(waiting)  # the step is still the market's
    await waiting
