"""The bridge to the table of walk-forwards; every function is one transaction, `real_at` is the wall clock.

Leases are as those of runs: see `store.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from backtests import models, store
from backtests.store import UNFINISHED, request_of
from backtests.sweep import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkRow:
    """A walk-forward as it stands; `result` is as in the JSON of the `walkforward` command, None until it is done."""

    id: int
    strategy: str
    symbols: tuple[str, ...]
    start_date: date
    end_date: date
    initial_capital: Decimal
    params: Mapping[str, Any]
    data: str | None
    grid: Mapping[str, tuple[str, ...]]
    train_sessions: int
    test_sessions: int
    is_anchored: bool
    figure: str
    status: str
    progress: int
    error: str
    result: Mapping[str, Any] | None
    created_by: str
    created_at: datetime

    def sweep(self) -> Sweep:
        """The grid and what all of its backtests share.

        Raises:
            BadRequest: this program no longer knows one of its settings.
        """
        return Sweep(base=request_of(self), grid=self.grid)


FIELDS = tuple(field.name for field in fields(WalkRow) if field.name not in ("symbols", "grid"))


@transaction.atomic
def create(
    sweep: Sweep, *, train: int, test: int, is_anchored: bool, figure: str, created_by: str, real_at: datetime
) -> int:
    """Writes down that a walk-forward is wanted; its id."""
    base = sweep.base
    row = models.BacktestWalkForward.objects.create(
        strategy=base.strategy,
        symbols=list(base.symbols),
        start_date=base.start_date,
        end_date=base.end_date,
        initial_capital=base.initial_capital,
        params=base.params,
        data=base.data,
        settings_hash=base.config.fingerprint(),
        grid=[[key, list(values)] for key, values in sweep.grid.items()],
        train_sessions=train,
        test_sessions=test,
        is_anchored=is_anchored,
        figure=figure,
        created_by=created_by,
        created_at=real_at,
    )
    return row.pk


@transaction.atomic
def begin(walk_id: int, *, real_at: datetime) -> bool:
    """Marks it as running, anew if its worker is dead; False if it is over or another worker has it."""
    return store.take(models.BacktestWalkForward.objects.filter(id=walk_id), real_at=real_at)


@transaction.atomic
def renew(walk_id: int, *, real_at: datetime) -> bool:
    """Says that its worker lives; False if it is over."""
    return store.hold(models.BacktestWalkForward.objects.filter(id=walk_id), real_at=real_at)


@transaction.atomic
def report_progress(walk_id: int, percent: int) -> None:
    """Writes down how far it is."""
    models.BacktestWalkForward.objects.filter(id=walk_id, status="running").update(progress=percent)


@transaction.atomic
def finish(walk_id: int, result: Mapping[str, Any], *, real_at: datetime) -> bool:
    """Writes what came of it; False if another worker was faster."""
    rows = models.BacktestWalkForward.objects.filter(id=walk_id, status__in=UNFINISHED)
    return rows.update(status="done", progress=100, result=result, finished_at=real_at) == 1


@transaction.atomic
def save(
    sweep: Sweep,
    result: Mapping[str, Any],
    *,
    train: int,
    test: int,
    is_anchored: bool,
    figure: str,
    real_at: datetime,
) -> int:
    """Writes down one that was carried out elsewhere, with what came of it; its id."""
    walk_id = create(
        sweep, train=train, test=test, is_anchored=is_anchored, figure=figure, created_by="", real_at=real_at
    )
    begin(walk_id, real_at=real_at)
    finish(walk_id, result, real_at=real_at)
    return walk_id


@transaction.atomic
def fail(walk_id: int, error: str, *, real_at: datetime) -> None:
    """Writes down why it came to nothing."""
    rows = models.BacktestWalkForward.objects.filter(id=walk_id, status__in=UNFINISHED)
    rows.update(status="failed", error=error, finished_at=real_at)


@transaction.atomic
def left_behind(*, real_at: datetime) -> list[int]:
    """Those that a worker should take, as with runs; one that ended MOST_ATTEMPTS workers fails."""
    return store.not_held(models.BacktestWalkForward.objects.all(), fail, real_at=real_at)


@transaction.atomic
def find(walk_id: int) -> WalkRow | None:
    """The one of that id."""
    row = models.BacktestWalkForward.objects.filter(id=walk_id).first()
    return _row(row) if row else None


@transaction.atomic
def walks(*, limit: int = 50, offset: int = 0) -> list[WalkRow]:
    """Walk-forwards, newest first."""
    return [_row(row) for row in models.BacktestWalkForward.objects.order_by("-id")[offset : offset + limit]]


def _row(row: models.BacktestWalkForward) -> WalkRow:
    return WalkRow(
        symbols=tuple(row.symbols),
        grid={key: tuple(values) for key, values in row.grid},
        **{name: getattr(row, name) for name in FIELDS},
    )
