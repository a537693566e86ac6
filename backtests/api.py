"""`/api/backtests`: what was run and how it went, and asking for more."""

from datetime import date
from typing import Annotated, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import BaseModel, ConfigDict, Field

from backtests import store
from backtests.outcome import trade_document
from backtests.request import BadRequest, make_request
from backtests.tasks import queue_backtest
from orders.api import Exact, Moment, Offset, RowId, one_page
from risk.api import IdempotencyKey, once, operator

router = Router(tags=["backtests"])

LARGEST_PAGE = 200

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most rows of a page.")]


class RunOut(Schema):
    """A backtest as it stands; `metrics` are those of the `backtest` command, null until it is done."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 3, "strategy": "velez", "symbols": ["AAPL", "TSLA"], "start_date": "2026-02-02",
                "end_date": "2026-02-27", "initial_capital": "25000", "status": "queued", "progress": 0, "error": "",
                "metrics": None, "created_by": "operator", "created_at": "2026-03-02T15:04:05.000000Z",
                "finished_at": None,
            }
        }
    )  # fmt: skip

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

    model_config = ConfigDict(json_schema_extra={})

    params: dict[str, Any]
    bars: int | None
    rejected_bars: int | None
    equity_curve: list[dict[str, str]] | None
    trades: list[dict[str, Any]]


class RunIn(BaseModel):
    """A backtest to run over the local bar store. Dates are New York sessions, both included; `params` are settings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "strategy": "velez", "symbols": ["AAPL", "TSLA"], "start_date": "2026-02-02",
                "end_date": "2026-02-27", "initial_capital": "25000", "params": {"velez.sma_fast": 10},
            }
        },
    )  # fmt: skip

    strategy: str
    symbols: list[str]
    start_date: str
    end_date: str
    initial_capital: str = "25000"
    params: dict[str, str | bool | int | float] = Field(default_factory=dict)


@router.get("backtests", response=list[RunOut])
def backtests(request: HttpRequest, response: HttpResponse, limit: Limit = 50, offset: Offset = 0) -> Any:
    """Backtests, newest first. The header Link names the pages beside this one."""
    found = store.runs(limit=limit + 1, offset=offset)
    return one_page(found, request, response, limit=limit, offset=offset)


@router.post("backtests", response={202: RunOut})
def ask_for_backtest(request: HttpRequest, wanted: RunIn, key: IdempotencyKey = None) -> Any:
    """Queue a backtest for the worker; its row tells how it goes."""
    by = operator(request)
    try:
        asked = make_request(**wanted.model_dump(), config=settings.ALGO)
    except BadRequest as error:
        raise HttpError(400, str(error)) from None
    return Status(202, store.find(once(request, by, key, lambda: queue_backtest(asked, created_by=by))))


@router.get("backtests/{run_id}", response=RunWithTrades)
def backtest(request: HttpRequest, run_id: RowId) -> Any:
    """One backtest with its equity curve and trades."""
    run = store.find(run_id)
    if run is None:
        raise HttpError(404, f"There is no backtest {run_id}.")
    columns = {name: getattr(run, name) for name in RunWithTrades.model_fields if name != "trades"}
    return {**columns, "trades": [trade_document(trade) for trade in store.trades_of(run_id)]}
