"""`manage.py parity`: what the engine did, done again by the backtester, and the first difference if there is one."""

import json
import sys
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import CommandParser
from rich import box
from rich.console import Console
from rich.table import Table

from backtests.parity import CANDLE_FIELDS, CandleValues, Deeds, Difference, Report, Verdict, compare, document
from backtests.rerun import CandleKey, Recorded, Rerun
from orders import store as order_store
from orders.command import OneLineCommand, UserError
from orders.lifecycle import Side
from risk.config import ConfigError
from trading import store
from trading.live import recording
from trading.logbook import Standing
from trading.messages import Event
from trading.strategy import UnknownStrategy

NEW_YORK = ZoneInfo("America/New_York")
PIPED_WIDTH_COLUMNS = 160


class Command(OneLineCommand):
    help = "Run again, as a backtest, what the engine traded, from its own recordings; exit 1 if anything differs."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which run or day."""
        parser.add_argument(
            "run_or_day", metavar="RUN_OR_DAY", help="number of a run of the engine, or a New York date YYYY-MM-DD"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare, show, and fail on the first difference."""
        asked = options["run_or_day"]
        reports = dict(_reports(asked))
        differences = [difference for report in reports.values() for difference in report.differences]
        if options["json"]:
            runs = [{"run_id": run_id, **document(report)} for run_id, report in reports.items()]
            told = {"run_or_day": asked, "equal": not differences, "runs": runs}
            self.stdout.write(json.dumps(told, allow_nan=False))
        else:
            console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
            for run_id, report in reports.items():
                show(run_id, report, console)
        if differences:
            first = differences[0]
            raise UserError(
                f"{len(differences)} differences; the first: {first.symbol} ({first.strategy}) "
                f"at {first.at:%Y-%m-%d %H:%M:%S} UTC, {_words(next(iter(first.causes)))}"
            )


# --- the two sides ----------------------------------------------------------------------------------------------------


def _reports(asked: str) -> Iterable[tuple[int, Report]]:
    """The comparison of the run, or of that day of each run that traded on it."""
    if asked.isdecimal():
        yield int(asked), _report(int(asked), recording.days(int(asked)))
        return
    try:
        day = date.fromisoformat(asked)
    except ValueError:
        raise UserError(f"{asked!r} is neither the number of a run nor a date written as YYYY-MM-DD") from None
    runs = [run_id for run_id in sorted(recording.runs()) if recording.all_bars(run_id, day)]
    if not runs:
        raise UserError(f"no run of the engine has recorded bars of {day}")
    for run_id in runs:
        yield run_id, _report(run_id, [day])


def _report(run_id: int, days: list[date]) -> Report:
    run = store.load_run(run_id)
    if run is None:
        raise UserError(f"there is no run {run_id} of the engine")
    recorded = _recorded(run_id, run.account_id, days)
    until = _end(recorded) if run.ended_at is None or run.outcome == "failed" else None
    try:
        rerun = Rerun(recorded)
    except (ConfigError, UnknownStrategy) as error:
        raise UserError(f"the settings of run {run_id} are no longer allowed: {error}") from error
    rerun.run()
    ours = _done_by_engine(run_id, days, since=recorded.standing.now)
    return compare(_before(ours, until), _before(_done_again(rerun), until), is_exact=run.account_mode == "built_in")


def _recorded(run_id: int, account_id: str, days: list[date]) -> Recorded:
    """What the run was given on these days, from the first session's beginning on."""
    try:
        told = [each for day in days for each in recording.told(run_id, day)]
    except ValueError as error:
        raise UserError(f"the recording of run {run_id} cannot be read: {error}") from error
    begins = next((place for place, (_, entry) in enumerate(told) if isinstance(entry, Standing)), None)
    bars = [(each.received_real_at, each.bar) for day in days for each in recording.all_bars(run_id, day)]
    if begins is None or not bars:
        raise UserError(f"run {run_id} has no recording of a session (or it was removed: see recording.retention_days)")
    began_real_at, standing = told[begins]
    if not isinstance(standing, Standing):
        raise TypeError(standing)
    return Recorded(
        account_id=account_id,
        standing=standing,
        told=[(real_at, entry) for real_at, entry in told[begins:] if isinstance(entry, Event)],
        bars=[(real_at, bar) for real_at, bar in bars if real_at >= began_real_at],
    )


def _end(recorded: Recorded) -> datetime:
    """The last moment of which anything is recorded: a crash loses the last second of it, but nothing of the ledger."""
    return max(*(bar.delivered_at for _, bar in recorded.bars), *(event.now for _, event in recorded.told))


def _before(deeds: Deeds, until: datetime | None) -> Deeds:
    if until is None:
        return deeds
    return Deeds(
        verdicts={key: verdict for key, verdict in deeds.verdicts.items() if verdict.at < until},
        trades={key: trade for key, trade in deeds.trades.items() if trade.exit_at < until},
        orders=deeds.orders,
        candles=deeds.candles,
    )


def _done_by_engine(run_id: int, days: list[date], *, since: datetime) -> Deeds:
    verdicts = {
        row["correlation_id"]: Verdict(
            at=row["recorded_at"],
            symbol=row["symbol"],
            strategy=row["strategy"],
            side=Side(row["side"]),
            candle_start=datetime.fromisoformat(row["candle"]["timestamp"]),
            refused_by=row["refused_by"],
            qty=row["qty"],
            entry_price=row["entry_price"],
            stop_price=row["stop_price"],
        )
        for row in store.decisions_of_run(run_id)
        if row["recorded_at"] >= since and _day(row["recorded_at"]) in days
    }
    trades = {
        trade.correlation_id: trade
        for trade in order_store.trades_of_run(run_id)
        if trade.exit_at >= since and _day(trade.exit_at) in days
    }
    candles = {
        key: tuple(_number(row[name]) for name in CANDLE_FIELDS)
        for day in days
        for key, row in recording.first_candles(run_id, day).items()
    }
    orders = {order.local_id: order for order in order_store.orders_of_run(run_id)}
    return Deeds(verdicts=verdicts, trades=trades, orders=orders, candles=candles)


def _done_again(rerun: Rerun) -> Deeds:
    verdicts = {
        correlation_id: Verdict(
            at=decision.at,
            symbol=decision.symbol,
            strategy=decision.strategy,
            side=decision.side,
            candle_start=decision.candle.timestamp,
            refused_by=decision.refused_by,
            qty=decision.qty,
            entry_price=decision.entry_price,
            stop_price=decision.stop_price,
        )
        for correlation_id, decision in rerun.decisions.items()
    }
    candles: dict[CandleKey, CandleValues] = {}
    for key, closed in rerun.candles.items():
        values = [getattr(closed.candle, name, None) for name in CANDLE_FIELDS[:5]]
        averages = [closed.indicators.sma_fast, closed.indicators.sma_slow, closed.indicators.bar_count]
        candles[key] = tuple(None if value is None else Decimal(value) for value in (*values, *averages))
    trades = {trade.correlation_id: trade for trade in rerun.trades}
    return Deeds(verdicts=verdicts, trades=trades, orders=rerun.orders, candles=candles)


def _day(moment: datetime) -> date:
    return moment.astimezone(NEW_YORK).date()


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


# --- shown ------------------------------------------------------------------------------------------------------------


def show(run_id: int, report: Report, console: Console) -> None:
    """Print the figures and the first difference with both sides of it."""
    engine, backtest, found = report.engine, report.backtest, report.differences
    console.print(
        f"Run {run_id}: {len(found)} differences in {len(engine.verdicts)} signals and {len(engine.trades)} trades."
    )
    if not found:
        return
    figures = Table("", "engine", "backtest", "difference", box=box.SIMPLE)
    for column in figures.columns[1:]:
        column.justify = "right"
    figures.add_row("trades", str(len(engine.trades)), str(len(backtest.trades)), "")
    figures.add_row("result", f"{engine.pnl:,.2f}", f"{backtest.pnl:,.2f}", f"{engine.pnl - backtest.pnl:+,.2f}")
    for cause, amount in report.causes.items():
        figures.add_row(f"  by {_words(cause)}", "", "", f"{amount:+,.2f}")
    console.print(figures)
    _show_difference(found[0], console)


def _show_difference(first: Difference, console: Console) -> None:
    title = f"First difference: {first.symbol}, {first.strategy}, {first.at:%Y-%m-%d %H:%M:%S} UTC"
    table = Table("", "engine", "backtest", title=title, title_justify="left", box=box.SIMPLE)
    for field in first.fields:
        table.add_row(field.name, field.engine, field.backtest)
    if first.candle is not None:
        start, fields = first.candle
        for field in fields:
            table.add_row(f"candle {start:%H:%M} {field.name}", field.engine, field.backtest)
    for cause, amount in first.causes.items():
        table.add_row(f"by {_words(cause)}", f"{amount:+,.2f}", "")
    console.print(table)
    console.print(f"Its signal is {first.correlation_id}.", highlight=False)


def _words(cause: str) -> str:
    return cause.replace("_", " ")
