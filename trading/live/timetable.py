"""The hours of the exchange's sessions as exchange-calendars knows them, kept in a file once they are computed.

The library brings pandas and takes a second or two; reading the file takes a few milliseconds. What is kept names the
versions it was computed with and carries a checksum: with any doubt it is computed and written again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH

EXCHANGE, ZONE = "XNYS", "America/New_York"
LIBRARIES = ("exchange-calendars", "pandas")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """Sessions in order: their New York dates as ordinals, when they open and close in seconds since 1970 UTC."""

    dates: Sequence[int]
    opens: Sequence[int]
    closes: Sequence[int]


def timetable(first: date, last: date, folder: Path | None) -> Timetable:
    """The sessions from `first` to `last`, from the file in `folder` if there is a sound one, else from the library.

    Without a folder nothing is kept. One that cannot be written is no error: it only takes longer the next time.
    """
    if folder is None:
        return _computed(first, last)
    origin = _origin(first, last)
    path = folder / f"{EXCHANGE}.json"
    kept = _read(path, origin)
    if kept is None:
        kept = _computed(first, last)
        with suppress(OSError):
            _write(path, origin, kept)
    return kept


def _computed(first: date, last: date) -> Timetable:
    import exchange_calendars

    calendar = exchange_calendars.get_calendar(EXCHANGE, start=first.isoformat(), end=last.isoformat())
    return Timetable(
        dates=[day.date().toordinal() for day in calendar.sessions],
        opens=[_seconds(moment) for moment in calendar.opens],
        closes=[_seconds(moment) for moment in calendar.closes],
    )


def _seconds(moment: Any) -> int:
    """A pandas timestamp in whole seconds since 1970 UTC."""
    plain: datetime = moment.to_pydatetime()
    return int(plain.timestamp())


def _origin(first: date, last: date) -> dict[str, str]:
    """Everything that the hours follow from: the range, the libraries' versions, the rules of New York's clocks."""
    versions = {name: version(name) for name in LIBRARIES}
    return {"first": first.isoformat(), "last": last.isoformat(), **versions, ZONE: _zone_digest()}


def _zone_digest() -> str:
    for folder in TZPATH:
        with suppress(OSError):
            return hashlib.sha256(Path(folder, ZONE).read_bytes()).hexdigest()
    from importlib.resources import files  # systems without zones of their own only

    return hashlib.sha256((files("tzdata") / "zoneinfo" / ZONE).read_bytes()).hexdigest()


def _read(path: Path, origin: dict[str, str]) -> Timetable | None:
    """What is kept, None if there is nothing, or nothing sound, or it is of another origin."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        kept = json.loads(content)
        return Timetable(**kept["sessions"]) if kept["origin"] == origin else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, origin: dict[str, str], table: Timetable) -> None:
    """Writes beside the path and puts it there whole: of several writers the last one's counts, and all are right."""
    content = json.dumps({"origin": origin, "sessions": asdict(table)}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
