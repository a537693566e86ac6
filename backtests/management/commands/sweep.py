"""A grid of backtests, on processes of this machine or on the worker cluster."""

import json
import sys
import time
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone
from rich import box
from rich.console import Console
from rich.table import Table

from backtests import sweep_store, tasks
from backtests.management import arguments
from backtests.request import BadRequest
from backtests.sweep import PointResult, Sweep, Verdict, chunks, figure_of, missing, ranking, verdict
from backtests.workers import Processes, WorkersDied
from orders.command import UserError
from orders.guards import GuardedCommand

LOOK_SECONDS = 1.0
ROWS = 10
PIPED_WIDTH_COLUMNS = 160


class Command(GuardedCommand):
    help = (
        "Run a backtest for every combination of a grid of settings. The results are kept in the database; "
        "the number of variants tried is shown beside the best of them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The grid, and who works it off."""
        arguments.add_arguments(parser, is_needed=False)
        who = parser.add_mutually_exclusive_group()
        who.add_argument("--workers", type=int, metavar="N", help="processes on this machine; default: one a processor")
        who.add_argument("--cluster", action="store_true", help="leave it to the workers that share the database")
        parser.add_argument("--no-wait", action="store_true", help="with --cluster: do not wait for the results")
        parser.add_argument("--resume", type=int, metavar="ID", help="go on with a sweep that was interrupted")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, and show the best."""
        on_cluster = options["cluster"]
        if options["no_wait"] and not on_cluster:
            raise UserError("--no-wait needs --cluster: nobody else would run the sweep")
        sweep_id, sweep = self._resumed(options) if options["resume"] is not None else self._begun(options)
        if on_cluster:
            tasks.call_workers(sweep_id)
        if options["no_wait"]:
            self.stdout.write(json.dumps({"sweep_id": sweep_id}) if options["json"] else f"Queued as sweep {sweep_id}.")
            return
        is_shown = sys.stderr.isatty() and not options["json"]
        with arguments.progress("backtests", sweep.points, is_shown=is_shown) as on_progress:
            if on_cluster:
                _wait(sweep_id, on_progress)
            else:
                _run(sweep_id, sweep, arguments.processes(options["workers"]), on_progress)
        self._show(sweep_id, sweep, by=options["by"], as_json=options["json"])

    def _begun(self, options: dict[str, Any]) -> tuple[int, Sweep]:
        sweep = arguments.sweep_of(options)
        return sweep_store.create(sweep, on_cluster=options["cluster"], real_at=timezone.now()), sweep

    def _resumed(self, options: dict[str, Any]) -> tuple[int, Sweep]:
        row = sweep_store.find(options["resume"])
        if row is None:
            raise UserError(f"there is no sweep {options['resume']}")
        if options["grid"] or options["strategy"]:
            raise UserError("--resume goes on with the sweep as it was asked for: leave the other options out")
        sweep_store.begin_again(row.id, on_cluster=options["cluster"], real_at=timezone.now())
        try:
            return row.id, row.sweep()
        except BadRequest as error:
            raise UserError(str(error)) from error

    def _show(self, sweep_id: int, sweep: Sweep, *, by: str, as_json: bool) -> None:
        results = sweep_store.results(sweep_id)
        found = verdict(results, variants=sweep.points, figure=by)
        if all(each.error for each in results):
            raise UserError(f"no backtest of sweep {sweep_id} could be run: {results[0].error}")
        if as_json:
            self.stdout.write(json.dumps(_document(sweep_id, sweep, results, found, by), allow_nan=False))
        else:
            console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
            _print(console, sweep_id, sweep, results, found, by)


def _run(sweep_id: int, sweep: Sweep, workers: int, on_progress: Any) -> None:
    """Work the sweep off on this machine; what is interrupted can be resumed."""
    everything = range(sweep.points)
    done = len(there := sweep_store.numbers_done(sweep_id, everything))
    parts = [part for chunk in chunks(sweep.points) if (part := missing(chunk, there))]
    name, failure = tasks.worker_name(), ""
    try:
        with Processes(settings.DATA_DIR / "bars", workers=workers) as processes:
            for results in processes.run(
                sweep, parts, on_look=lambda: sweep_store.renew_sweep(sweep_id, real_at=timezone.now())
            ):
                sweep_store.record(sweep_id, results, worker=name, real_at=timezone.now())
                on_progress(done := done + len(results))
        sweep_store.finish(sweep_id, real_at=timezone.now())
    except KeyboardInterrupt:
        failure = f"interrupted: go on with `manage.py sweep --resume {sweep_id}`"
        raise
    except WorkersDied as error:
        failure = str(error)
        raise UserError(failure) from error
    finally:
        if failure:
            sweep_store.fail(sweep_id, failure, real_at=timezone.now())


def _wait(sweep_id: int, on_progress: Any) -> None:
    """Look at the rows until the workers are done; interrupting this does not interrupt them."""
    while True:
        row = sweep_store.find(sweep_id)
        if row is None or row.status == "failed":
            raise UserError(f"sweep {sweep_id} failed: {row.error if row else 'it was deleted'}")
        on_progress(row.done)
        if row.status == "done":
            return
        tasks.look_after()
        time.sleep(LOOK_SECONDS)


def _document(sweep_id: int, sweep: Sweep, results: list[PointResult], found: Verdict, by: str) -> dict[str, Any]:
    base = sweep.base
    return {
        "sweep_id": sweep_id,
        "strategy": base.strategy,
        "symbols": list(base.symbols),
        "start_date": base.start_date.isoformat(),
        "end_date": base.end_date.isoformat(),
        "grid": {key: list(values) for key, values in sweep.grid.items()},
        "variants": found.variants,
        "by": by,
        "best": found.best.number if found.best else None,
        "deflated_sharpe_ratio": found.deflated_sharpe,
        "results": [
            {
                "number": each.number,
                "params": dict(each.params),
                "metrics": each.metrics,
                "error": each.error,
                "seconds": each.seconds,
            }
            for each in results
        ],
    }


def _print(console: Console, sweep_id: int, sweep: Sweep, results: list[PointResult], found: Verdict, by: str) -> None:
    ranked = ranking(results, by)
    title = f"The best {min(ROWS, len(ranked))} of {found.variants:,} variants tried, by {by.replace('_', ' ')}"
    keys = list(sweep.grid)
    table = Table(*keys, "return", "Sharpe", "drawdown", "trades", "won", title=title, box=box.SIMPLE)
    for column in table.columns:
        column.justify = "right"
    for each in ranked[:ROWS]:
        table.add_row(
            *(each.params[key] for key in keys),
            _text(each, "total_return", ".2%"),
            _text(each, "sharpe_ratio", ".2f"),
            _text(each, "max_drawdown", ".2%"),
            _text(each, "total_trades", ",.0f"),
            _text(each, "win_rate", ".1%"),
        )
    console.print(table)
    if found.deflated_sharpe is not None:
        console.print(
            f"Deflated Sharpe ratio of the best: {found.deflated_sharpe:.1%} - the probability that it is better than "
            f"the luckiest of {found.variants:,} variants without an edge. Below 95 % do not believe it.",
            highlight=False,
        )
    failed = [each for each in results if each.error]
    if failed:
        console.print(f"{len(failed)} could not be run, the first because {failed[0].error}", highlight=False)
    console.print(f"Saved as sweep {sweep_id}.", highlight=False)


def _text(result: PointResult, figure: str, form: str) -> str:
    value = figure_of(result, figure)
    return "-" if value is None else format(value, form)
