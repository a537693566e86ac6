"""One backtest from the command line."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from backtests import store
from backtests.execution import Loaded, NoBacktest, execute_on, load
from backtests.outcome import Outcome, document
from backtests.request import BadRequest, make_request
from orders import guards
from orders.command import OneLineCommand, UserError
from trading.live.barstore import BarStore


class Command(OneLineCommand):
    help = "Run one backtest. Settings come from .env and the environment; --set changes one of them for this run."

    def add_arguments(self, parser: CommandParser) -> None:
        """What to run on which bars, and where the result goes."""
        parser.add_argument("--strategy", required=True, help="registered name, such as velez, or A,B")
        parser.add_argument("--symbols", required=True, metavar="A,B", help="in the order of the watchlist")
        parser.add_argument("--start-date", required=True, metavar="YYYY-MM-DD", help="first New York session")
        parser.add_argument("--end-date", required=True, metavar="YYYY-MM-DD", help="last New York session, included")
        parser.add_argument("--initial-capital", default="25000", metavar="DOLLARS", help="default: %(default)s")
        parser.add_argument(
            "--data", metavar="PATH", help="file or folder of SYMBOL.csv, .csv.gz or .parquet; default: the bar store"
        )
        parser.add_argument(
            "--set", action="append", default=[], dest="params", metavar="KEY=VALUE", help="such as velez.sma_fast=30"
        )
        parser.add_argument("--slippage", metavar="DOLLARS", help="per share, against us on every fill")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        parser.add_argument(
            "--no-range",
            action="store_true",
            help="only the result itself, not also what it would be on other paths inside the bars and at other costs",
        )
        parser.add_argument(
            "--report", type=Path, metavar="FILE.html", help="write the result as a page that needs no network"
        )
        parser.add_argument("--plain", action="store_true", help="bar by bar: takes longer and comes to the same")
        parser.add_argument("--no-save", action="store_true", help="leave the database alone")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, save, and show the result."""
        if not options["no_save"]:
            guards.require()
        if (report := options["report"]) is not None and (report.is_dir() or not report.parent.is_dir()):
            # Before anything is run and saved.
            raise UserError(f"the report cannot be written: {report} is no file in a folder that exists")
        params = dict(_pair(text) for text in options["params"])
        if options["slippage"] is not None:
            params["backtest.slippage_per_share"] = options["slippage"]
        try:
            request = make_request(
                strategy=options["strategy"],
                symbols=options["symbols"].split(","),
                start_date=options["start_date"],
                end_date=options["end_date"],
                initial_capital=options["initial_capital"],
                params=params,
                config=settings.ALGO,
                data=options["data"],
            )
            with _progress(is_shown=sys.stderr.isatty() and not options["json"]) as on_progress:
                started = perf_counter()
                loaded = load(request, BarStore(settings.DATA_DIR / "bars"))
                outcome = execute_on(
                    loaded,
                    request,
                    is_plain=options["plain"],
                    with_scenarios=not options["no_range"],
                    load_seconds=perf_counter() - started,
                    on_progress=on_progress,
                )
        except (BadRequest, NoBacktest) as error:
            raise UserError(str(error)) from error
        for symbol in request.symbols:
            for line in outcome.data[symbol].rejected_rows:
                self.stderr.write(f"left out: {line}")
        run_id = None if options["no_save"] else store.save(outcome, real_at=timezone.now())
        if options["report"] is not None:
            self._report(options["report"], outcome, loaded, run_id)
        if options["json"]:
            self.stdout.write(json.dumps(document(outcome, run_id=run_id), allow_nan=False))
        else:
            _show(outcome, run_id)

    def _report(self, path: Path, outcome: Outcome, loaded: Loaded, run_id: int | None) -> None:
        from backtests.report import write_report  # templates take time to load

        bars = {symbol: history.traded for symbol, history in loaded.histories.items()}
        try:
            write_report(path, outcome, bars, run_id=run_id, made_at=timezone.now())
        except OSError as error:
            raise UserError(f"the report cannot be written: {error}") from error


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text!r} is not written as KEY=VALUE")
    return key.strip(), value


def _show(outcome: Outcome, run_id: int | None) -> None:
    from rich.console import Console  # nothing that prints JSON for a program waits for it

    from backtests.terminal import PIPED_WIDTH_COLUMNS, show

    show(outcome, run_id, Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS))


@contextmanager
def _progress(*, is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that counts sessions, on stderr, gone when the run is over."""
    if not is_shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading bars", total=None)
        yield lambda done, total: progress.update(task, description="sessions", completed=done, total=total)
