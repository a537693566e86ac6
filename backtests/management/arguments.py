"""What the commands that run many backtests have in common on the command line."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backtests.request import BacktestRequest, BadRequest, make_request
from backtests.sweep import Sweep, make_sweep, parse_grid
from orders.command import UserError

FIGURES = ("sharpe_ratio", "total_return", "profit_factor", "win_rate", "max_drawdown", "expectancy")
NEEDED = ("strategy", "symbols", "start_date", "end_date")


def add_arguments(parser: CommandParser, *, is_needed: bool) -> None:
    """The grid, and what all of its backtests share."""
    parser.add_argument("--strategy", required=is_needed, help="registered name, such as velez")
    parser.add_argument("--symbols", required=is_needed, metavar="A,B", help="in the order of the watchlist")
    parser.add_argument("--start-date", required=is_needed, metavar="YYYY-MM-DD", help="first New York session")
    parser.add_argument("--end-date", required=is_needed, metavar="YYYY-MM-DD", help="last New York session, included")
    parser.add_argument("--initial-capital", default="25000", metavar="DOLLARS", help="default: %(default)s")
    parser.add_argument("--data", metavar="PATH", help="file or folder of bars; default: the bar store")
    parser.add_argument(
        "--set", action="append", default=[], dest="params", metavar="KEY=VALUE", help="for every backtest"
    )
    parser.add_argument("--slippage", metavar="DOLLARS", help="per share, against us on every fill")
    parser.add_argument(
        "--grid", action="append", default=[], metavar="KEY=V1,V2", help="values to try, such as velez.sma_fast=10,20"
    )
    parser.add_argument("--by", choices=FIGURES, default="sharpe_ratio", help="what the best is best in: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def sweep_of(options: dict[str, Any]) -> Sweep:
    """The sweep asked for.

    Raises:
        UserError: it makes no sense.
    """
    try:
        return make_sweep(_base(options), parse_grid(options["grid"]))
    except BadRequest as error:
        raise UserError(str(error)) from error


def processes(workers: int | None) -> int:
    """How many processes to use: as many as asked for, else one for each processor.

    Raises:
        UserError: fewer than one.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers} is not 1 or more")
    return workers or os.cpu_count() or 1


@contextmanager
def progress(description: str, total: int, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with the time that is left; it is told how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def _base(options: dict[str, Any]) -> BacktestRequest:
    if lacking := [name for name in NEEDED if not options[name]]:
        raise UserError(f"--{lacking[0].replace('_', '-')} is missing")
    params = dict(map(_pair, options["params"]))
    if options["slippage"] is not None:
        params["backtest.slippage_per_share"] = options["slippage"]
    data = options["data"]
    return make_request(
        strategy=options["strategy"],
        symbols=options["symbols"].split(","),
        start_date=options["start_date"],
        end_date=options["end_date"],
        initial_capital=options["initial_capital"],
        params=params,
        config=settings.ALGO,
        # Workers are other processes, in a folder of their own.
        data=None if data is None else str(Path(data).resolve()),
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text!r} is not written as KEY=VALUE")
    return key.strip(), value
