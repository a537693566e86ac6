"""Long tasks are restarted with growing pauses; a critical one that keeps failing asks for shutdown."""

import asyncio

import pytest

from trading.live.supervisor import Supervisor, Work


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Watched:
    """A supervisor on its own time, and what it asked for."""

    def __init__(self) -> None:
        self.time = Time()
        self.reasons: list[str] = []
        self.supervisor = Supervisor(self.reasons.append, clock=self.time.clock, sleep=self.time.sleep)


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def broken() -> None:
    raise OSError("no route")


async def ending() -> None:
    return


async def cancelled_inside() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


def times(count: int, failing: Work) -> Work:
    """Work that fails so often and then runs for ever."""
    left = [count]

    async def work() -> None:
        if left[0]:
            left[0] -= 1
            await failing()
        else:
            await asyncio.Event().wait()

    return work


async def test_pauses_grow_to_half_a_minute_and_a_task_that_matters_little_goes_on(watched: Watched) -> None:
    watched.supervisor.start("report", times(9, broken), critical=False)
    await settle()
    assert watched.time.slept == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert watched.reasons == []
    await watched.supervisor.stop()


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (broken, "OSError: no route"),
        (ending, "it ended"),
        (cancelled_inside, "something it waited for was cancelled"),
    ],
)
async def test_the_third_failure_of_a_critical_task_asks_for_shutdown_once(
    watched: Watched, work: Work, why: str
) -> None:
    watched.supervisor.start("bars", work)
    await settle()
    assert watched.reasons == [f"bars failed 3 times within 5 minutes: {why}"]
    assert watched.time.slept == [1, 2]
    await watched.supervisor.stop()


async def test_failures_more_than_five_minutes_apart_are_forgiven(watched: Watched) -> None:
    async def work() -> None:
        watched.time.now += 151
        if watched.time.now > 2000:
            await asyncio.Event().wait()
        raise OSError("now and then")

    watched.supervisor.start("bars", work)
    await settle()
    assert watched.reasons == []
    assert set(watched.time.slept) == {1, 2}
    await watched.supervisor.stop()


async def test_a_task_that_recovers_is_not_restarted_again(watched: Watched) -> None:
    watched.supervisor.start("bars", times(2, broken))
    await settle()
    assert watched.time.slept == [1, 2]
    assert watched.reasons == []
    await watched.supervisor.stop()


async def test_stopping_cancels_and_waits_until_the_task_has_cleaned_up(watched: Watched) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned up")

    watched.supervisor.start("one", work)
    watched.supervisor.start("two", work)
    await settle()
    await watched.supervisor.stop("one")
    assert seen == ["cleaned up"]
    await watched.supervisor.stop()
    assert seen == ["cleaned up"] * 2
    assert watched.reasons == []


async def test_stopping_during_a_pause_ends_the_task() -> None:
    started: list[str] = []

    async def work() -> None:
        started.append("again")
        await broken()

    supervisor = Supervisor(lambda reason: None)  # on real time: the first pause lasts a second
    supervisor.start("bars", work)
    await settle()
    await supervisor.stop()
    assert started == ["again"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_task_that_failed_for_good_does_not_disturb_the_stop(watched: Watched) -> None:
    watched.supervisor.start("bars", broken)
    await settle()
    await watched.supervisor.stop()
    await watched.supervisor.stop("bars", "unknown")
    assert len(watched.reasons) == 1
    watched.supervisor.start("bars", times(0, broken))  # its name is free again
    await watched.supervisor.stop()


async def test_two_tasks_of_one_name_are_refused(watched: Watched) -> None:
    watched.supervisor.start("bars", times(0, broken))
    with pytest.raises(ValueError, match="running already"):
        watched.supervisor.start("bars", ending)
    await settle()
    assert watched.time.slept == []  # the first one goes on, and the other never ran and ended
    await watched.supervisor.stop()


async def test_a_failing_task_leaves_the_others_alone(watched: Watched) -> None:
    turns_after_the_failure: list[int] = []

    async def other() -> None:
        while True:
            await asyncio.sleep(0)
            if watched.reasons:
                turns_after_the_failure.append(len(watched.reasons))

    watched.supervisor.start("other", other)
    watched.supervisor.start("bars", broken)
    await settle()
    assert len(turns_after_the_failure) > 1
    await watched.supervisor.stop()
