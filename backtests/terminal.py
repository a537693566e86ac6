"""The result of a backtest as tables for a terminal."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich import box
from rich.console import Console
from rich.table import Table

from backtests.breakdown import Group, by_exit_reason, by_month, by_symbol
from backtests.outcome import Outcome
from backtests.scenarios import Scenario
from trading.exchange import PathRule

GRADE_STYLES = {"A": "green", "B": "green", "C": "yellow", "D": "red"}
MONTHS_SHOWN = 24
PIPED_WIDTH_COLUMNS = 160


def show(outcome: Outcome, run_id: int | None, console: Console) -> None:
    """Print the figures with their range, then by symbol with its data, by exit reason and by month."""
    request, metrics = outcome.request, outcome.metrics
    title = f"{request.strategy}, {metrics.sessions} sessions from {request.start_date} to {request.end_date}"
    figures = Table(title=title, box=box.SIMPLE, show_header=False, title_justify="left")
    for name, text in _figures(outcome):
        figures.add_row(name, text)
    console.print(figures)
    if outcome.scenarios:
        console.print(_range_table(outcome.scenarios))
    console.print(_symbol_table(outcome))
    reasons = by_exit_reason(outcome.result.trades)
    if reasons:
        console.print(_group_table("closed by", reasons))
    console.print(_month_table(outcome))
    for symbol, data in outcome.data.items():
        if data.report.reasons:
            console.print(f"Data of {symbol}, grade {data.report.grade}: {'; '.join(data.report.reasons)}.")
    last_session = outcome.result.sessions[-1].date
    if last_session < request.end_date:
        console.print(f"The last session with bars is {last_session}.", highlight=False)
    if run_id is not None:
        console.print(f"Saved as run {run_id}.", highlight=False)


def dollars(value: Decimal | None) -> str:
    """Dollars and cents, `-` where there is no number."""
    return "-" if value is None else f"{value:,.2f}"


def percent(value: float | None) -> str:
    """A fraction in percent, `-` where there is no number."""
    return "-" if value is None else f"{value:.2%}"


def ratio(value: float | None) -> str:
    """A ratio with two decimals, `-` where there is no number."""
    return "-" if value is None else f"{value:.2f}"


def _figures(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """The rows of the first table."""
    metrics, refused = outcome.metrics, {code: n for code, n in outcome.result.decisions.items() if code}
    yield "initial capital", dollars(outcome.request.initial_capital)
    yield "final equity", dollars(metrics.final_equity)
    yield "total return", percent(metrics.total_return)
    if outcome.scenarios:
        returns = [metrics.total_return, *(each.total_return for each in outcome.scenarios)]
        yield "might have been", f"{percent(min(returns))} to {percent(max(returns))}"
    yield "a year (CAGR), volatility", f"{percent(metrics.cagr)}, {percent(metrics.annual_volatility)}"
    yield "largest drawdown", f"{percent(metrics.max_drawdown)}, longest {metrics.longest_drawdown_sessions} sessions"
    yield "Sharpe, Sortino ratio", f"{ratio(metrics.sharpe_ratio)}, {ratio(metrics.sortino_ratio)}"
    yield "trades", f"{metrics.total_trades} ({metrics.winners} won, {metrics.losers} lost)"
    yield "win rate", percent(metrics.win_rate)
    yield "profit factor", ratio(metrics.profit_factor)
    yield "average win, loss", f"{dollars(metrics.average_win)}, {dollars(metrics.average_loss)}"
    yield "best, worst trade", f"{dollars(metrics.best_trade)}, {dollars(metrics.worst_trade)}"
    yield "expectancy", f"{dollars(metrics.expectancy)}, {ratio(metrics.average_r)} of the risk"
    yield "in a row", f"{metrics.longest_winning_streak} won, {metrics.longest_losing_streak} lost"
    yield "commission", dollars(metrics.commission)
    yield "time in market, exposure", f"{percent(metrics.time_in_market)}, {percent(metrics.exposure)}"
    yield "signals refused", ", ".join(f"{count} {code}" for code, count in sorted(refused.items())) or "none"
    seconds = outcome.seconds
    yield "bars", f"{outcome.result.bars:,} in {seconds['load']:.2f} s of loading and {seconds['run']:.2f} s of running"


def _range_table(scenarios: Sequence[Scenario]) -> Table:
    """Total return by path inside the bars and slippage."""
    costs = sorted({each.slippage_per_share for each in scenarios})
    table = _table("path in a bar", *(f"${cost:.2f} a share" for cost in costs))
    found = {(each.path_rule, each.slippage_per_share): each.total_return for each in scenarios}
    for path_rule in PathRule:
        table.add_row(str(path_rule), *(percent(found[path_rule, cost]) for cost in costs))
    return table


def _symbol_table(outcome: Outcome) -> Table:
    table = _table("symbol", "data", "bars", "missing", "start", "trades", "won", "profit factor", "result")
    groups = {group.name: group for group in by_symbol(outcome.result.trades, outcome.request.symbols)}
    for symbol, data in outcome.data.items():
        report, group = data.report, groups.get(symbol)
        table.add_row(
            symbol,
            f"[{GRADE_STYLES[report.grade]}]{report.grade}[/]",
            f"{report.bars:,}",
            f"{report.missing_minutes:,}",
            "warm" if data.is_warm else "cold",
            str(group.trades if group else 0),
            str(group.winners if group else 0),
            ratio(group.profit_factor if group else None),
            dollars(group.pnl if group else Decimal(0)),
        )
    return table


def _group_table(name: str, groups: Sequence[Group]) -> Table:
    table = _table(name, "trades", "won", "lost", "a trade", "result")
    for group in groups:
        table.add_row(
            group.name,
            str(group.trades),
            str(group.winners),
            str(group.losers),
            dollars(group.average_pnl),
            dollars(group.pnl),
        )
    return table


def _month_table(outcome: Outcome) -> Table:
    """The last months, when there are many."""
    result = outcome.result
    table = _table("month", "sessions", "result", "return")
    for month in by_month(outcome.request.initial_capital, result.sessions, result.daily_equity)[-MONTHS_SHOWN:]:
        table.add_row(f"{month.year}-{month.month:02d}", str(month.sessions), dollars(month.pnl), percent(month.change))
    return table


def _table(*columns: str) -> Table:
    """The first column is of words, the others of numbers."""
    table = Table(*columns, box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
