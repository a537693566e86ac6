"""The exchange's sessions: holidays, half days and daylight saving, always in UTC."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from trading.live import calendar


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(day: str) -> str:
    session = calendar.session_on(date.fromisoformat(day))
    return f"{session.open:%H:%M}-{session.close:%H:%M}" if session else "closed"


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-02-13", "14:30-21:00"),  # an ordinary Friday in winter
        ("2026-02-14", "closed"),  # Saturday
        ("2026-01-01", "closed"),
        ("2026-03-06", "14:30-21:00"),  # the Friday before the clocks go forward
        ("2026-03-09", "13:30-20:00"),  # the Monday after
        ("2026-10-30", "13:30-20:00"),
        ("2026-11-02", "14:30-21:00"),
        ("2025-11-28", "14:30-18:00"),  # the day after Thanksgiving
        ("2015-12-24", "14:30-18:00"),
        ("2025-01-09", "closed"),  # a national day of mourning
        ("2010-01-04", "14:30-21:00"),
    ],
)
def test_hours_of_a_day_in_utc(day: str, expected: str) -> None:
    assert hours(day) == expected


def test_only_short_sessions_are_half_days() -> None:
    assert calendar.is_half_day(date(2025, 11, 28))
    assert not calendar.is_half_day(date(2025, 11, 26))
    assert not calendar.is_half_day(date(2025, 11, 27))  # Thanksgiving itself is no session at all


def test_a_moment_belongs_to_the_session_from_the_open_until_just_before_the_close() -> None:
    session = calendar.session_on(date(2026, 2, 13))
    assert session is not None
    assert calendar.session_of(utc("2026-02-13 14:29:59")) is None
    assert calendar.session_of(utc("2026-02-13 14:30")) == session
    assert calendar.session_of(utc("2026-02-13 20:59:59")) == session
    assert calendar.session_of(utc("2026-02-13 21:00")) is None


def test_the_next_session_after_a_weekend_a_holiday_and_during_a_session() -> None:
    assert calendar.next_session(utc("2026-02-14 12:00")).open == utc("2026-02-17 14:30")  # Monday is Presidents' Day
    assert calendar.next_session(utc("2026-02-13 15:00")).date == date(2026, 2, 17)
    assert calendar.next_session(utc("2026-02-13 14:29")).date == date(2026, 2, 13)
    assert calendar.next_session(utc("2026-02-13 14:30")).date == date(2026, 2, 17)


def test_a_range_includes_both_ends() -> None:
    week = calendar.sessions(date(2026, 2, 13), date(2026, 2, 18))
    assert [session.date.isoformat() for session in week] == ["2026-02-13", "2026-02-17", "2026-02-18"]
    assert calendar.sessions(date(2026, 2, 14), date(2026, 2, 16)) == []


def test_previous_sessions_end_before_the_given_date() -> None:
    earlier = calendar.previous_sessions(date(2026, 2, 17), 3)
    assert [session.date.isoformat() for session in earlier] == ["2026-02-11", "2026-02-12", "2026-02-13"]
    assert calendar.previous_sessions(date(2026, 2, 17), 0) == []


def test_every_time_is_a_plain_utc_datetime() -> None:
    for session in calendar.sessions(date(2025, 1, 1), date(2025, 12, 31)):
        for moment in (session.open, session.close):
            assert type(moment) is datetime
            assert moment.tzinfo is UTC
        assert type(session.date) is date


def test_more_than_a_year_ahead_is_known() -> None:
    ahead = datetime.now(UTC) + timedelta(days=500)
    assert calendar.next_session(ahead).open > ahead


@pytest.mark.parametrize("day", [date(1999, 12, 31), date(2050, 1, 1)])
def test_dates_outside_the_calendar_are_an_error_that_says_so(day: date) -> None:
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    for question in (
        lambda: calendar.session_on(day),
        lambda: calendar.is_half_day(day),
        lambda: calendar.session_of(moment),
        lambda: calendar.next_session(moment),
        lambda: calendar.previous_sessions(day, 1),
    ):
        with pytest.raises(calendar.OutsideCalendar, match="2000-01-01 to 2049-12-31"):
            question()


def test_running_out_of_sessions_at_either_end_is_an_error() -> None:
    with pytest.raises(calendar.OutsideCalendar, match="ends"):
        calendar.next_session(utc("2049-12-31 23:00"))
    with pytest.raises(calendar.OutsideCalendar, match="no 5 sessions"):
        calendar.previous_sessions(date(2000, 1, 4), 5)


def test_importing_the_module_does_not_load_pandas() -> None:
    program = "import sys, trading.live.calendar; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
