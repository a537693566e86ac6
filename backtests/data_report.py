"""What the bars of one symbol are worth: what is missing, what cannot be believed, and a grade from A to D."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from trading.columns import MINUTE_SECONDS, PRICE_UNITS, BarColumns, Flags, Integers, session_times, to_moment
from trading.market import Session

FULL_SESSION = timedelta(hours=6, minutes=30)
DETAILS = 50  # of each kind of fault so many are kept one by one
# A session is of odd volume when its minutes trade less, or more, than this many times those of the middle session.
ODD_VOLUME = 10
# A price is suspect when it lies this far beyond its own bar's open and close and beyond both neighbours.
SUSPECT_SHARE = Fraction(5, 100)
# Shares for one, new for old; an overnight jump this near to one of them is a suspected split.
SPLITS = tuple(
    Fraction(new, old) for new, old in ((3, 2), *((n, 1) for n in (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 50)))
)
SPLIT_TOLERANCE = Fraction(5, 100)


class Criterion(NamedTuple):
    """What costs marks: the largest share (a fraction) that is still an A, a B, a C."""

    name: str
    best: Fraction
    good: Fraction
    fair: Fraction


def _criterion(name: str, best: str, good: str, fair: str) -> Criterion:
    return Criterion(name, Fraction(best), Fraction(good), Fraction(fair))


MISSING = _criterion("minutes missing", "0.005", "0.02", "0.10")
ABSENT = _criterion("sessions without a bar", "0", "0.01", "0.05")
REJECTED = _criterion("rows that hold no bar", "0", "0.001", "0.01")
REPEATED = _criterion("rows of a minute seen before", "0", "0.001", "0.01")
NO_VOLUME = _criterion("bars without volume", "0.005", "0.02", "0.10")
ODD = _criterion("sessions of odd volume", "0", "0.05", "0.20")
SUSPECT = _criterion("bars with a suspect price", "0", "0.0001", "0.001")
SPLIT = _criterion("sessions that open like after a split", "0", "0", "0")
FOREIGN = _criterion("sessions of another source than most", "0", "0.01", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A session with bars that lacks some: how many, and how many in a row at most."""

    date: date
    missing: int
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OddVolume:
    """A session whose minutes trade `ratio` times what those of the middle session do."""

    date: date
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectedSplit:
    """A jump from the last price before a session to its first one that looks like a split, `3:2` new for old."""

    date: date
    ratio: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """The bars of one symbol in some sessions.

    `expected` minutes are those of the sessions, `missing_minutes` of them have no bar; `gaps` tell of sessions that
    have some, `absent` are the others. `rejected` and `duplicates` rows of a file were left out, `rounded` prices had
    more than 4 decimals. `suspect_prices` are the bars in which one lies far off. `sources` counts sessions by where
    they were fetched from. Lists of dates and bars end after 50; the counts beside them do not. `reasons` say what
    keeps the grade from being an A, the worst first.
    """

    symbol: str
    sessions: int
    bars: int
    expected: int
    first: datetime | None
    last: datetime | None
    missing_minutes: int
    sessions_with_gaps: int
    gaps: tuple[Gap, ...]
    sessions_absent: int
    absent: tuple[date, ...]
    half_days: tuple[date, ...]
    rejected: int
    duplicates: int
    rounded: int
    bars_without_volume: int
    odd_volume: tuple[OddVolume, ...]
    bars_with_suspect_prices: int
    suspect_prices: tuple[datetime, ...]
    suspected_splits: tuple[SuspectedSplit, ...]
    sources: dict[str, int]
    grade: str
    reasons: tuple[str, ...]


def examine(
    bars: BarColumns,
    sessions: Sequence[Session],
    *,
    rejected: int = 0,
    duplicates: int = 0,
    rounded: int = 0,
    sources: Iterable[str] = (),
) -> DataReport:
    """The report on the bars of these sessions; bars before them are looked at for a split at the first open alone.

    `sources` names, for each session that was fetched, where from.
    """
    opens, closes = session_times(sessions)
    starts, ends = np.searchsorted(bars.timestamps, opens), np.searchsorted(bars.timestamps, closes)
    counts, lengths = ends - starts, (closes - opens) // MINUTE_SECONDS
    inside = bars.within(sessions)
    gaps = [
        Gap(date=sessions[place].date, missing=int(lengths[place] - counts[place]), longest=_longest_gap(*span))
        for place in np.flatnonzero((counts > 0) & (counts < lengths)).tolist()
        for span in [(bars.timestamps[starts[place] : ends[place]], opens[place], closes[place])]
    ]
    absent = [sessions[place].date for place in np.flatnonzero(counts == 0).tolist()]
    odd = _odd_volume(bars, sessions, starts, ends)
    suspect = np.flatnonzero(_suspect_prices(inside, opens))
    splits = _suspected_splits(bars, sessions, starts, counts)
    without_volume = int((inside.volume == 0).sum())
    by_source = _counted(sources)
    rows = len(inside) + rejected + duplicates
    expected = int(lengths.sum())
    missing = expected - len(inside)
    found = {
        MISSING: (missing, expected),
        ABSENT: (len(absent), len(sessions)),
        REJECTED: (rejected, rows),
        REPEATED: (duplicates, rows),
        NO_VOLUME: (without_volume, len(inside)),
        ODD: (len(odd), len(sessions)),
        SUSPECT: (len(suspect), len(inside)),
        SPLIT: (len(splits), len(sessions)),
        FOREIGN: (sum(sorted(by_source.values())[:-1]), len(sessions)),
    }
    grades = {criterion: _grade(criterion, *share) for criterion, share in found.items()}
    return DataReport(
        symbol=bars.symbol,
        sessions=len(sessions),
        bars=len(inside),
        expected=expected,
        first=to_moment(int(inside.timestamps[0])) if len(inside) else None,
        last=to_moment(int(inside.timestamps[-1])) if len(inside) else None,
        missing_minutes=missing,
        sessions_with_gaps=len(gaps),
        gaps=tuple(gaps[:DETAILS]),
        sessions_absent=len(absent),
        absent=tuple(absent[:DETAILS]),
        half_days=tuple(session.date for session in sessions if session.close - session.open < FULL_SESSION),
        rejected=rejected,
        duplicates=duplicates,
        rounded=rounded,
        bars_without_volume=without_volume,
        odd_volume=tuple(odd[:DETAILS]),
        bars_with_suspect_prices=len(suspect),
        suspect_prices=tuple(to_moment(int(inside.timestamps[place])) for place in suspect[:DETAILS]),
        suspected_splits=tuple(splits[:DETAILS]),
        sources=by_source,
        grade=max(grades.values(), default="A"),
        reasons=tuple(
            f"{found[criterion][0]:,} of {found[criterion][1]:,} {criterion.name}"
            for criterion in sorted(grades, key=lambda each: grades[each], reverse=True)
            if grades[criterion] > "A"
        ),
    )


def _grade(criterion: Criterion, part: int, whole: int) -> str:
    share = Fraction(part, whole) if whole else Fraction(0)
    if share <= criterion.best:
        return "A"
    if share <= criterion.good:
        return "B"
    return "C" if share <= criterion.fair else "D"


def _counted(sources: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for source in sources:
        counts[source] = counts.get(source, 0) + 1
    return dict(sorted(counts.items()))


def _longest_gap(timestamps: Integers, opens: int, closes: int) -> int:
    """The largest number of minutes in a row without a bar."""
    edges = np.r_[opens - MINUTE_SECONDS, timestamps, closes]
    return int(np.diff(edges).max()) // MINUTE_SECONDS - 1


def _odd_volume(bars: BarColumns, sessions: Sequence[Session], starts: Integers, ends: Integers) -> list[OddVolume]:
    """Sessions whose mean volume a minute is far from that of the middle one."""
    total = np.r_[np.int64(0), np.cumsum(bars.volume)]
    places = np.flatnonzero(ends > starts)
    means = (total[ends] - total[starts])[places] / (ends - starts)[places]
    ordered = np.sort(means)  # np.median loads masked arrays
    middle = float(ordered[(len(means) - 1) // 2] + ordered[len(means) // 2]) / 2 if len(means) else 0.0
    if not middle:
        return []
    is_odd = (means * ODD_VOLUME < middle) | (means > middle * ODD_VOLUME)
    return [
        OddVolume(date=sessions[place].date, ratio=mean / middle)
        for place, mean in zip(places[is_odd].tolist(), means[is_odd].tolist(), strict=True)
    ]


def _suspect_prices(bars: BarColumns, opens: Integers) -> Flags:
    """Bars whose high or low lies far beyond their open and close and, in the session, both neighbours' prices."""
    session = np.searchsorted(opens, bars.timestamps, side="right")
    is_followed = np.append(session[1:] == session[:-1], np.False_)[: len(bars)]
    follows = np.append(np.False_, session[1:] == session[:-1])[: len(bars)]
    before, after = np.roll(bars.close, 1), np.roll(bars.open, -1)
    tops = np.maximum(bars.open, bars.close)
    tops = np.maximum(tops, np.where(follows, before, 0))
    tops = np.maximum(tops, np.where(is_followed, after, 0))
    bottoms = np.minimum(bars.open, bars.close)
    bottoms = np.minimum(bottoms, np.where(follows, before, bottoms))
    bottoms = np.minimum(bottoms, np.where(is_followed, after, bottoms))
    part, whole = SUSPECT_SHARE.numerator, SUSPECT_SHARE.denominator
    too_high: Flags = (bars.high - tops) * whole > tops * part
    too_low: Flags = (bottoms - bars.low) * whole > bottoms * part
    return too_high | too_low


def _suspected_splits(
    bars: BarColumns, sessions: Sequence[Session], starts: Integers, counts: Integers
) -> list[SuspectedSplit]:
    """Sessions whose first price is to the one before as after a usual split, forward or reverse."""
    places = np.flatnonzero((counts > 0) & (starts > 0))
    befores, afters = bars.close[starts[places] - 1], bars.open[starts[places]]
    least = min(SPLITS) * (1 - SPLIT_TOLERANCE)
    is_jump = np.maximum(befores, afters) >= np.minimum(befores, afters) * float(least)
    found = []
    for place, before, after in zip(
        places[is_jump].tolist(), befores[is_jump].tolist(), afters[is_jump].tolist(), strict=True
    ):
        jump = Fraction(max(before, after), min(before, after))
        split = min(SPLITS, key=lambda usual: abs(jump / usual - 1))
        if abs(jump / split - 1) <= SPLIT_TOLERANCE:
            new, old = (split.numerator, split.denominator) if before > after else (split.denominator, split.numerator)
            found.append(
                SuspectedSplit(
                    date=sessions[place].date,
                    ratio=f"{new}:{old}",
                    before=before / PRICE_UNITS,
                    after=after / PRICE_UNITS,
                )
            )
    return found
