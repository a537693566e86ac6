"""What an engine saw, as daily files of its run: bars, candles with their averages, and what else it was told.

`<data dir>/runs/<run id>/<New York date>/bars.csv`, `candles.csv`, `corrections.csv` (bars that late trades changed)
and `told.jsonl` (see `trading/logbook.py`), one line a row, appended to. They are read by the pages, by comparisons of
live and backtest, and after an accident. A reader takes whole lines only.
"""

import asyncio
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings

from trading.logbook import Entry, from_line, to_line
from trading.market import Bar
from trading.messages import CandleClosed

log = structlog.get_logger("recording")

BARS = "bars.csv"
CANDLES = "candles.csv"
CORRECTIONS = "corrections.csv"
TOLD = "told.jsonl"
COLUMNS = {
    BARS: "symbol,timestamp,open,high,low,close,volume,received_real_at,delivered_at",
    CORRECTIONS: "symbol,timestamp,open,high,low,close,volume,received_real_at",
    CANDLES: "symbol,strategy,interval,timestamp,open,high,low,close,volume,sma_fast,sma_slow,bar_count,is_live",
}
NEW_YORK = ZoneInfo("America/New_York")
DAY_FOLDER = re.compile(r"\d{4}-\d\d-\d\d")
# About 30 MB, and a day of 500 symbols: more waits for a full disk in vain.
MAX_PENDING_LINES = 200_000
CHUNK_BYTES = 4096
DISPLAY_DECIMALS = 6
SECONDS_PER_DAY = 86_400


class Recorder:
    """Collects lines in memory and appends them to the files of its run when told to `flush`.

    A crash loses the lines since the last flush. While the disk is full they are kept, the oldest making way beyond
    MAX_PENDING_LINES, and tried again with each flush. For pages and metrics: `failures` counts flushes that failed,
    `dropped_lines` what made way, and `problem` is the error at present, empty when all is well.
    """

    def __init__(self, data_dir: Path, run_id: int, *, max_pending_lines: int = MAX_PENDING_LINES) -> None:
        self.failures = 0
        self.dropped_lines = 0
        self.problem = ""
        self._folder = _run_folder(data_dir, run_id)
        self._max_pending_lines = max_pending_lines
        # Appended to by the loop and emptied by the writing thread: single operations of a deque are atomic.
        self._pending: deque[tuple[str, str]] = deque()  # file below the run's folder, line
        self._writing = threading.Lock()

    def add_bar(self, bar: Bar, delivered_at: datetime, received_real_at: datetime) -> None:
        """A bar as it reached the strategy: `delivered_at` in market time, `received_real_at` by the wall clock."""
        fields = [
            bar.symbol, _time(bar.timestamp), _exact(bar.open), _exact(bar.high), _exact(bar.low), _exact(bar.close),
            str(bar.volume), _time(received_real_at), _time(delivered_at),
        ]  # fmt: skip
        self._add(BARS, bar.timestamp, fields)

    def add_correction(self, bar: Bar, received_real_at: datetime) -> None:
        """A bar told before, as it is now. Nothing is decided anew: what was traded was traded on the first one."""
        fields = [
            bar.symbol, _time(bar.timestamp), _exact(bar.open), _exact(bar.high), _exact(bar.low), _exact(bar.close),
            str(bar.volume), _time(received_real_at),
        ]  # fmt: skip
        self._add(CORRECTIONS, bar.timestamp, fields)

    def add_candle(self, closed: CandleClosed) -> None:
        """A completed candle, from the stream or from history."""
        candle, averages = closed.candle, closed.indicators
        fields = [
            candle.symbol, closed.strategy, str(closed.interval_minutes), _time(candle.timestamp),
            _exact(candle.open), _exact(candle.high), _exact(candle.low), _exact(candle.close), str(candle.volume),
            _exact(averages.sma_fast), _exact(averages.sma_slow), str(averages.bar_count), str(int(closed.is_live)),
        ]  # fmt: skip
        self._add(CANDLES, candle.timestamp, fields)

    def add_told(self, entry: Entry, received_real_at: datetime, settings: Mapping[str, str]) -> None:
        """Anything else; `settings` are the effective ones by key, as texts without secrets."""
        line = to_line(entry, real_at=received_real_at, settings=settings)
        self._add(TOLD, entry.now, [line])

    @property
    def is_behind(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._pending)

    async def flush(self) -> None:
        """Append everything collected so far. Never raises for the disk's sake, see `problem`."""
        await asyncio.to_thread(self._write_pending)

    def _add(self, name: str, timestamp: datetime, fields: list[str]) -> None:
        if len(self._pending) >= self._max_pending_lines:
            self._pending.popleft()
            self.dropped_lines += 1
        day = timestamp.astimezone(NEW_YORK).date().isoformat()
        self._pending.append((f"{day}/{name}", ",".join(fields) + "\n"))

    def _write_pending(self) -> None:
        # A flush that was cancelled still writes in its thread: the next one waits for it here.
        with self._writing:
            taken = [self._pending.popleft() for _ in range(len(self._pending))]
            lines_of: dict[str, list[str]] = {}
            for file, line in taken:
                lines_of.setdefault(file, []).append(line)
            problem = ""
            for file, lines in lines_of.items():
                try:
                    _append(self._folder / file, lines)
                except OSError as error:
                    problem = f"{self._folder / file}: {error.strerror or error}"
                    self._keep(file, lines)
            self._note(problem)

    def _keep(self, file: str, lines: list[str]) -> None:
        room = max(self._max_pending_lines - len(self._pending), 0)
        kept = lines[-room:] if room else []
        self.dropped_lines += len(lines) - len(kept)
        self._pending.extendleft((file, line) for line in reversed(kept))

    def _note(self, problem: str) -> None:
        self.failures += bool(problem)
        if problem and not self.problem:
            log.warning("recording.failed", problem=problem)
        elif self.problem and not problem:
            log.info("recording.recovered", dropped_lines=self.dropped_lines)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBar:
    """A bar with the market time at which it counted as known, and the wall clock at which it arrived."""

    bar: Bar
    delivered_at: datetime
    received_real_at: datetime


def candles(
    run_id: int, symbol: str, limit: int = 400, *, strategy: str | None = None, data_dir: Path | None = None
) -> list[dict[str, Any]]:
    """The newest candles of one symbol for display, newest last: prices as floats, times as ISO text.

    They are of one strategy and interval, those of the newest candle unless the strategy is given. A candle that was
    recorded again, since history was read again, counts as it was recorded last. Reads the newest days only.
    """
    found: dict[str, dict[str, Any]] = {}
    series: tuple[str, int] | None = None
    for day in reversed(_days(_run_folder(data_dir, run_id))):
        rows = {
            (row["strategy"], row["interval"], row["timestamp"]): row
            for row in map(_shown_candle, _rows(day / CANDLES, symbol))
            if row is not None and strategy in (None, row["strategy"])
        }
        if rows and series is None:
            newest = max(rows.values(), key=lambda row: str(row["timestamp"]))
            series = newest["strategy"], newest["interval"]
        found |= {key[2]: row for key, row in rows.items() if key[:2] == series}
        if len(found) >= limit:
            break
    return [found[timestamp] for timestamp in sorted(found)][-limit:]


def candles_between(
    run_id: int, symbol: str, *, strategy: str, first: date, last: date, data_dir: Path | None = None
) -> list[dict[str, Any]]:
    """One strategy's candles of a symbol from a New York date to another, both included, as `candles` shows them."""
    found: dict[str, dict[str, Any]] = {}
    for day in _days(_run_folder(data_dir, run_id)):
        if first <= date.fromisoformat(day.name) <= last:
            for row in map(_shown_candle, _rows(day / CANDLES, symbol)):
                if row is not None and row["strategy"] == strategy:
                    found[row["timestamp"]] = row
    return [found[timestamp] for timestamp in sorted(found)]


def bars(run_id: int, symbol: str, day: date, *, data_dir: Path | None = None) -> list[RecordedBar]:
    """Every bar of the symbol that the run's strategies were given in a New York session, exact, as they came."""
    rows = _rows(_run_folder(data_dir, run_id) / day.isoformat() / BARS, symbol)
    return [bar for bar in map(_recorded_bar, rows) if bar is not None]


def all_bars(run_id: int, day: date, *, data_dir: Path | None = None) -> list[RecordedBar]:
    """As `bars`, of all symbols, in the order in which they came."""
    rows = _rows(_run_folder(data_dir, run_id) / day.isoformat() / BARS)
    return [bar for bar in map(_recorded_bar, rows) if bar is not None]


def first_candles(
    run_id: int, day: date, *, data_dir: Path | None = None
) -> dict[tuple[str, str, datetime], dict[str, str]]:
    """The candles of a session, by symbol, strategy and start, as texts by column: as they were known first.

    Later rows of a candle come of history, which may know more than was known when it counted.
    """
    found: dict[tuple[str, str, datetime], dict[str, str]] = {}
    for row in _rows(_run_folder(data_dir, run_id) / day.isoformat() / CANDLES):
        with suppress(ValueError):
            found.setdefault((row["symbol"], row["strategy"], datetime.fromisoformat(row["timestamp"])), row)
    return found


def told(run_id: int, day: date, *, data_dir: Path | None = None) -> list[tuple[datetime, Entry]]:
    """What else the run was told on a New York date, in order, each with the wall clock.

    Raises:
        ValueError: a line is whole and yet not readable: another version of the program wrote it.
    """
    content = _content(_run_folder(data_dir, run_id) / day.isoformat() / TOLD)
    return [from_line(line.decode()) for line in content.splitlines()]


def days(run_id: int, *, data_dir: Path | None = None) -> list[date]:
    """The New York dates of which the run has files, in order."""
    return [date.fromisoformat(day.name) for day in _days(_run_folder(data_dir, run_id))]


def bars_exist(run_id: int, day: date, *, data_dir: Path | None = None) -> bool:
    """Whether the run was given bars on that New York date, rather than history of it alone."""
    return (_run_folder(data_dir, run_id) / day.isoformat() / BARS).exists()


def runs(*, data_dir: Path | None = None) -> list[int]:
    """The runs that have files, newest first."""
    folder = _runs_folder(data_dir)
    found = folder.iterdir() if folder.is_dir() else []
    return sorted((int(run.name) for run in found if run.name.isdecimal()), reverse=True)


def remove_older_than(days: int, *, data_dir: Path | None = None) -> int:
    """Delete what was recorded more than so many days ago, and return how many sessions' folders went.

    The wall clock counts, not the session: a replay of last year made today is new.
    """
    oldest = time.time() - days * SECONDS_PER_DAY
    removed = 0
    for run_id in runs(data_dir=data_dir):
        folder = _run_folder(data_dir, run_id)
        for day in _days(folder):
            if max((file.stat().st_mtime for file in day.iterdir()), default=0.0) < oldest:
                shutil.rmtree(day)
                removed += 1
        if not any(folder.iterdir()):
            folder.rmdir()
    return removed


# --- files ------------------------------------------------------------------------------------------------------------


def _runs_folder(data_dir: Path | None) -> Path:
    return (data_dir or Path(settings.DATA_DIR)) / "runs"


def _run_folder(data_dir: Path | None, run_id: int) -> Path:
    return _runs_folder(data_dir) / str(int(run_id))


def _days(run_folder: Path) -> list[Path]:
    found = run_folder.iterdir() if run_folder.is_dir() else []
    return sorted(day for day in found if DAY_FOLDER.fullmatch(day.name))


def _append(path: Path, lines: list[str]) -> None:
    """All the lines or, when the disk is full, none of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = _cut_torn_line(descriptor)
        header = COLUMNS[path.name] + "\n" if path.name in COLUMNS and not size else ""
        data = memoryview((header + "".join(lines)).encode())
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> int:
    """Remove what a crash left behind the last whole line; returns the file's size in bytes."""
    size = whole = os.fstat(descriptor).st_size
    while whole:
        start = max(whole - CHUNK_BYTES, 0)
        newline = os.pread(descriptor, whole - start, start).rfind(b"\n")
        whole = start + newline + 1
        if newline >= 0:
            break
    if whole < size:
        os.ftruncate(descriptor, whole)
    return whole


def _content(path: Path) -> bytes:
    """The whole lines of a file, nothing if there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def _rows(path: Path, symbol: str = "") -> Iterator[dict[str, str]]:
    """The symbol's rows of one file, or all of them, oldest first; lines that are garbled are left out."""
    header = COLUMNS[path.name]
    columns = header.split(",")
    prefix = f"{symbol},".encode() if symbol else b""
    for line in _content(path).splitlines():
        if line.startswith(prefix) and line != header.encode():
            fields = line.decode(errors="replace").split(",")
            if len(fields) == len(columns):
                yield dict(zip(columns, fields, strict=True))


# --- lines ------------------------------------------------------------------------------------------------------------


def _exact(value: Decimal | None) -> str:
    return "" if value is None else format(value, "f")


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _recorded_bar(row: dict[str, str]) -> RecordedBar | None:
    try:
        bar = Bar(
            symbol=row["symbol"],
            timestamp=datetime.fromisoformat(row["timestamp"]),
            open=Decimal(row["open"]),
            high=Decimal(row["high"]),
            low=Decimal(row["low"]),
            close=Decimal(row["close"]),
            volume=int(row["volume"]),
        )
        return RecordedBar(
            bar=bar,
            delivered_at=datetime.fromisoformat(row["delivered_at"]),
            received_real_at=datetime.fromisoformat(row["received_real_at"]),
        )
    except (ValueError, InvalidOperation):
        return None


def _shown_candle(row: dict[str, str]) -> dict[str, Any] | None:
    try:
        prices = {name: round(float(row[name]), DISPLAY_DECIMALS) for name in ("open", "high", "low", "close")}
        averages = {
            name: round(float(row[name]), DISPLAY_DECIMALS) if row[name] else None for name in ("sma_fast", "sma_slow")
        }
        return {
            "symbol": row["symbol"],
            "strategy": row["strategy"],
            "interval": int(row["interval"]),
            "timestamp": row["timestamp"],
            **prices,
            "volume": int(row["volume"]),
            **averages,
            "bar_count": int(row["bar_count"]),
            "is_live": row["is_live"] == "1",
        }
    except ValueError:
        return None
