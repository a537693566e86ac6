"""The fault simulation itself, on a few stories; `make simulate` plays as many as one likes."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.stories import MIDDAY, Story, Wish, story_of
from tests.simulation.world import Outcome, play
from trading.simulator.faults import Fault, Kind, On, Schedule


def played(story: Story, template: Path | str, folder: Path, mutation: str = "") -> Outcome:
    return play(story, template=template, folder=folder, parts=MUTATIONS[mutation] if mutation else None)


@pytest.mark.parametrize("seed", [4, 10])
def test_a_seed_tells_the_same_story_twice(migrated_sqlite: Path, tmp_path: Path, seed: int) -> None:
    """I7, and more: with all its faults and kills a seed leads to the same events in the same order."""
    first, second = (played(story_of(seed), migrated_sqlite, tmp_path) for _ in range(2))
    assert first.violation is None
    assert first.orders > 3
    assert first.at_the_broker == second.at_the_broker
    assert first.struck == second.struck


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
def test_a_stop_that_was_rate_limited_twice_goes_out_as_soon_as_the_broker_takes_requests_again(
    migrated_sqlite: Path, tmp_path: Path, header: str
) -> None:
    """Nothing was sent, and nobody waits to find that out: not one second more than the broker asks for, twice."""
    by_name = header == "Retry-After"
    wait_seconds = 3.0 if by_name else 2.0  # by the other header it is a second more
    limits = Fault(on=On.SUBMIT, kind=Kind.RATE_LIMITED, number=2, times=2, done=by_name, seconds=wait_seconds)
    story = replace(story_of(14), symbols=("AAPL",), schedule=Schedule(faults=(limits,)), crashes=(), wishes=())
    outcome = played(story, migrated_sqlite, tmp_path)
    assert outcome.violation is None
    assert len(outcome.struck) == 2
    entry, fill, stop = outcome.at_the_broker[:3]
    assert [line.split()[4] for line in (entry, fill, stop)] == ["order", "sells", "order"]
    assert 6.0 <= outcome.naked_seconds[0] <= 7.0


def test_schedules_follow_from_the_seed_alone() -> None:
    assert story_of(7) == story_of(7)
    assert len({story_of(seed).schedule.faults for seed in range(50)}) == 50


@pytest.mark.parametrize("seed", [3, 5])
def test_stories_with_kills_hold_with_the_ledger_on_postgresql(
    migrated_postgres: str, tmp_path: Path, seed: int
) -> None:
    outcome = played(story_of(seed), migrated_postgres, tmp_path)
    assert outcome.violation is None
    assert outcome.crashes >= 1
    assert outcome.orders >= 4


def test_a_violation_is_told_with_its_story(migrated_sqlite: Path, tmp_path: Path) -> None:
    story = Story(
        seed=4,
        symbols=("AAPL",),
        part_of_day=MIDDAY,
        minutes=3,
        schedule=Schedule(),
        wishes=(Wish(after_seconds=60, kind="second engine"),),
    )
    assert played(story, migrated_sqlite, tmp_path).violation is None
    outcome = played(story, migrated_sqlite, tmp_path, mutation="lock")
    assert outcome.violation == "I2 two engines run on one database"
    assert any("second engine" in line for line in outcome.happened)


# --- defects that the simulation found --------------------------------------------------------------------------------


def test_a_stop_that_filled_unheard_is_found_although_its_replacement_was_refused(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    """It was looked up by the client id of the replacement, which the broker never took."""
    schedule = Schedule(
        faults=(
            Fault(on=On.UPDATE, kind=Kind.MUTE, number=7, seconds=60.0),
            Fault(on=On.REPLACING, kind=Kind.REFUSED, number=4),
        )
    )
    story = replace(story_of(14), schedule=schedule, crashes=(), wishes=())
    assert played(story, migrated_sqlite, tmp_path).violation is None
