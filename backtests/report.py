"""The result of a backtest as one HTML page that needs nothing else: no network, no file beside it."""

import base64
import gzip
import hashlib
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string

from backtests.breakdown import Month, by_exit_reason, by_month, by_symbol
from backtests.desk import StopMove
from backtests.outcome import Outcome, data_document, signals_document
from backtests.scenarios import range_of
from orders.portfolio import Trade
from risk.config import as_text, setting_of
from trading.columns import BarColumns, candles_of, to_seconds
from trading.market import Session

TEMPLATE = "backtests/report.html"
STYLES = ("css/base.css", "css/result.css", "css/report.css")
SCRIPT = "js/report.js"
CHART_LIBRARY = "vendor/lightweight-charts.standalone.production.js"
# More candles than this make the page slow to open: then they are longer, for all symbols.
MOST_CANDLES = 400_000
CANDLE_MINUTES = (1, 2, 5, 10, 15, 30, 65, 130, 390)
CENT_UNITS = 100
MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def write_report(
    path: Path, outcome: Outcome, bars: Mapping[str, BarColumns], *, run_id: int | None, made_at: datetime
) -> None:
    """Writes the page, whole or not at all.

    Raises:
        OSError: it cannot be written there.
    """
    text = render_report(outcome, bars, run_id=run_id, made_at=made_at)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def render_report(outcome: Outcome, bars: Mapping[str, BarColumns], *, run_id: int | None, made_at: datetime) -> str:
    """The page. `bars` are those the run traded on, by symbol; `made_at` is the wall clock."""
    request, result, metrics = outcome.request, outcome.result, outcome.metrics
    found = finders.find(CHART_LIBRARY)
    library = Path(found).read_text(encoding="utf-8") if isinstance(found, str) else ""
    script = _static(SCRIPT)
    own_minutes, minutes = _candle_minutes(outcome, bars)
    context = {
        "request": request,
        "result": result,
        "metrics": metrics,
        "drawdown": -metrics.max_drawdown,
        "run_id": run_id,
        "made_at": made_at,
        "range": range_of(
            outcome.scenarios,
            total_return=metrics.total_return,
            slippage_per_share=request.config["backtest.slippage_per_share"],
        ),
        "years": _years(by_month(request.initial_capital, result.sessions, result.daily_equity)),
        "month_names": MONTH_NAMES,
        "symbols": by_symbol(result.trades, request.symbols),
        "reasons": by_exit_reason(result.trades),
        "signals": signals_document(result.decisions),
        "data": data_document(outcome.data),
        "last_session": result.sessions[-1].date,
        "params": list(_params(request.params)),
        "rows": list(_rows(result.trades)),
        "longer_candles": minutes if minutes > own_minutes else None,
        "page_data": _page_data(outcome, minutes),
        "has_cold": not all(each.is_warm for each in outcome.data.values()),
        "style": "\n".join(_static(name) for name in STYLES),
        "script": script,
        "library": library,
        "policy": _policy(library, script),
    }
    if library:
        context["candles"] = {symbol: _packed(bars[symbol], result.sessions, minutes) for symbol in request.symbols}
    return render_to_string(TEMPLATE, context)


# --- what the page shows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """A row of the table of months: twelve of them, None where there was no session, and the year's return."""

    year: int
    months: Sequence["HeatMonth | None"]
    change: float | None
    pnl: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMonth:
    """A month, and how far its return lies from 0: 100 for the one that is farthest."""

    month: Month
    heat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A trade in the table; `multiple` is its result as a multiple of what was at risk."""

    number: int
    trade: Trade
    multiple: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A setting of the run; `default` is given where it is another one."""

    key: str
    value: str
    default: str | None


def _years(months: Sequence[Month]) -> list[Year]:
    farthest = max((abs(month.change or 0.0) for month in months), default=0.0)
    years = []
    for year, those in groupby(months, key=lambda month: month.year):
        found = {month.month: month for month in those}
        growth = 1.0
        for month in found.values():
            growth *= 1 + (month.change or 0.0)
        years.append(
            Year(
                year=year,
                months=[_heated(found.get(number), farthest) for number in range(1, 13)],
                change=None if any(month.change is None for month in found.values()) else growth - 1,
                pnl=sum((month.pnl for month in found.values()), Decimal(0)),
            )
        )
    return years


def _heated(month: Month | None, farthest: float) -> HeatMonth | None:
    if month is None:
        return None
    return HeatMonth(month=month, heat=round(100 * abs(month.change or 0.0) / farthest) if farthest else 0)


def _rows(trades: Iterable[Trade]) -> Iterator[Row]:
    for number, trade in enumerate(trades, start=1):
        multiple = float(trade.pnl / trade.planned_risk) if trade.planned_risk else None
        yield Row(number=number, trade=trade, multiple=multiple)


def _params(params: Mapping[str, Any]) -> Iterator[Param]:
    for key, value in params.items():
        text, default = as_text(value), setting_of(key).default
        yield Param(key=key, value=text, default=None if text == default else default)


def _page_data(outcome: Outcome, minutes: int) -> dict[str, Any]:
    """What the page's script draws: the equity curve, and trades with the stops that protected them."""
    result = outcome.result
    moves: dict[str, list[StopMove]] = {symbol: [] for symbol in outcome.request.symbols}
    for move in result.stop_moves:
        moves[move.symbol].append(move)
    return {
        "capital": float(outcome.request.initial_capital),
        "equity": [[to_seconds(point.timestamp), float(point.equity)] for point in result.equity_curve],
        "minutes": minutes,
        "trades": [
            {
                "symbol": trade.symbol,
                "long": trade.side == "long",
                "entry_at": to_seconds(trade.entry_at),
                "exit_at": to_seconds(trade.exit_at),
                "entry": float(trade.entry_price),
                "exit": float(trade.exit_price),
                "pnl": float(trade.pnl),
                "stops": _stops(trade, moves[trade.symbol]),
            }
            for trade in result.trades
        ],
    }


def _stops(trade: Trade, moves: Sequence[StopMove]) -> list[list[float]]:
    """Where the stop lay, from when on; `moves` are those of its symbol, in order."""
    first = [] if trade.initial_stop_price is None else [[to_seconds(trade.entry_at), float(trade.initial_stop_price)]]
    begin = bisect_left(moves, trade.entry_at, key=lambda move: move.at)
    end = bisect_right(moves, trade.exit_at, key=lambda move: move.at)
    return first + [[to_seconds(move.at), float(move.stop_price)] for move in moves[begin:end]]


# --- candles ----------------------------------------------------------------------------------------------------------


def _candle_minutes(outcome: Outcome, bars: Mapping[str, BarColumns]) -> tuple[int, int]:
    """The length of the strategy's own candles, and that or the next one with which they are not too many."""
    params = outcome.request.params
    own = min((int(params[key]) for key in params if key.endswith(".candle_interval_minutes")), default=1)
    total = sum(len(each) for each in bars.values())
    lengths = [minutes for minutes in CANDLE_MINUTES if minutes >= own]
    return own, next((minutes for minutes in lengths if total <= minutes * MOST_CANDLES), lengths[-1])


def _packed(bars: BarColumns, sessions: Sequence[Session], minutes: int) -> str:
    """Candles as small integers, compressed, as text.

    Starts are minutes since the candle before; opens are relative to the close before, closes to the open, high and low
    to open and close; all in `units` to the dollar.
    """
    candles = candles_of(bars.within(sessions), sessions, interval_minutes=minutes, grace_seconds=0)
    prices = (candles.open, candles.high, candles.low, candles.close)
    unit = CENT_UNITS if all((column % CENT_UNITS == 0).all() for column in prices) else 1
    opened, high, low, close = (column // unit for column in prices)
    content = {
        "units": 10_000 // unit,
        "start": np.diff(candles.start // 60, prepend=0).tolist(),
        "open": (opened - np.r_[0, close[:-1]]).tolist() if len(close) else [],
        "high": (high - np.maximum(opened, close)).tolist(),
        "low": (np.minimum(opened, close) - low).tolist(),
        "close": (close - opened).tolist(),
    }
    text = json.dumps(content, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


# --- files of the page ------------------------------------------------------------------------------------------------


def _static(name: str) -> str:
    """A static file as text; pictures that a style sheet names are put into it."""
    path = finders.find(name)
    if not isinstance(path, str):
        raise FileNotFoundError(f"the program's own file static/{name} is missing")
    folder = Path(path).parent
    text = Path(path).read_text(encoding="utf-8")
    return re.sub(r'url\("(\.\./[^"]+\.svg)"\)', lambda match: f'url("{_svg(folder / match[1])}")', text)


def _policy(*scripts: str) -> str:
    """What the page may do, told to the browser: run these scripts, show pictures inside it, and load nothing."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts if script)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    parts = ("default-src 'none'", f"script-src {allowed}", "style-src 'unsafe-inline'", "img-src data: blob:")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def _svg(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
