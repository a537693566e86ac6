"""What a backtest came to, and the one JSON shape of it that command, rows and pages share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from backtests.data_report import DataReport
from backtests.desk import EquityPoint, Result
from backtests.metrics import Metrics
from backtests.request import BacktestRequest
from backtests.scenarios import Scenario
from orders.portfolio import Trade
from trading.exchange import PathRule

AVERAGE_PLACES = Decimal("0.000001")
AVERAGES = ("average_win", "average_loss", "expectancy", "average_pnl")


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolData:
    """What the data held for one symbol: the report on the sessions up to the last one with a bar of any symbol.

    `rejected_rows` names the first rows of the file that hold no bar. `is_warm` says whether earlier bars gave the
    strategy its averages.
    """

    report: DataReport
    rejected_rows: tuple[str, ...]
    is_warm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished backtest; `seconds` are the real time of loading and running.

    `scenarios` say what it would have been on other paths and at other costs; there are none if nobody asked.
    """

    request: BacktestRequest
    result: Result
    metrics: Metrics
    data: Mapping[str, SymbolData]
    seconds: Mapping[str, float]
    scenarios: tuple[Scenario, ...] = ()

    @property
    def rejected_bars(self) -> int:
        """Bars of all symbols that were left out because they cannot be true."""
        return sum(each.report.rejected for each in self.data.values())


def document(outcome: Outcome, *, run_id: int | None) -> dict[str, Any]:
    """The whole outcome as JSON."""
    request, result = outcome.request, outcome.result
    return {
        "run_id": run_id,
        "strategy": request.strategy,
        "symbols": list(request.symbols),
        "start_date": request.start_date.isoformat(),
        "end_date": request.end_date.isoformat(),
        "initial_capital": exact(request.initial_capital),
        "params": request.params,
        "metrics": metrics_document(outcome.metrics),
        "trades": [trade_document(trade) for trade in result.trades],
        "equity_curve": curve_document(result.equity_curve),
        "signals": signals_document(result.decisions),
        "bars": result.bars,
        "rejected_bars": outcome.rejected_bars,
        "data": data_document(outcome.data),
        "range": range_document(outcome),
        "scenarios": scenarios_document(outcome.scenarios),
        "seconds": dict(outcome.seconds),
    }


def metrics_document(metrics: Metrics) -> dict[str, Any]:
    """Ratios as numbers, money as exact text, averages rounded half-even to 6 places, what is undefined as null."""
    values = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
    return {
        name: (average(value) if name in AVERAGES else exact(value)) if isinstance(value, Decimal) else value
        for name, value in values.items()
    }


def signals_document(decisions: Mapping[str, int]) -> dict[str, Any]:
    """How many signals became an order, and how many each risk code refused."""
    return {
        "taken": decisions.get("", 0),
        "refused": {code: count for code, count in sorted(decisions.items()) if code},
    }


def trade_document(trade: Trade) -> dict[str, Any]:
    """One round trip."""
    stop = trade.initial_stop_price
    return {
        "symbol": trade.symbol,
        "side": str(trade.side),
        "qty": exact(trade.qty),
        "entry_price": average(trade.entry_price),
        "exit_price": average(trade.exit_price),
        "entry_at": timestamp(trade.entry_at),
        "exit_at": timestamp(trade.exit_at),
        "pnl": exact(trade.pnl),
        "pnl_pct": float(trade.pnl_pct),
        "duration_seconds": trade.duration_seconds,
        "exit_reason": trade.exit_reason,
        "strategy": trade.strategy,
        "commission": exact(trade.commission),
        "initial_stop_price": None if stop is None else exact(stop),
    }


def curve_document(curve: Iterable[EquityPoint]) -> list[dict[str, str]]:
    """The equity curve, oldest first."""
    return [{"timestamp": timestamp(point.timestamp), "equity": exact(point.equity)} for point in curve]


def data_document(data: Mapping[str, SymbolData]) -> dict[str, dict[str, Any]]:
    """What the data held, by symbol."""
    return {
        symbol: {
            **report_document(each.report),
            "rejected_rows": list(each.rejected_rows),
            "is_warm": each.is_warm,
        }
        for symbol, each in data.items()
    }


def report_document(report: DataReport) -> dict[str, Any]:
    """The report on one symbol's bars, times and dates as text."""
    document: dict[str, Any] = _plain(report)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def range_document(outcome: Outcome) -> dict[str, Any] | None:
    """The lowest and the highest result of the run and all scenarios; None without scenarios."""
    if not outcome.scenarios:
        return None
    equities = [outcome.metrics.final_equity, *(each.final_equity for each in outcome.scenarios)]
    returns = [outcome.metrics.total_return, *(each.total_return for each in outcome.scenarios)]
    return {
        "final_equity": [exact(min(equities)), exact(max(equities))],
        "total_return": [min(returns), max(returns)],
    }


def scenarios_document(scenarios: Iterable[Scenario]) -> list[dict[str, Any]] | None:
    """What the run would have been otherwise, the worst path first and on it the highest costs; None if not asked."""
    return [
        {
            "path": str(each.path_rule),
            "slippage_per_share": exact(each.slippage_per_share),
            "final_equity": exact(each.final_equity),
            "total_return": each.total_return,
            "max_drawdown": each.max_drawdown,
            "total_trades": each.total_trades,
        }
        for each in scenarios
    ] or None


def metrics_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of `metrics_document`, money as numbers again."""
    return {name: Decimal(value) if isinstance(value, str) else value for name, value in document.items()}


def scenarios_of(documents: Iterable[Mapping[str, Any]]) -> list[Scenario]:
    """The scenarios of `scenarios_document`."""
    return [
        Scenario(
            path_rule=PathRule(each["path"]),
            slippage_per_share=Decimal(each["slippage_per_share"]),
            final_equity=Decimal(each["final_equity"]),
            total_return=each["total_return"],
            max_drawdown=each["max_drawdown"],
            total_trades=each["total_trades"],
        )
        for each in documents
    ]


def exact(value: Decimal) -> str:
    """The number without exponent or trailing zeros."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def average(value: Decimal) -> str:
    """A quotient, rounded half-even to 6 places."""
    return exact(value.quantize(AVERAGE_PLACES, rounding=ROUND_HALF_EVEN))


def timestamp(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
