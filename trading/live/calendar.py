"""The sessions of the New York Stock Exchange (calendar `XNYS`): half days, holidays and daylight saving included."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from trading.market import Session

FIRST_DATE = date(2000, 1, 1)
LAST_DATE = date(2049, 12, 31)
FULL_SESSION = timedelta(hours=6, minutes=30)


class OutsideCalendar(ValueError):
    """A date before `FIRST_DATE` or after `LAST_DATE` was asked for."""


def sessions(start: date, end: date) -> list[Session]:
    """All sessions from `start` to `end`, both included, in order."""
    _check(start, end)
    table = _sessions()
    return list(table[bisect_left(table, start, key=_date) : bisect_right(table, end, key=_date)])


def session_on(day: date) -> Session | None:
    """The session of a New York date, None on weekends and holidays."""
    found = sessions(day, day)
    return found[0] if found else None


def session_of(moment: datetime) -> Session | None:
    """The session that is open at `moment` (its close no longer belongs to it), None while the market is closed."""
    _check(moment.astimezone(UTC).date())
    table = _sessions()
    index = bisect_right(table, moment, key=_open) - 1
    return table[index] if index >= 0 and table[index].contains(moment) else None


def next_session(after: datetime) -> Session:
    """The first session that opens later than `after`."""
    _check(after.astimezone(UTC).date())
    table = _sessions()
    index = bisect_right(table, after, key=_open)
    if index == len(table):
        raise OutsideCalendar(f"the exchange calendar ends on {LAST_DATE}")
    return table[index]


def previous_sessions(before: date, count: int) -> list[Session]:
    """The last `count` sessions of dates earlier than `before`, in order."""
    _check(before)
    table = _sessions()
    end = bisect_left(table, before, key=_date)
    if end < count:
        raise OutsideCalendar(f"the exchange calendar has no {count} sessions before {before}")
    return list(table[end - count : end])


def is_half_day(day: date) -> bool:
    """Whether the exchange opens on that date for less than a full session."""
    session = session_on(day)
    return session is not None and session.close - session.open < FULL_SESSION


def _check(*days: date) -> None:
    for day in days:
        if not FIRST_DATE <= day <= LAST_DATE:
            raise OutsideCalendar(f"{day} lies outside the exchange calendar, {FIRST_DATE} to {LAST_DATE}")


def _date(session: Session) -> date:
    return session.date


def _open(session: Session) -> datetime:
    return session.open


@lru_cache(maxsize=1)
def _sessions() -> Sequence[Session]:
    # Imported on first use: it brings pandas, some 100 MB and a second. From then on only plain values are searched.
    import exchange_calendars

    calendar = exchange_calendars.get_calendar("XNYS", start=FIRST_DATE.isoformat(), end=LAST_DATE.isoformat())
    return tuple(
        Session(date=day.date(), open=_utc(opens), close=_utc(closes))
        for day, opens, closes in zip(calendar.sessions, calendar.opens, calendar.closes, strict=True)
    )


def _utc(moment: Any) -> datetime:
    """A pandas timestamp as a plain datetime whose zone is `datetime.UTC`."""
    plain: datetime = moment.to_pydatetime()
    return plain.astimezone(UTC)
