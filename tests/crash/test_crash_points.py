"""The engine, killed with -9 at every point of a short day and started again: ledger and broker agree in the end."""

import os
import subprocess
import sys
from pathlib import Path

from tests import databases
from tests.requirements_for_tests import require

ROOT = Path(__file__).parents[2]


def play(*arguments: str) -> list[str]:
    """What a run of crash points says, once it has passed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--day", "short", "--jobs", "2", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ALGO_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].split()


def test_no_crash_of_a_short_day_loses_or_doubles_anything() -> None:
    """Over a hundred engines, each of which starts anew: a minute on two cores."""
    summary = play()
    passed, points = summary[1], summary[3]
    assert passed == points
    assert int(points) > 80


def test_shares_whose_stop_was_never_sent_are_protected_although_the_engine_is_killed_twice() -> None:
    """Killed before its request left, and the next engine again at every sixth of the points of its recovery."""
    summary = play("--point", "before broker submit_order(sell stop) #1", "--double", "6")
    assert summary[1] == summary[3] == "10"
    assert int(summary[7].removeprefix("(")) >= 8


def test_an_engine_killed_while_it_writes_to_postgresql_leaves_a_transaction_that_holds_nobody_up() -> None:
    """Before the commit that says that a stop is on its way: the server finds its client gone, and takes that back."""
    require(databases.postgres_answers(), "no PostgreSQL server answers at ALGO_TEST_POSTGRES_URL")
    covered = "order_event(canceled,created,submitted)"  # the entry's rest, and the stop
    summary = play(
        *("--database", "postgres", "--point", f"before commit order_state update:order_state {covered} activity #1"),
        *("--double", "20"),
    )
    assert summary[1] == summary[3] == "3"
