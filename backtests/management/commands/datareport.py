"""What the bars of the store, or of files, are worth."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich import box
from rich.console import Console
from rich.table import Table

from backtests.data_report import DataReport, examine
from backtests.outcome import report_document
from backtests.terminal import GRADE_STYLES, PIPED_WIDTH_COLUMNS
from orders.command import OneLineCommand, UserError
from trading.columns import BarColumns, to_moment
from trading.live import calendar
from trading.live.barfiles import BarFileError, find_bar_files, read_bar_file
from trading.live.barstore import BarStore, BrokenStore
from trading.management.arguments import day, symbols
from trading.market import Session

DAYS_SHOWN = 10


class Command(OneLineCommand):
    help = "Grade bars from A to D: what is missing by day, what is twice or impossible, what cannot be believed."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which bars."""
        parser.add_argument("--symbols", type=symbols, default=(), metavar="A,B", help="default: all that are there")
        parser.add_argument("--start-date", type=day, metavar="YYYY-MM-DD", help="default: that of the first bar")
        parser.add_argument("--end-date", type=day, metavar="YYYY-MM-DD", help="default: that of the last bar")
        parser.add_argument("--data", type=Path, metavar="PATH", help="file or folder of bars; default: the bar store")
        parser.add_argument("--json", action="store_true", help="print one JSON object, by symbol, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reports symbol by symbol."""
        start, end = options["start_date"], options["end_date"]
        if start and end and end < start:
            raise UserError(f"the end date {end} lies before the start date {start}")
        read = self._store_reports if options["data"] is None else self._file_reports
        try:
            reports = list(read(options["data"], options["symbols"], start, end))
        except (BarFileError, BrokenStore, calendar.OutsideCalendar) as error:
            raise UserError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps({report.symbol: report_document(report) for report in reports}))
        else:
            show(reports, Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS))

    def _store_reports(
        self, _: None, chosen: Sequence[str], start: date | None, end: date | None
    ) -> Iterator[DataReport]:
        store = BarStore(settings.DATA_DIR / "bars")
        for symbol in chosen or store.symbols():
            years = store.years(symbol)
            if not years:
                raise UserError(f"no bars of {symbol} in the bar store")
            columns = store.read(symbol, years)
            sessions = _sessions(columns, start, end)
            fetched = store.fetched(symbol)
            sources = [fetched[session.date] for session in sessions if session.date in fetched]
            yield examine(columns, sessions, sources=sources)
        if not (chosen or store.symbols()):
            raise UserError(
                "the bar store is empty: get bars with `manage.py importbars` or `manage.py fetchbars`, "
                "or name a file or folder with --data"
            )

    def _file_reports(
        self, path: Path, chosen: Sequence[str], start: date | None, end: date | None
    ) -> Iterator[DataReport]:
        for symbol, file in find_bar_files(path, chosen).items():
            columns, found = read_bar_file(file, symbol)
            if not len(columns):
                raise UserError(f"{file} holds no sound bar")
            yield examine(
                columns,
                _sessions(columns, start, end),
                rejected=len(found.rejected),
                duplicates=len(found.repeated),
                rounded=found.rounded,
            )


def _sessions(columns: BarColumns, start: date | None, end: date | None) -> list[Session]:
    """The sessions from `start` to `end`, or as far as the bars go. Raises UserError if there is none."""
    first, last = to_moment(int(columns.timestamps[0])), to_moment(int(columns.timestamps[-1]))
    since, until = start or _new_york_date(first), end or _new_york_date(last)
    sessions = calendar.sessions(since, until) if since <= until else []
    if not sessions:
        raise UserError(
            f"no session of {columns.symbol} from {since} to {until}: its bars go from {first.date()} to {last.date()}"
        )
    return sessions


def _new_york_date(moment: datetime) -> date:
    """The date in New York to a day's precision that matters here: no bar is stamped near its midnight."""
    return (moment.astimezone(UTC) - timedelta(hours=5)).date()


def show(reports: Sequence[DataReport], console: Console) -> None:
    """A line for each symbol, and what spoils the grade of those that have no A."""
    table = Table(
        "symbol", "grade", "sessions", "half days", "bars", "missing", "absent", "left out", "twice", "no volume",
        "odd volume", "suspect", "splits", "from", "to", box=box.SIMPLE,
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    for report in reports:
        table.add_row(
            report.symbol,
            f"[{GRADE_STYLES[report.grade]}]{report.grade}[/]",
            f"{report.sessions:,}",
            f"{len(report.half_days):,}",
            f"{report.bars:,}",
            f"{report.missing_minutes:,}",
            f"{report.sessions_absent:,}",
            f"{report.rejected:,}",
            f"{report.duplicates:,}",
            f"{report.bars_without_volume:,}",
            f"{len(report.odd_volume):,}",
            f"{report.bars_with_suspect_prices:,}",
            f"{len(report.suspected_splits):,}",
            "" if report.first is None else f"{report.first:%Y-%m-%d}",
            "" if report.last is None else f"{report.last:%Y-%m-%d}",
        )
    console.print(table)
    for report in reports:
        for line in _details(report):
            console.print(f"{report.symbol}: {line}", highlight=False, soft_wrap=True)


def _details(report: DataReport) -> Iterator[str]:
    if report.reasons:
        yield f"grade {report.grade} for {'; '.join(report.reasons)}"
    worst = sorted(report.gaps, key=lambda gap: (-gap.missing, gap.date))[:DAYS_SHOWN]
    if worst:
        days = ", ".join(f"{gap.date} {gap.missing} ({gap.longest} in a row)" for gap in worst)
        yield f"minutes missing in {report.sessions_with_gaps:,} sessions, most of them on {days}"
    if report.absent:
        yield f"no bar on {_some(report.absent, report.sessions_absent)}"
    if report.odd_volume:
        odd = [f"{each.date} ({each.ratio:.2g} times the usual)" for each in report.odd_volume]
        yield f"odd volume on {_some(odd, len(odd))}"
    if report.suspect_prices:
        at = [f"{moment:%Y-%m-%d %H:%M}" for moment in report.suspect_prices]
        yield f"suspect prices at {_some(at, report.bars_with_suspect_prices)} UTC"
    for split in report.suspected_splits:
        yield f"looks like a {split.ratio} split on {split.date}: from {split.before:,.2f} to {split.after:,.2f}"
    if len(report.sources) > 1:
        yield f"sessions of several sources: {', '.join(f'{n:,} {name}' for name, n in report.sources.items())}"


def _some(items: Sequence[object], count: int) -> str:
    more = f" and {count - DAYS_SHOWN:,} more" if count > DAYS_SHOWN else ""
    return ", ".join(str(item) for item in items[:DAYS_SHOWN]) + more
