"""The local bar store: one Parquet file per symbol and year, in columns of exact integers."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trading.columns import BarColumns, Integers

# Named so that no reader takes integers of 1/10 000 dollar for dollars.
STORED_AS = {"open": "open_e4", "high": "high_e4", "low": "low_e4", "close": "close_e4", "volume": "volume"}
# Parquet knows no whole seconds.
SCHEMA = pa.schema([("timestamp", pa.timestamp("ms", tz="UTC")), *((name, pa.int64()) for name in STORED_AS.values())])

MILLISECONDS = 1000  # in a second


class BrokenStore(Exception):
    """A file of the store cannot be read; the text is one line that names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge did: minutes that the store did not have, and bars that differed from what it had."""

    added: int
    changed: int


class BarStore:
    """Bars of any symbol below one folder, `<SYMBOL>/<year>.parquet`, no minute twice and in order of time.

    Extended hours are kept too: the rules ignore them. Beside a symbol's bars stands which of its sessions were fetched
    whole, and from where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def symbols(self) -> list[str]:
        """Every symbol with bars, sorted."""
        return sorted({path.parent.name for path in self.folder.glob("*/*.parquet")})

    def years(self, symbol: str) -> list[int]:
        """The years (UTC) of which the symbol has bars, in order."""
        return sorted(int(path.stem) for path in (self.folder / symbol).glob("*.parquet") if path.stem.isdigit())

    def read(self, symbol: str, years: Iterable[int]) -> BarColumns:
        """The symbol's bars of these years, given in order.

        Raises:
            BrokenStore: a file is not what this class wrote.
        """
        return _joined(symbol, [self._read(symbol, year) for year in years])

    def merge(self, *parts: BarColumns) -> list[Merged]:
        """Adds bars; a minute that is there already takes the new bar. Doing it twice changes nothing.

        Nothing is put in place before everything is written: a failure leaves the store as it was.

        Raises:
            BrokenStore: a file that has to be merged with cannot be read.
            OSError: nothing can be written.
        """
        with self._lock():
            years: dict[tuple[str, int], BarColumns] = {}
            done = [self._added(bars, years) for bars in parts]
            self._put({self._path(*key): _parquet(bars) for key, bars in years.items()})
        return done

    def fetched(self, symbol: str) -> dict[date, str]:
        """Where each session that was fetched whole came from.

        Raises:
            BrokenStore: the file that says so is not what this class wrote.
        """
        path = self._marks_path(symbol)
        try:
            marks = json.loads(path.read_bytes()) if path.exists() else {}
            return {date.fromisoformat(day): str(source) for day, source in marks.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise BrokenStore(f"{path} cannot be read ({error}): delete it and fetch the sessions again") from error

    def mark_fetched(self, symbol: str, days: Iterable[date], *, source: str) -> None:
        """Notes that these sessions are there whole, and where they came from. Merge their bars first."""
        with self._lock():
            marks = self.fetched(symbol) | dict.fromkeys(days, source)
            text = json.dumps({day.isoformat(): marks[day] for day in sorted(marks)}, indent=0)
            self._put({self._marks_path(symbol): text.encode()})

    def _added(self, bars: BarColumns, years: dict[tuple[str, int], BarColumns]) -> Merged:
        """Lays bars over those of `years`, into which the years they touch are read first."""
        added = changed = 0
        first, end = 0, len(bars)
        while first < end:
            year = datetime.fromtimestamp(int(bars.timestamps[first]), UTC).year
            after = min(bars.index_at(datetime(year + 1, 1, 1, tzinfo=UTC)), end)
            key = bars.symbol, year
            old = years[key] if key in years else self._read(*key)
            both = _joined(bars.symbol, [old, bars.part(slice(first, after))])
            order = np.argsort(both.timestamps, kind="stable")
            ordered = both.timestamps[order]
            years[key] = merged = both.part(order[np.r_[ordered[1:] != ordered[:-1], True]])
            added += len(merged) - len(old)
            changed += _different(old, merged.part(np.isin(merged.timestamps, old.timestamps)))
            first = after
        return Merged(added=added, changed=changed)

    def _read(self, symbol: str, year: int) -> BarColumns:
        path = self._path(symbol, year)
        if not path.exists():
            return _joined(symbol, [])
        try:
            # Not `read_table`: it loads pandas.
            table = pq.ParquetFile(path).read()
            if table.schema != SCHEMA:
                raise ValueError("its columns are not those of a bar store")
            stored = {name: _integers(table.column(name)) for name in SCHEMA.names}
        except (OSError, ValueError, pa.ArrowException) as error:
            raise BrokenStore(f"{path} cannot be read ({error}): delete it and import its bars again") from error
        return BarColumns(
            symbol=symbol,
            timestamps=stored["timestamp"] // MILLISECONDS,
            **{name: stored[stored_name] for name, stored_name in STORED_AS.items()},
        )

    def _put(self, files: Mapping[Path, bytes]) -> None:
        """Writes all files beside their places, then puts them there: a reader sees the old one or the new one."""
        unfinished = {path: path.with_suffix(".unfinished") for path in files}
        try:
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(unfinished[path], "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for path in files:
                os.replace(unfinished[path], path)
        finally:
            for path in unfinished.values():
                path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time: each reads a file, adds to it and puts it back."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, symbol: str, year: int) -> Path:
        return self.folder / symbol / f"{year}.parquet"

    def _marks_path(self, symbol: str) -> Path:
        return self.folder / symbol / "fetched.json"


def _parquet(bars: BarColumns) -> bytes:
    columns = {stored: pa.array(getattr(bars, name)) for name, stored in STORED_AS.items()}
    timestamps = pa.array(bars.timestamps * MILLISECONDS, type=SCHEMA.field("timestamp").type)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"timestamp": timestamps, **columns}, schema=SCHEMA), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _integers(column: pa.ChunkedArray) -> Integers:
    """The numbers as they lie there: pyarrow's own way to numpy loads pandas. Raises ValueError if one is missing."""
    if column.null_count:
        raise ValueError("a value is missing")
    parts = [
        np.frombuffer(part.buffers()[1], dtype=np.int64)[part.offset : part.offset + len(part)]
        for part in column.chunks
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _joined(symbol: str, parts: list[BarColumns]) -> BarColumns:
    def column(name: str) -> Integers:
        return np.concatenate([np.empty(0, dtype=np.int64), *(getattr(part, name) for part in parts)])

    return BarColumns(symbol=symbol, timestamps=column("timestamps"), **{name: column(name) for name in STORED_AS})


def _different(one: BarColumns, other: BarColumns) -> int:
    """In how many bars two sets of the same minutes differ."""
    differs = np.zeros(len(one), dtype=bool)
    for name in STORED_AS:
        differs |= getattr(one, name) != getattr(other, name)
    return int(differs.sum())
