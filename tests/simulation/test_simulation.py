"""The fault simulation itself, on a few stories; `make simulate` plays as many as one likes."""

from dataclasses import replace
from pathlib import Path

from tests.simulation.mutations import MUTATIONS
from tests.simulation.stories import MIDDAY, Story, Wish, story_of
from tests.simulation.world import Outcome, play
from trading.simulator.faults import Fault, Kind, On, Schedule


def played(story: Story, template: Path, folder: Path, mutation: str = "") -> Outcome:
    return play(story, template=template, folder=folder, parts=MUTATIONS[mutation] if mutation else None)


def test_a_seed_tells_the_same_story_twice(migrated_sqlite: Path, tmp_path: Path) -> None:
    """I7, and more: with all its faults and kills a seed leads to the same events in the same order."""
    first, second = (played(story_of(10), migrated_sqlite, tmp_path) for _ in range(2))
    assert first.violation is None
    assert first.orders > 3
    assert first.at_the_broker == second.at_the_broker
    assert first.struck == second.struck


def test_schedules_follow_from_the_seed_alone() -> None:
    assert story_of(7) == story_of(7)
    assert len({story_of(seed).schedule.faults for seed in range(50)}) == 50


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
