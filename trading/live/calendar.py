"""The sessions of the New York Stock Exchange (calendar `XNYS`): half days, holidays and daylight saving included."""

from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

from trading.live.timetable import Timetable, timetable
from trading.market import Session

FIRST_DATE = date(2000, 1, 1)
LAST_DATE = date(2049, 12, 31)
FULL_SESSION = timedelta(hours=6, minutes=30)
_folder: Path | None = None


class OutsideCalendar(ValueError):
    """A date before `FIRST_DATE` or after `LAST_DATE` was asked for."""


def keep_in(folder: Path) -> None:
    """Has the sessions kept in a file in `folder` from the next look-up on, which then needs no pandas."""
    global _folder
    _folder = folder


def sessions(start: date, end: date) -> list[Session]:
    """All sessions from `start` to `end`, both included, in order."""
    _check(start, end)
    dates = _table().dates
    return [_session(i) for i in range(bisect_left(dates, start.toordinal()), bisect_right(dates, end.toordinal()))]


def session_on(day: date) -> Session | None:
    """The session of a New York date, None on weekends and holidays."""
    found = sessions(day, day)
    return found[0] if found else None


def session_of(moment: datetime) -> Session | None:
    """The session that is open at `moment` (its close no longer belongs to it), None while the market is closed."""
    _check(moment.astimezone(UTC).date())
    index = _opened_by(moment) - 1
    if index < 0:
        return None
    session = _session(index)
    return session if session.contains(moment) else None


def next_session(after: datetime) -> Session:
    """The first session that opens later than `after`."""
    _check(after.astimezone(UTC).date())
    index = _opened_by(after)
    if index == len(_table().dates):
        raise OutsideCalendar(f"the exchange calendar ends on {LAST_DATE}")
    return _session(index)


def previous_sessions(before: date, count: int) -> list[Session]:
    """The last `count` sessions of dates earlier than `before`, in order."""
    _check(before)
    end = bisect_left(_table().dates, before.toordinal())
    if end < count:
        raise OutsideCalendar(f"the exchange calendar has no {count} sessions before {before}")
    return [_session(index) for index in range(end - count, end)]


def is_half_day(day: date) -> bool:
    """Whether the exchange opens on that date for less than a full session."""
    session = session_on(day)
    return session is not None and session.close - session.open < FULL_SESSION


def _check(*days: date) -> None:
    for day in days:
        if not FIRST_DATE <= day <= LAST_DATE:
            raise OutsideCalendar(f"{day} lies outside the exchange calendar, {FIRST_DATE} to {LAST_DATE}")


def _opened_by(moment: datetime) -> int:
    """How many sessions have opened at or before the moment."""
    return bisect_right(_table().opens, moment.timestamp())


@cache
def _table() -> Timetable:
    return timetable(FIRST_DATE, LAST_DATE, _folder)


@cache
def _session(index: int) -> Session:
    table = _table()
    return Session(
        date=date.fromordinal(table.dates[index]),
        open=datetime.fromtimestamp(table.opens[index], UTC),
        close=datetime.fromtimestamp(table.closes[index], UTC),
    )
