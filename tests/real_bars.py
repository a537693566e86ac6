"""Real minute bars, kept beside the project and never in it."""

import csv
import gzip
from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

from tests.requirements_for_tests import require
from trading.market import Bar

FOLDER = Path(__file__).parents[2] / "shared" / "data"


def real_days(file: str) -> dict[date, list[Bar]]:
    """The regular sessions of one file, oldest first; bars that the source lacks are lacking here too."""
    path = FOLDER / file
    require(path.exists(), f"real bars are not on this machine: {file}")
    days: dict[date, list[Bar]] = defaultdict(list)
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            stamp = datetime.fromisoformat(row["timestamp"])
            days[stamp.date()].append(
                Bar(
                    symbol=path.name.partition(".")[0],
                    timestamp=stamp,
                    open=Decimal(row["open"]),
                    high=Decimal(row["high"]),
                    low=Decimal(row["low"]),
                    close=Decimal(row["close"]),
                    volume=int(row["volume"]),
                )
            )
    return days
