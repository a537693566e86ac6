"""The exchange's sessions are kept in a file, which is believed only when it is whole and of these very libraries."""

import hashlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import exchange_calendars
import pytest

from trading.live import calendar
from trading.live.timetable import Timetable, timetable

FIRST, LAST = date(2024, 11, 1), date(2025, 1, 31)  # Thanksgiving, Christmas, a day of mourning
ROOT = Path(__file__).parents[2]


def of_the_library(first: date, last: date) -> Timetable:
    frame = exchange_calendars.get_calendar("XNYS", start=first.isoformat(), end=last.isoformat()).schedule
    return Timetable(
        dates=[day.date().toordinal() for day in frame.index],
        opens=[int(moment.timestamp()) for moment in frame["open"]],
        closes=[int(moment.timestamp()) for moment in frame["close"]],
    )


def kept_in(folder: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((folder / "XNYS.json").read_bytes().partition(b"\n")[2])
    return kept


def keep(folder: Path, kept: dict[str, Any]) -> None:
    content = json.dumps(kept).encode()
    folder.mkdir(exist_ok=True)
    (folder / "XNYS.json").write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def test_what_is_kept_is_every_session_of_fifty_years(tmp_path: Path) -> None:
    expected = of_the_library(calendar.FIRST_DATE, calendar.LAST_DATE)
    assert timetable(calendar.FIRST_DATE, calendar.LAST_DATE, tmp_path) == expected
    assert timetable(calendar.FIRST_DATE, calendar.LAST_DATE, tmp_path) == expected


def test_the_second_look_up_is_from_the_file(tmp_path: Path) -> None:
    timetable(FIRST, LAST, tmp_path)
    kept = kept_in(tmp_path)
    kept["sessions"]["closes"][0] += 60
    keep(tmp_path, kept)
    assert timetable(FIRST, LAST, tmp_path).closes[0] == of_the_library(FIRST, LAST).closes[0] + 60


@pytest.mark.parametrize("of", ["exchange-calendars", "pandas", "America/New_York", "first", "last"])
def test_a_file_of_another_version_or_range_is_computed_again(tmp_path: Path, of: str) -> None:
    expected = timetable(FIRST, LAST, tmp_path)
    sound = kept_in(tmp_path)
    wrong = {"origin": {**sound["origin"], of: "other"}, "sessions": {"dates": [1], "opens": [2], "closes": [3]}}
    keep(tmp_path, wrong)
    assert timetable(FIRST, LAST, tmp_path) == expected
    assert kept_in(tmp_path) == sound


@pytest.mark.parametrize("fault", ["empty", "cut off", "a digit changed", "not JSON", "JSON of another kind"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, fault: str) -> None:
    expected = timetable(FIRST, LAST, tmp_path)
    path = tmp_path / "XNYS.json"
    sound = path.read_bytes()
    digit = sound.rindex(b"0")
    if fault == "not JSON":
        path.write_bytes(hashlib.sha256(b"{").hexdigest().encode() + b"\n{")
    elif fault == "JSON of another kind":
        keep(tmp_path, {"sessions": []})
    else:
        damaged = {
            "empty": b"",
            "cut off": sound[: len(sound) // 2],
            "a digit changed": sound[:digit] + b"7" + sound[digit + 1 :],
        }
        path.write_bytes(damaged[fault])
    assert timetable(FIRST, LAST, tmp_path) == expected
    assert path.read_bytes() == sound


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert timetable(FIRST, LAST, tmp_path / "file") == of_the_library(FIRST, LAST)


def test_processes_that_start_at_once_all_find_the_sessions_and_leave_one_sound_file(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from datetime import date; from trading.live.timetable import timetable; "
        f"timetable(date({FIRST:%Y, %-m, %-d}), date({LAST:%Y, %-m, %-d}), pathlib.Path(sys.argv[1]))"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["XNYS.json"]
    assert Timetable(**kept_in(tmp_path)["sessions"]) == of_the_library(FIRST, LAST)
