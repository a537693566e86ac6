"""How a backtest's trades could have come out in another order of luck."""

import json
import sys
from typing import Any

from django.core.management.base import CommandParser
from rich import box
from rich.console import Console
from rich.table import Table

from backtests import store
from backtests.outcome import exact
from backtests.validation import PERCENTILES, Bands, resampled
from orders.command import OneLineCommand, UserError

PIPED_WIDTH_COLUMNS = 160
MOST_PATHS = 100_000


class Command(OneLineCommand):
    help = (
        "Draw the trades of a saved backtest again and again, with replacement, and show between which equities "
        "and drawdowns such histories end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The run, and how often to draw."""
        parser.add_argument("run", type=int, help="number of a saved backtest")
        parser.add_argument("--paths", type=int, default=5000, metavar="N", help="histories to draw: %(default)s")
        parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same trades: %(default)s")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        """Draw, and show the bands."""
        run = store.find(options["run"])
        if run is None or run.status != "done":
            raise UserError(f"there is no finished backtest {options['run']}")
        if not 1 <= options["paths"] <= MOST_PATHS:
            raise UserError(f"--paths {options['paths']} is not from 1 to {MOST_PATHS}")
        if options["seed"] < 0:
            raise UserError(f"--seed {options['seed']} is not 0 or more")
        pnls = [trade.pnl for trade in store.trades_of(run.id)]
        if not pnls:
            raise UserError(f"backtest {run.id} made no trade: there is nothing to draw")
        bands = resampled(pnls, initial_capital=run.initial_capital, paths=options["paths"], seed=options["seed"])
        if options["json"]:
            self.stdout.write(json.dumps(document(bands, run_id=run.id, seed=options["seed"]), allow_nan=False))
        else:
            _print(bands, run)


def document(bands: Bands, *, run_id: int, seed: int) -> dict[str, Any]:
    """The bands as JSON: money as exact text, shares as fractions."""
    return {
        "run_id": run_id,
        "seed": seed,
        "paths": bands.paths,
        "trades": bands.trades,
        "final_equity": {str(p): exact(value) for p, value in bands.final_equity.items()},
        "max_drawdown": {str(p): value for p, value in bands.max_drawdown.items()},
        "loss": bands.loss,
        "ruin": bands.ruin,
    }


def _print(bands: Bands, run: store.Run) -> None:
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
    title = f"{bands.paths:,} histories of {bands.trades:,} trades drawn from backtest {run.id}"
    table = Table("percentile", "final equity", "return", "largest drawdown", title=title, box=box.SIMPLE)
    for column in table.columns:
        column.justify = "right"
    for percentile in PERCENTILES:
        equity = bands.final_equity[percentile]
        table.add_row(
            f"{percentile} %",
            f"{equity:,.2f}",
            f"{float(equity / run.initial_capital - 1):.2%}",
            f"{bands.max_drawdown[percentile]:.2%}",
        )
    console.print(table)
    console.print(
        f"{bands.loss:.1%} end below the initial capital, {bands.ruin:.1%} lose all of it. Trades count as independent "
        "of each other, with the sizes they had.",
        highlight=False,
    )
