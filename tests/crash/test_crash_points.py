"""The engine, killed with -9 at every point of a short day and started again: ledger and broker agree in the end."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_crash_of_a_short_day_loses_or_doubles_anything() -> None:
    """Over a hundred engines, each of which starts anew: a minute on two cores."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--day", "short", "--jobs", "2"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ALGO_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1].split()
    passed, points = summary[1], summary[3]
    assert passed == points
    assert int(points) > 80
