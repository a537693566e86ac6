"""The bridge to the tables of backtests: asked for, running, done or failed, and the trades of those that are done.

Every function is one transaction; `real_at` is the wall clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from backtests import models
from backtests.metrics import Metrics
from backtests.outcome import Outcome, curve_document, data_document, metrics_document, scenarios_document
from backtests.request import BacktestRequest, make_request
from orders.lifecycle import Side
from orders.portfolio import Trade

UNFINISHED = ("queued", "running")
# After this long without renewal a run's worker counts as dead; a run that ends every worker is not tried for ever.
LEASE_SECONDS: int = settings.ALGO["worker.lease_seconds"]
LEASE = timedelta(seconds=LEASE_SECONDS)
MOST_ATTEMPTS = 3
METRIC_COLUMNS = (
    "total_return",
    "final_equity",
    "win_rate",
    "profit_factor",
    "sharpe_ratio",
    "max_drawdown",
    "total_trades",
)
TRADE_COLUMNS = tuple(field.name for field in fields(Trade) if field.name != "estimated")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it stands, without what is large. `metrics` to `seconds` are as in the JSON of the `backtest` command.

    They are None until it is done. `progress` is in percent; `error` says why a run failed.
    """

    id: int
    strategy: str
    symbols: tuple[str, ...]
    start_date: date
    end_date: date
    initial_capital: Decimal
    params: Mapping[str, Any]
    data: str | None
    settings_hash: str
    sweep_id: str | None
    created_by: str
    status: str
    progress: int
    error: str
    metrics: Mapping[str, Any] | None
    signals: Mapping[str, int] | None
    bars: int | None
    rejected_bars: int | None
    seconds: Mapping[str, float] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunRow):
    """A run with all that it came to but its trades."""

    equity_curve: Sequence[Mapping[str, str]] | None
    data_report: Mapping[str, Any] | None
    scenarios: Sequence[Mapping[str, Any]] | None


class Wanted(Protocol):
    """What the rows of runs, sweeps and walk-forwards say alike of the backtest that is wanted."""

    @property
    def strategy(self) -> str: ...
    @property
    def symbols(self) -> Sequence[str]: ...
    @property
    def start_date(self) -> date: ...
    @property
    def end_date(self) -> date: ...
    @property
    def initial_capital(self) -> Decimal: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def data(self) -> str | None: ...


def request_of(row: Wanted) -> BacktestRequest:
    """The request that a row was written for.

    Raises:
        BadRequest: this program no longer knows one of its settings.
    """
    return make_request(
        strategy=row.strategy,
        symbols=row.symbols,
        start_date=row.start_date.isoformat(),
        end_date=row.end_date.isoformat(),
        initial_capital=str(row.initial_capital),
        params=row.params,
        config=settings.ALGO,
        data=row.data,
    )


ROW_FIELDS = tuple(field.name for field in fields(RunRow))
RUN_FIELDS = tuple(field.name for field in fields(Run))


# --- writing ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def create(request: BacktestRequest, *, created_by: str = "", sweep_id: str | None = None, real_at: datetime) -> int:
    """Writes down that a run is wanted; its id."""
    row = models.BacktestRun.objects.create(
        strategy=request.strategy,
        symbols=list(request.symbols),
        start_date=request.start_date,
        end_date=request.end_date,
        initial_capital=request.initial_capital,
        params=request.params,
        data=request.data,
        settings_hash=request.config.fingerprint(),
        created_by=created_by,
        sweep_id=sweep_id,
        status="queued",
        created_at=real_at,
    )
    models.BacktestRun.objects.filter(id=row.pk).update(account_id=_account_id(row.pk))
    return row.pk


@transaction.atomic
def begin(run_id: int, *, real_at: datetime) -> bool:
    """Marks a run as running, anew if its worker is dead; False if it is over or another worker has it."""
    return take(models.BacktestRun.objects.filter(id=run_id), real_at=real_at, started_at=real_at)


@transaction.atomic
def renew(run_id: int, *, real_at: datetime) -> bool:
    """Says that the run's worker lives; False if the run is over."""
    return hold(models.BacktestRun.objects.filter(id=run_id), real_at=real_at)


@transaction.atomic
def left_behind(*, real_at: datetime) -> list[int]:
    """Runs that a worker should take: those of dead workers, and those whose task was lost with a worker.

    One that ended MOST_ATTEMPTS workers fails.
    """
    return not_held(models.BacktestRun.objects.all(), fail, real_at=real_at)


# --- leases, of runs and of walk-forwards -----------------------------------------------------------------------------


def take(rows: QuerySet[Any], *, real_at: datetime, **also: Any) -> bool:
    """Marks the one row as running, with what else changes; False if it is over or another worker has it."""
    is_free = Q(status="queued") | Q(status="running", lease_until=None) | Q(status="running", lease_until__lt=real_at)
    running = {"status": "running", "progress": 0, "lease_until": real_at + LEASE, "attempts": F("attempts") + 1}
    return rows.filter(is_free).update(**running, **also) == 1


def hold(rows: QuerySet[Any], *, real_at: datetime) -> bool:
    """Says that the worker of the one row lives; False if the row is over."""
    return rows.filter(status="running").update(lease_until=real_at + LEASE) == 1


def not_held(rows: QuerySet[Any], fail: Callable[..., None], *, real_at: datetime) -> list[int]:
    """Ids of the rows that a worker should take; those that ended MOST_ATTEMPTS workers `fail` instead."""
    is_left = Q(status="running", lease_until__lt=real_at) | Q(status="queued", created_at__lt=real_at - LEASE)
    left = rows.filter(is_left)
    for row_id in left.filter(attempts__gte=MOST_ATTEMPTS).values_list("id", flat=True):
        fail(row_id, f"{MOST_ATTEMPTS} workers ended while they ran it", real_at=real_at)
    return list(left.order_by("id").values_list("id", flat=True))


# --- progress and outcome ---------------------------------------------------------------------------------------------


@transaction.atomic
def report_progress(run_id: int, percent: int) -> None:
    """Writes down how far a running run is."""
    models.BacktestRun.objects.filter(id=run_id, status="running").update(progress=percent)


@transaction.atomic
def finish(run_id: int, outcome: Outcome, *, real_at: datetime) -> bool:
    """Writes the outcome with all its trades; False, and nothing is written, if another worker was faster."""
    rows = models.BacktestRun.objects.filter(id=run_id, status__in=UNFINISHED)
    written = rows.update(
        status="done",
        progress=100,
        metrics=metrics_document(outcome.metrics),
        equity_curve=curve_document(outcome.result.equity_curve),
        signals=dict(outcome.result.decisions),
        bars=outcome.result.bars,
        rejected_bars=outcome.rejected_bars,
        data_report=data_document(outcome.data),
        scenarios=scenarios_document(outcome.scenarios),
        seconds=dict(outcome.seconds),
        finished_at=real_at,
        **_metric_columns(outcome.metrics),
    )
    if written:
        models.BacktestTrade.objects.bulk_create(_trade_row(run_id, trade) for trade in outcome.result.trades)
    return written == 1


@transaction.atomic
def save(outcome: Outcome, *, created_by: str = "", sweep_id: str | None = None, real_at: datetime) -> int:
    """Writes a run that is over already; its id."""
    run_id = create(outcome.request, created_by=created_by, sweep_id=sweep_id, real_at=real_at)
    finish(run_id, outcome, real_at=real_at)
    return run_id


@transaction.atomic
def fail(run_id: int, error: str, *, real_at: datetime) -> None:
    """Writes down why a run came to nothing."""
    rows = models.BacktestRun.objects.filter(id=run_id, status__in=UNFINISHED)
    rows.update(status="failed", error=error, finished_at=real_at)


# --- reading ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def find(run_id: int) -> Run | None:
    """The run of that id."""
    row = models.BacktestRun.objects.filter(id=run_id).first()
    return Run(**_values(row, RUN_FIELDS)) if row else None


@transaction.atomic
def runs(*, limit: int = 50, offset: int = 0, sweep_id: str | None = None) -> list[RunRow]:
    """Runs, newest first, optionally those of one sweep."""
    rows = models.BacktestRun.objects.filter(**({} if sweep_id is None else {"sweep_id": sweep_id})).only(*ROW_FIELDS)
    return [RunRow(**_values(row, ROW_FIELDS)) for row in rows.order_by("-id")[offset : offset + limit]]


@transaction.atomic
def comparable(run_id: int, *, limit: int = 100) -> list[tuple[int, str]]:
    """Other finished runs, newest first: their numbers, and what they were in words."""
    rows = models.BacktestRun.objects.filter(status="done").exclude(id=run_id).order_by("-id")[:limit]
    return [(row.pk, f"#{row.pk} {row}") for row in rows.only("strategy", "start_date", "end_date")]


@transaction.atomic
def trades_of(run_id: int) -> list[Trade]:
    """The trades of a run, by exit time, symbol and entry time."""
    rows = models.BacktestTrade.objects.filter(run_id=run_id).order_by("exit_at", "symbol", "entry_at", "id")
    return [Trade(**{name: getattr(row, name) for name in TRADE_COLUMNS} | {"side": Side(row.side)}) for row in rows]


def _values(row: models.BacktestRun, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names} | {"symbols": tuple(row.symbols)}


def _trade_row(run_id: int, trade: Trade) -> models.BacktestTrade:
    return models.BacktestTrade(
        run_id=run_id,
        account_id=_account_id(run_id),
        duration_seconds=trade.duration_seconds,
        **{name: getattr(trade, name) for name in TRADE_COLUMNS} | {"side": str(trade.side)},
    )


def _metric_columns(metrics: Metrics) -> dict[str, Any]:
    """The figures that have a column; a ratio becomes the shortest decimal that means the same float."""
    values = {name: getattr(metrics, name) for name in METRIC_COLUMNS}
    return {name: Decimal(repr(value)) if isinstance(value, float) else value for name, value in values.items()}


def _account_id(run_id: int) -> str:
    return f"backtest:{run_id}"
