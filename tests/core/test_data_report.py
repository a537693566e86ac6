"""The report on bars: what is missing or not to be believed, and the grade that follows."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtests.data_report import DataReport, Gap, examine
from trading.columns import BarColumns, to_seconds
from trading.live import calendar
from trading.live.barfiles import read_bar_file
from trading.market import Session

WEEK = calendar.sessions(date(2023, 11, 20), date(2023, 11, 27))  # a half day on Friday the 24th
MONDAY, TUESDAY, WEDNESDAY, FRIDAY, NEXT_MONDAY = WEEK
LONG = calendar.sessions(date(2023, 1, 3), date(2023, 12, 29))


class Bars:
    """Quiet minutes at $100 with 1,000 shares, to be spoiled."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        minutes = [
            to_seconds(session.open) + 60 * minute
            for session in sessions
            for minute in range((session.close - session.open) // timedelta(minutes=1))
        ]
        self.timestamps = np.array(minutes, dtype=np.int64)
        size = len(minutes)
        self.open, self.high, self.low, self.close = (np.full(size, 1_000_000) for _ in range(4))
        self.volume = np.full(size, 1000)

    def without(self, *minutes: int) -> "Bars":
        keep = np.setdiff1d(np.arange(len(self.timestamps)), minutes)
        for name in ("timestamps", "open", "high", "low", "close", "volume"):
            setattr(self, name, getattr(self, name)[keep])
        return self

    def report(self, sessions: Sequence[Session] = WEEK, **found: Any) -> DataReport:
        columns = BarColumns(
            symbol="AAPL",
            timestamps=self.timestamps,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
        )
        return examine(columns, sessions, **found)


def test_whole_sessions_are_an_a_and_half_days_are_no_gaps() -> None:
    report = Bars(WEEK).report()
    assert (report.grade, report.reasons) == ("A", ())
    assert (report.sessions, report.bars, report.expected, report.missing_minutes) == (5, 1770, 1770, 0)
    assert report.half_days == (FRIDAY.date,)
    assert (report.first, report.last) == (MONDAY.open, NEXT_MONDAY.close - timedelta(minutes=1))


def test_missing_minutes_are_told_by_the_day() -> None:
    report = Bars(WEEK).without(0, 10, 11, 12, 389, 390 + 7).report()
    assert report.gaps == (Gap(date=MONDAY.date, missing=5, longest=3), Gap(date=TUESDAY.date, missing=1, longest=1))
    assert (report.missing_minutes, report.sessions_with_gaps, report.absent) == (6, 2, ())
    assert (report.grade, report.reasons) == ("A", ())  # 0.34 %
    first_missing = Bars(WEEK).without(*range(30)).report()
    assert first_missing.gaps[0].longest == 30
    assert (first_missing.grade, first_missing.reasons) == ("B", ("30 of 1,770 minutes missing",))


@pytest.mark.parametrize(("missing", "grade"), [(8, "A"), (9, "B"), (35, "B"), (36, "C"), (177, "C"), (178, "D")])
def test_the_more_minutes_are_missing_the_worse_is_the_grade(missing: int, grade: str) -> None:
    assert Bars(WEEK).without(*range(missing)).report().grade == grade


def test_a_session_without_a_bar_is_no_gap_but_absent() -> None:
    report = Bars([MONDAY, TUESDAY, FRIDAY, NEXT_MONDAY]).report()
    assert (report.absent, report.sessions_absent, report.gaps) == ((WEDNESDAY.date,), 1, ())
    assert report.missing_minutes == 390
    assert (report.grade, report.reasons) == ("D", ("390 of 1,770 minutes missing", "1 of 5 sessions without a bar"))


def test_lists_end_but_counts_do_not() -> None:
    report = Bars(LONG[::2]).report(LONG)
    assert (len(report.absent), report.sessions_absent) == (50, 125)


def test_bars_outside_the_sessions_do_not_count() -> None:
    report = Bars(WEEK).report([TUESDAY])
    assert (report.bars, report.expected, report.first) == (390, 390, TUESDAY.open)


def test_no_bars_at_all_are_a_d() -> None:
    report = Bars([]).report()
    assert (report.bars, report.first, report.last, report.grade) == (0, None, None, "D")


@pytest.mark.parametrize(
    ("found", "grade", "reason"),
    [
        ({"rejected": 1}, "B", "1 of 1,771 rows that hold no bar"),
        ({"rejected": 2}, "C", "2 of 1,772 rows that hold no bar"),
        ({"rejected": 20}, "D", "20 of 1,790 rows that hold no bar"),
        ({"duplicates": 1}, "B", "1 of 1,771 rows of a minute seen before"),
    ],
)
def test_what_was_wrong_with_the_file_costs_marks(found: dict[str, Any], grade: str, reason: str) -> None:
    report = Bars(WEEK).report(**found)
    assert (report.grade, report.reasons) == (grade, (reason,))


def test_prices_with_many_decimals_are_told_and_cost_nothing() -> None:
    report = Bars(WEEK).report(rounded=7)
    assert (report.rounded, report.grade) == (7, "A")


def test_minutes_without_volume_are_suspect() -> None:
    bars = Bars(WEEK)
    bars.volume[:20] = 0
    report = bars.report()
    assert (report.bars_without_volume, report.grade) == (20, "B")


def test_a_session_of_ten_times_the_usual_volume_or_a_tenth_is_odd() -> None:
    bars = Bars(WEEK)
    bars.volume[:390] = 10_001
    bars.volume[390:780] = 99
    report = bars.report()
    assert [(odd.date, round(odd.ratio, 4)) for odd in report.odd_volume] == [
        (MONDAY.date, 10.001),
        (TUESDAY.date, 0.099),
    ]
    assert report.grade == "D"
    bars.volume[:390], bars.volume[390:780] = 10_000, 100
    assert bars.report().odd_volume == ()


def test_a_half_day_has_half_the_volume_and_is_not_odd() -> None:
    assert Bars(WEEK).report().odd_volume == ()


def test_a_price_far_from_its_neighbours_is_suspect() -> None:
    bars = Bars(LONG)
    bars.high[700] = 1_050_001
    bars.low[5000] = 949_999
    bars.high[6000] = 1_050_000  # 5 % are not too far
    report = bars.report(LONG)
    assert report.bars_with_suspect_prices == 2
    assert report.suspect_prices[0] == LONG[1].open + timedelta(minutes=310)
    assert (report.grade, report.reasons) == ("B", ("2 of 97,140 bars with a suspect price",))


def test_a_price_that_the_market_goes_to_or_comes_from_is_not_suspect() -> None:
    bars = Bars(WEEK)
    bars.high[100] = bars.open[101] = bars.high[101] = 1_100_000  # it goes on from there, and falls back
    bars.low[0] = bars.open[0] = 900_000  # the first minute of a day has a past elsewhere
    assert bars.report().bars_with_suspect_prices == 0


@pytest.mark.parametrize(
    ("factor", "ratio"),
    [(1 / 7 * 1.01, "7:1"), (0.5, "2:1"), (2 / 3 * 0.97, "3:2"), (10.2, "1:10"), (0.8, ""), (1.3, "")],
)
def test_a_jump_overnight_like_a_split_is_suspected(factor: float, ratio: str) -> None:
    bars = Bars(WEEK)
    for column in (bars.open, bars.high, bars.low, bars.close):
        column[390:] = int(1_000_000 * factor)
    report = bars.report()
    assert [(split.date, split.ratio) for split in report.suspected_splits] == (
        [(TUESDAY.date, ratio)] if ratio else []
    )
    assert report.grade == ("D" if ratio else "A")
    # The bar before the first session is there to compare with, but is no part of the report.
    assert bool(bars.report([TUESDAY]).suspected_splits) is bool(ratio)
    assert bars.report([MONDAY]).suspected_splits == ()


def test_sessions_of_several_feeds_do_not_mix_well() -> None:
    report = Bars(WEEK).report(sources=["iex", "sip", "iex", "iex"])
    assert (report.sources, report.grade) == ({"iex": 3, "sip": 1}, "C")
    assert report.reasons == ("1 of 5 sessions of another source than most",)


# --- real bars --------------------------------------------------------------------------------------------------------


def real(path: Path, start: str, end: str) -> DataReport:
    columns, found = read_bar_file(path, path.name.split(".")[0])
    sessions = calendar.sessions(date.fromisoformat(start), date.fromisoformat(end))
    return examine(columns, sessions, rejected=len(found.rejected), duplicates=len(found.repeated))


def test_apples_split_of_2014_is_seen(shared_data: Path) -> None:
    (split,) = real(shared_data / "lean" / "AAPL.csv.gz", "2014-06-05", "2014-06-09").suspected_splits
    assert (split.date, split.ratio) == (date(2014, 6, 9), "7:1")


@pytest.mark.parametrize(
    ("name", "missing", "grade"),
    [("AAPL", 0, "A"), ("TSLA", 7, "A"), ("AOBC", 17160 - 16012, "C")],
)
def test_real_bars_are_graded_by_what_they_lack(shared_data: Path, name: str, missing: int, grade: str) -> None:
    report = real(shared_data / "stockbot2018" / f"{name}.csv.gz", "2018-02-16", "2018-04-20")
    assert (report.missing_minutes, report.grade) == (missing, grade)
    assert (report.sessions_absent, report.suspected_splits) == (0, ())
