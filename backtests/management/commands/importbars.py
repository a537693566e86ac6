"""Takes bar files into the local bar store."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from orders.command import OneLineCommand, UserError
from trading.columns import BarColumns
from trading.live.barfiles import BarFileError, ReadReport, find_bar_files, read_bar_file
from trading.live.barstore import BarStore, BrokenStore, Merged

ROWS_NAMED = 20
ROWS_NAMED_IN_A_REFUSAL = 3


class Command(OneLineCommand):
    help = (
        "Import minute bars into the local bar store; a bar that is there already takes the new values. Files with "
        "faulty rows are refused, and nothing is imported, unless --repair is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The files."""
        parser.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="SYMBOL.csv, SYMBOL.csv.gz or SYMBOL.parquet with the columns timestamp (UTC, start of the minute), "
            "open, high, low, close, volume; or a folder of such files",
        )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="import what is sound: leave out rows that hold no bar and minutes seen before, each named, and sort",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Read every file, then store all or nothing."""
        try:
            files = [item for path in options["files"] for item in find_bar_files(Path(path)).items()]
            read = [read_bar_file(path, symbol) for symbol, path in files]
        except (BarFileError, OSError) as error:
            raise UserError(f"{error}; nothing was imported") from error
        faulty = [report for _, report in read if report.faults]
        if faulty and not options["repair"]:
            *others, last = map(_refusal, faulty)
            for line in others:
                self.stderr.write(line)
            raise UserError(last)
        for report in faulty:
            self._name(report)
        for bars, report in read:
            if not len(bars):
                raise UserError(f"{report.path} holds no sound bar; nothing was imported")
        try:
            merged = BarStore(settings.DATA_DIR / "bars").merge(*(bars for bars, _ in read))
        except (BrokenStore, OSError) as error:
            raise UserError(f"{error}; nothing was imported") from error
        for (bars, report), done in zip(read, merged, strict=True):
            self.stdout.write(_told(bars, report, done))

    def _name(self, report: ReadReport) -> None:
        for fault in report.faults[:ROWS_NAMED]:
            self.stderr.write(f"{report.path} line {fault.line}: {fault.reason}")
        if (more := len(report.faults) - ROWS_NAMED) > 0:
            self.stderr.write(f"{report.path}: {more:,} more rows like these")


def _refusal(report: ReadReport) -> str:
    faults = report.faults
    named = "; ".join(f"line {fault.line}: {fault.reason}" for fault in faults[:ROWS_NAMED_IN_A_REFUSAL])
    more = f"; and {len(faults) - ROWS_NAMED_IN_A_REFUSAL:,} more" if len(faults) > ROWS_NAMED_IN_A_REFUSAL else ""
    return (
        f"{report.path}: faults in {len(faults):,} of {report.rows:,} rows ({named}{more}); nothing was imported: "
        "correct the file, or take what is sound of it with --repair"
    )


def _told(bars: BarColumns, report: ReadReport, merged: Merged) -> str:
    return (
        f"{bars.symbol}: {len(bars):,} bars in {report.path.name}, {merged.added:,} new, {merged.changed:,} changed; "
        f"{len(report.rejected):,} rows left out, {len(report.repeated):,} duplicates, "
        f"{len(report.misplaced):,} out of order, {report.rounded:,} prices rounded"
    )
