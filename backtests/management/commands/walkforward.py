"""Walk-forward: parameters chosen on past sessions only, tried on the sessions after them."""

import json
import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone
from rich import box
from rich.console import Console
from rich.table import Table

from backtests import walkforward_store
from backtests.execution import NoBacktest
from backtests.management import arguments
from backtests.outcome import metrics_document
from backtests.request import BadRequest
from backtests.sweep import PointResult, Sweep, chunks
from backtests.tasks import windows_of
from backtests.walkforward import WalkForward, document, walk
from backtests.workers import Bench, Processes, WorkersDied
from orders import guards
from orders.command import OneLineCommand, UserError
from trading.live.barstore import BarStore

PIPED_WIDTH_COLUMNS = 160


class Command(OneLineCommand):
    help = (
        "Choose the best of a grid on some sessions, try it on the sessions after them, move on, and show what "
        "somebody who chose like this would have made."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The grid, and the windows."""
        arguments.add_arguments(parser, is_needed=True)
        parser.add_argument("--train", type=int, default=60, metavar="N", help="sessions to choose on: %(default)s")
        parser.add_argument("--test", type=int, default=20, metavar="N", help="sessions to try it on: %(default)s")
        parser.add_argument("--anchored", action="store_true", help="every training starts at the first session")
        parser.add_argument("--workers", type=int, metavar="N", help="processes; default: one a processor")
        parser.add_argument("--no-save", action="store_true", help="leave the database alone")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work off all windows, save and show them."""
        if not options["no_save"]:
            guards.require()
        sweep = arguments.sweep_of(options)
        try:
            parts = windows_of(sweep, train=options["train"], test=options["test"], is_anchored=options["anchored"])
        except BadRequest as error:
            raise UserError(str(error)) from error
        workers = arguments.processes(options["workers"])
        is_shown = sys.stderr.isatty() and not options["json"]
        total = len(parts) * sweep.points
        try:
            with (
                arguments.progress("backtests", total, is_shown=is_shown) as on_progress,
                Processes(settings.DATA_DIR / "bars", workers=workers) as processes,
            ):
                found = walk(
                    sweep,
                    parts,
                    figure=options["by"],
                    train=_counted(processes, on_progress),
                    test=Bench(BarStore(settings.DATA_DIR / "bars")).run,
                )
        except (NoBacktest, WorkersDied) as error:
            raise UserError(str(error)) from error
        result = document(sweep, found, figure=options["by"], is_anchored=options["anchored"])
        walk_id = None
        if not options["no_save"]:
            walk_id = walkforward_store.save(
                sweep,
                result,
                train=options["train"],
                test=options["test"],
                is_anchored=options["anchored"],
                figure=options["by"],
                real_at=timezone.now(),
            )
        if options["json"]:
            self.stdout.write(json.dumps({"walk_id": walk_id, **result}, allow_nan=False))
        else:
            _print(sweep, found, options, walk_id)


def _counted(processes: Processes, on_progress: Callable[[int], None]) -> Callable[[Sweep], list[PointResult]]:
    """Runs the points of a training, and counts them over all windows."""
    done = 0

    def train(sweep: Sweep) -> list[PointResult]:
        nonlocal done
        found: list[PointResult] = []
        for results in processes.run(sweep, chunks(sweep.points)):
            found += results
            on_progress(done := done + len(results))
        if all(each.error for each in found):
            raise NoBacktest(found[0].error)
        return found

    return train


def _print(sweep: Sweep, found: WalkForward, options: dict[str, Any], walk_id: int | None) -> None:
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
    kind = "anchored" if options["anchored"] else "rolling"
    title = f"{len(found.steps)} {kind} windows, {sweep.points:,} variants in each, chosen by {options['by']}"
    table = Table("chosen on", "tried on", *sweep.grid, "in training", "in test", "return", "trades", title=title)
    table.box = box.SIMPLE
    for step in found.steps:
        window = step.window
        metrics = metrics_document(step.outcome.metrics) if step.outcome else {}
        table.add_row(
            f"{window.train[0].date} to {window.train[-1].date}",
            f"{window.test[0].date} to {window.test[-1].date}",
            *(step.chosen.params[key] if step.chosen else "-" for key in sweep.grid),
            _text(step.trained),
            _text(metrics.get(options["by"])),
            _text(metrics.get("total_return"), ".2%"),
            str(metrics.get("total_trades", "-")),
        )
    console.print(table)
    console.print(
        f"All tests together: {found.total_return:.2%}, {found.initial_capital:,.2f} became {found.final_equity:,.2f}.",
        highlight=False,
    )
    if walk_id is not None:
        console.print(f"Saved as walk-forward {walk_id}.", highlight=False)


def _text(value: Any, form: str = ".2f") -> str:
    return "-" if value is None else format(float(value), form)
