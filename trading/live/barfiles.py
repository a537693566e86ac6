"""Reads minute bars from CSV, CSV.GZ and Parquet files, exactly: prices go from decimal text to integers x 10 000.

A file without a fault is converted column by column. With one, it is read row by row instead, so that every row with
a fault can be named by its line.
"""

import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading.columns import PRICE_UNITS, BarColumns, Integers, to_seconds, to_units
from trading.market import Bar, to_four_decimals

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
SUFFIXES = (".csv", ".csv.gz", ".parquet")
SYMBOL = re.compile(r"[A-Z]{1,5}(\.[A-Z])?")
DECIMALS_READ = 20
LARGEST_INTEGER = 2**63 - 1
OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
CLOCK_CHANGE = timedelta(hours=1)


class BarFileError(Exception):
    """The file or folder cannot be used at all; one line that says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """What is wrong with a row: its line in a text file, its row in a Parquet file, counted from 1."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What was in a file.

    `rejected` rows hold no bar that can be true, `repeated` ones a minute that an earlier row had: both are left out.
    `misplaced` rows are earlier than the row before, and sorted in. `rounded` counts prices with over 4 decimals.
    """

    path: Path
    rows: int
    rejected: tuple[RowFault, ...]
    repeated: tuple[RowFault, ...]
    misplaced: tuple[RowFault, ...]
    rounded: int

    @property
    def faults(self) -> list[RowFault]:
        """Every row with a fault, in the order of the file."""
        return sorted((*self.rejected, *self.repeated, *self.misplaced), key=lambda fault: fault.line)


def find_bar_files(path: Path, symbols: Sequence[str] = ()) -> dict[str, Path]:
    """The bar file of each symbol, in the given order; of all symbols there, sorted, when none are given.

    `path` is a folder of `SYMBOL.csv`, `SYMBOL.csv.gz` or `SYMBOL.parquet`, or one such file. Raises BarFileError.
    """
    if path.is_file():
        candidates = [path]
    elif path.is_dir():
        candidates = sorted(entry for entry in path.iterdir() if entry.is_file())
    else:
        raise BarFileError(f"{path}: there is no such file or folder")
    found: dict[str, Path] = {}
    for candidate in candidates:
        symbol = _symbol_of(candidate)
        if symbol is None or (symbols and symbol not in symbols):
            continue
        if symbol in found:
            raise BarFileError(f"{path} holds {symbol} twice: {found[symbol].name} and {candidate.name}")
        found[symbol] = candidate
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing or not found:
        wanted = ", ".join(missing) or "any US ticker symbol such as AAPL or BRK.B"
        files = ", ".join("SYMBOL" + suffix for suffix in SUFFIXES)
        raise BarFileError(f"{path}: no bars of {wanted} (looked for {files})")
    return {symbol: found[symbol] for symbol in symbols or found}


def read_bar_file(path: Path, symbol: str) -> tuple[BarColumns, ReadReport]:
    """All sound bars of one file, and what was wrong with the others. Raises BarFileError."""
    read = _read_parquet if path.suffix == ".parquet" else _read_text
    try:
        table, rejected = read(path)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BarFileError(f"{path}: cannot be read: {error}") from error
    kept, repeated, misplaced = _ordered(table)
    columns = BarColumns(
        symbol=symbol,
        timestamps=table.timestamps[kept],
        open=table.prices[0][kept],
        high=table.prices[1][kept],
        low=table.prices[2][kept],
        close=table.prices[3][kept],
        volume=table.volume[kept],
    )
    report = ReadReport(
        path=path,
        rows=len(table.timestamps) + len(rejected),
        rejected=tuple(rejected),
        repeated=tuple(repeated),
        misplaced=tuple(misplaced),
        rounded=table.rounded,
    )
    return columns, report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Rows as they stand in a file; prices are open, high, low, close. `lines` is None for a file without a fault."""

    timestamps: Integers
    prices: Sequence[Integers]
    volume: Integers
    rounded: int
    lines: Integers | None = None


def _ordered(table: _Table) -> tuple[Integers, list[RowFault], list[RowFault]]:
    """The rows in order of time, the first of each minute alone; and those left out, and those out of place."""
    times, lines = table.timestamps, table.lines
    order = np.argsort(times, kind="stable")
    if not len(order):
        return order, [], []
    is_first = np.r_[True, times[order][1:] != times[order][:-1]]
    kept = order[is_first]
    if lines is None:
        return kept, [], []
    first_of = np.empty_like(lines)
    first_of[order] = lines[kept][np.cumsum(is_first) - 1]
    repeated = np.flatnonzero(first_of != lines)
    misplaced = np.flatnonzero(np.r_[False, times[1:] < times[:-1]])
    return (
        kept,
        [RowFault(line=int(lines[row]), reason=f"the minute of line {first_of[row]} again") for row in repeated],
        [RowFault(line=int(lines[row]), reason="earlier than the row before it") for row in misplaced],
    )


class _NeedsCare(Exception):
    """Something in the file does not convert as a whole column."""


def _symbol_of(path: Path) -> str | None:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            return stem if SYMBOL.fullmatch(stem) else None
    return None


# --- text files -------------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> tuple[_Table, list[RowFault]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with pa.input_stream(path, compression="detect") as stream:
            table = arrow_csv.read_csv(
                stream,
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=COLUMNS, column_types=dict.fromkeys(COLUMNS, pa.string())
                ),
            )
        return _convert([table.column(name).combine_chunks() for name in COLUMNS]), []
    except (_NeedsCare, pa.ArrowInvalid, pa.ArrowKeyError):
        return _read_with_care(path, _text_rows(path))


def _text_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise BarFileError(f"{path}: the first line lacks {', '.join(missing)}; needed: {','.join(COLUMNS)}")
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if row:
                yield reader.line_num, [row[place] for place in places] if len(row) == len(header) else []


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> tuple[_Table, list[RowFault]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise BarFileError(f"{path}: there is no column {', '.join(missing)}; needed: {', '.join(COLUMNS)}")
        table = file.read(columns=list(COLUMNS))
        # As text: a float's shortest text is the decimal that was meant.
        texts = [_in_utc(table.column(name).combine_chunks()).cast(pa.string()) for name in COLUMNS]
    except pa.ArrowException as error:
        raise BarFileError(f"{path}: is not a usable Parquet file: {error}") from error
    try:
        return _convert(texts), []
    except _NeedsCare:
        rows = zip(*(text.to_pylist() for text in texts), strict=True)
        numbered = ((number, [cell or "" for cell in row]) for number, row in enumerate(rows, start=1))
        return _read_with_care(path, numbered)


def _in_utc(column: Any) -> Any:
    """The column, with its times in UTC if it holds times of a zone."""
    import pyarrow as pa

    return column.cast(pa.timestamp("us", "UTC")) if getattr(column.type, "tz", None) else column


# --- whole columns ----------------------------------------------------------------------------------------------------


def _convert(texts: "Sequence[pa.StringArray]") -> _Table:
    import pyarrow as pa

    try:
        timestamps = _to_seconds(texts[0])
        converted = [_to_units(text) for text in texts[1:5]]
        volume = texts[5].cast(pa.int64()).to_numpy(zero_copy_only=True)
    except pa.ArrowInvalid as error:
        raise _NeedsCare from error
    prices = [units for units, _ in converted]
    opens, highs, lows, closes = prices
    is_sound = (
        (lows > 0)
        & (lows <= np.minimum(opens, closes))
        & (highs >= np.maximum(opens, closes))
        & (volume >= 0)
        & (timestamps % 60 == 0)
    )
    if not (is_sound.all() and (timestamps[1:] > timestamps[:-1]).all()):
        raise _NeedsCare
    return _Table(timestamps=timestamps, prices=prices, volume=volume, rounded=sum(rounded for _, rounded in converted))


def _to_seconds(text: "pa.StringArray") -> Integers:
    import pyarrow as pa

    if text.null_count:
        raise _NeedsCare
    try:
        moments = text.cast(pa.timestamp("us", "UTC"))
        _check_zones(text)
    except pa.ArrowInvalid:
        moments = text.cast(pa.timestamp("us"))
    micros: Integers = moments.cast(pa.int64()).to_numpy(zero_copy_only=True)
    if (micros % 1_000_000).any():
        raise _NeedsCare
    return micros // 1_000_000


def _check_zones(text: "pa.StringArray") -> None:
    """Leaves anything but UTC, or offsets that one zone can have, to the reading row by row."""
    from pyarrow import compute

    if not compute.all(compute.ends_with(text, "Z"), min_count=0).as_py():
        endings = compute.unique(compute.utf8_slice_codeunits(text, start=-6)).to_pylist()
        offsets = [_offset(ending) for ending in endings]
        if max(offsets) - min(offsets) > CLOCK_CHANGE:
            raise _NeedsCare


def _offset(text: str) -> timedelta:
    match = OFFSET.fullmatch(text)
    if match is None:
        raise _NeedsCare
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -offset if match[1] == "-" else offset


def _to_units(text: "pa.StringArray") -> tuple[Integers, int]:
    """Prices in units, rounded half-even to 4 decimals, and how many that changed."""
    import pyarrow as pa
    from pyarrow import compute

    exact = text.cast(pa.decimal128(38, DECIMALS_READ))
    rounded = compute.round(exact, ndigits=4, round_mode="half_to_even")
    units = rounded.cast(pa.decimal128(38, 4))
    words = np.frombuffer(units.buffers()[1], dtype=np.int64).reshape(-1, 2)[units.offset : units.offset + len(units)]
    if text.null_count or (words[:, 1] != 0).any() or (words[:, 0] < 0).any():
        raise _NeedsCare
    return words[:, 0].copy(), compute.sum(compute.not_equal(exact, rounded)).as_py() or 0


# --- row by row -------------------------------------------------------------------------------------------------------


def _read_with_care(path: Path, rows: Iterable[tuple[int, list[str]]]) -> tuple[_Table, list[RowFault]]:
    kept: list[tuple[int, ...]] = []
    rejected: list[RowFault] = []
    zones = _Zones(path)
    rounded = 0
    for line, cells in rows:
        try:
            moment, values, changed = _row(cells)
        except ValueError as error:
            rejected.append(RowFault(line=line, reason=str(error)))
        else:
            zones.note(line, moment)
            kept.append((line, to_seconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC)), *values))
            rounded += changed
    columns: Any = np.array(kept, dtype=np.int64).reshape(-1, 1 + len(COLUMNS)).T
    table = _Table(lines=columns[0], timestamps=columns[1], prices=columns[2:6], volume=columns[6], rounded=rounded)
    return table, rejected


class _Zones:
    """Watches that a file's times are of one zone, whose offset changes by an hour at most. Times without one are UTC.

    A mixture is no fault of single rows: some of them may be hours away from where they seem to be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[timedelta | None, int] = {}

    def note(self, line: int, moment: datetime) -> None:
        """Takes note of a row's time. Raises BarFileError if it does not go with those before."""
        offset = moment.utcoffset() if moment.tzinfo else None
        if offset in self._lines:
            return
        for other, first in self._lines.items():
            if offset is None or other is None or abs(offset - other) > CLOCK_CHANGE:
                raise BarFileError(
                    f"{self._path}: the time in line {line} is of another zone than that in line {first}: "
                    "write all times in UTC, or all in one zone"
                )
        self._lines[offset] = line


def _row(cells: list[str]) -> tuple[datetime, tuple[int, ...], int]:
    """A row's time, its prices and volume as integers, and how many prices were rounded.

    Raises ValueError saying what is wrong.
    """
    if not cells:
        raise ValueError("the number of columns differs from the first line's")
    moment = _moment(cells[0])
    exact = [_number(name, text) for name, text in zip(COLUMNS[1:5], cells[1:5], strict=True)]
    volume = _number("volume", cells[5])
    if volume != volume.to_integral_value():
        raise ValueError(f"volume {cells[5]!r} is not a whole number")
    opened, high, low, close = prices = [to_four_decimals(price) for price in exact]
    bar = Bar(symbol="", timestamp=moment, open=opened, high=high, low=low, close=close, volume=int(volume))
    if bar.fault:
        raise ValueError(bar.fault)
    changed = sum(price != original for price, original in zip(prices, exact, strict=True))
    return moment, (*map(to_units, prices), int(volume)), changed


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp {text!r} is not a time") from None
    if moment.second or moment.microsecond:
        raise ValueError(f"timestamp {text!r} is not the start of a minute")
    return moment


def _number(name: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not number.is_finite() or abs(number) > LARGEST_INTEGER // PRICE_UNITS:
        raise ValueError(f"{name} {text!r} is out of range")
    return number
