"""`/api/backtests`: what was run and how it went, and asking for more."""

from datetime import date
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError

from backtests import store
from backtests.outcome import trade_document
from backtests.request import BadRequest, make_request
from backtests.tasks import queue_backtest
from orders.api import Exact, Moment
from risk.api import operator

router = Router(tags=["backtests"])

LARGEST_PAGE = 200


class RunOut(Schema):
    """A backtest as it stands; `metrics` are those of the `backtest` command, null until it is done."""

    id: int
    strategy: str
    symbols: list[str]
    start_date: date
    end_date: date
    initial_capital: Exact
    status: str
    progress: int
    error: str
    metrics: dict[str, Any] | None
    created_by: str
    created_at: Moment
    finished_at: Moment | None


class RunWithTrades(RunOut):
    """A backtest with everything that came of it."""

    params: dict[str, Any]
    bars: int | None
    rejected_bars: int | None
    equity_curve: list[dict[str, str]] | None
    trades: list[dict[str, Any]]


class RunIn(Schema):
    """A backtest to run over the local bar store. Dates are New York sessions, both included; `params` are settings."""

    strategy: str
    symbols: list[str]
    start_date: str
    end_date: str
    initial_capital: str = "25000"
    params: dict[str, str | bool | int | float] = Field(default_factory=dict)


@router.get("backtests", response=list[RunOut])
def backtests(request: HttpRequest, limit: int = 50, offset: int = 0) -> Any:
    """Backtests, newest first."""
    if not (1 <= limit <= LARGEST_PAGE and offset >= 0):
        raise HttpError(400, f"limit must be from 1 to {LARGEST_PAGE}, offset 0 or more.")
    return store.runs(limit=limit, offset=offset)


@router.post("backtests", response={202: RunOut})
def ask_for_backtest(request: HttpRequest, wanted: RunIn) -> Any:
    """Queue a backtest for the worker; its row tells how it goes."""
    by = operator(request)
    try:
        run_id = queue_backtest(make_request(**wanted.model_dump(), config=settings.ALGO), created_by=by)
    except BadRequest as error:
        raise HttpError(400, str(error)) from None
    return Status(202, store.find(run_id))


@router.get("backtests/{int:run_id}", response=RunWithTrades)
def backtest(request: HttpRequest, run_id: int) -> Any:
    """One backtest with its equity curve and trades."""
    run = store.find(run_id)
    if run is None:
        raise HttpError(404, f"There is no backtest {run_id}.")
    columns = {name: getattr(run, name) for name in RunWithTrades.model_fields if name != "trades"}
    return {**columns, "trades": [trade_document(trade) for trade in store.trades_of(run_id)]}
