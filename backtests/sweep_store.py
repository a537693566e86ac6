"""The bridge to the tables of sweeps: which chunks wait, which worker has which, and what came of every point.

Every function is one transaction; `real_at` is the wall clock. A chunk is a worker's as long as its lease holds: after
LEASE without renewal its worker counts as dead, and another one may take it. Results are written once per point.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.db.models import Count, Q

from backtests import models
from backtests.store import LEASE, request_of
from backtests.sweep import PointResult, Sweep, chunks
from backtests.validation import Moments

# A chunk that ends its worker every time is not tried for ever.
MOST_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """A sweep as it stands; `done` of its `points` have a result. `error` says why it failed."""

    id: int
    sweep_id: str
    strategy: str
    symbols: tuple[str, ...]
    start_date: date
    end_date: date
    initial_capital: Decimal
    params: Mapping[str, Any]
    data: str | None
    grid: Mapping[str, tuple[str, ...]]
    points: int
    done: int
    on_cluster: bool
    status: str
    error: str
    created_by: str
    created_at: datetime
    finished_at: datetime | None

    @property
    def progress(self) -> int:
        """How much is done, in percent."""
        return 100 * self.done // self.points

    def sweep(self) -> Sweep:
        """What it is asked to do.

        Raises:
            BadRequest: this program no longer knows one of its settings.
        """
        return Sweep(base=request_of(self), grid=self.grid)


ROW_FIELDS = tuple(field.name for field in fields(SweepRow) if field.name not in ("symbols", "grid", "done"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A chunk that this worker has; `token` proves it."""

    chunk_id: int
    sweep_id: int
    part: range
    token: str


# --- writing ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def create(sweep: Sweep, *, on_cluster: bool, created_by: str = "", real_at: datetime) -> int:
    """Writes down a sweep with its chunks; its id."""
    base = sweep.base
    row = models.BacktestSweep.objects.create(
        sweep_id=str(uuid4()),
        strategy=base.strategy,
        symbols=list(base.symbols),
        start_date=base.start_date,
        end_date=base.end_date,
        initial_capital=base.initial_capital,
        params=base.params,
        data=base.data,
        settings_hash=base.config.fingerprint(),
        grid=[[key, list(values)] for key, values in sweep.grid.items()],
        points=sweep.points,
        on_cluster=on_cluster,
        lease_until=None if on_cluster else real_at + LEASE,
        created_by=created_by,
        created_at=real_at,
    )
    models.BacktestSweepChunk.objects.bulk_create(
        models.BacktestSweepChunk(sweep=row, first=part.start, end=part.stop) for part in chunks(sweep.points)
    )
    return row.pk


@transaction.atomic
def claim(sweep_id: int, *, real_at: datetime) -> Claim | None:
    """Takes the next chunk that waits or whose worker is dead; None if there is none."""
    rows = models.BacktestSweepChunk.objects
    token = str(uuid4())
    for chunk in rows.filter(_free(real_at), sweep_id=sweep_id, sweep__status="running").order_by("first"):
        # Another worker may have been faster: only the one that finds the row as it was gets it.
        taken = rows.filter(_free(real_at), id=chunk.pk).update(
            status="running", token=token, lease_until=real_at + LEASE, attempts=chunk.attempts + 1
        )
        if taken:
            return Claim(chunk_id=chunk.pk, sweep_id=sweep_id, part=range(chunk.first, chunk.end), token=token)
    return None


@transaction.atomic
def renew(claimed: Claim, *, real_at: datetime) -> bool:
    """Says that the chunk's worker lives; False if it is another one's by now."""
    rows = models.BacktestSweepChunk.objects.filter(id=claimed.chunk_id, token=claimed.token, status="running")
    return rows.update(lease_until=real_at + LEASE) == 1


@transaction.atomic
def record(sweep_id: int, results: Iterable[PointResult], *, worker: str, real_at: datetime) -> None:
    """Writes the results of points that have none yet; where another worker was faster, its result stays."""
    models.BacktestSweepPoint.objects.bulk_create(
        [
            models.BacktestSweepPoint(
                sweep_id=sweep_id,
                number=each.number,
                params=dict(each.params),
                metrics=each.metrics,
                moments=asdict(each.moments) if each.moments else None,
                error=each.error,
                seconds=each.seconds,
                worker=worker,
                finished_at=real_at,
            )
            for each in results
        ],
        ignore_conflicts=True,
    )


@transaction.atomic
def complete(claimed: Claim) -> None:
    """Marks the chunk as done, if it is still this worker's."""
    rows = models.BacktestSweepChunk.objects.filter(id=claimed.chunk_id, token=claimed.token, status="running")
    rows.update(status="done", lease_until=None)


@transaction.atomic
def finish(sweep_id: int, *, real_at: datetime) -> bool:
    """Marks the sweep as done if every point has its result."""
    row = models.BacktestSweep.objects.get(id=sweep_id)
    if models.BacktestSweepPoint.objects.filter(sweep_id=sweep_id).count() < row.points:
        return False
    models.BacktestSweepChunk.objects.filter(sweep_id=sweep_id).update(status="done", lease_until=None)
    rows = models.BacktestSweep.objects.filter(id=sweep_id, status="running")
    return rows.update(status="done", finished_at=real_at) == 1


@transaction.atomic
def fail(sweep_id: int, error: str, *, real_at: datetime) -> None:
    """Writes down why a sweep came to nothing; the results that it has stay."""
    rows = models.BacktestSweep.objects.filter(id=sweep_id, status="running")
    if rows.update(status="failed", error=error, finished_at=real_at):
        models.BacktestSweepChunk.objects.filter(sweep_id=sweep_id).exclude(status="done").update(
            status="failed", lease_until=None
        )


@transaction.atomic
def begin_again(sweep_id: int, *, on_cluster: bool, real_at: datetime) -> None:
    """Opens a sweep that failed or was left: the chunks without all results wait again."""
    lease_until = None if on_cluster else real_at + LEASE
    models.BacktestSweep.objects.filter(id=sweep_id).exclude(status="done").update(
        status="running", error="", on_cluster=on_cluster, finished_at=None, queued_at=None, lease_until=lease_until
    )
    models.BacktestSweepChunk.objects.filter(sweep_id=sweep_id).exclude(status="done").update(
        status="queued", token=None, lease_until=None, attempts=0
    )


@transaction.atomic
def renew_sweep(sweep_id: int, *, real_at: datetime) -> None:
    """Says that the process lives which runs a sweep that is not on the cluster."""
    rows = models.BacktestSweep.objects.filter(id=sweep_id, status="running", on_cluster=False)
    rows.update(lease_until=real_at + LEASE)


@transaction.atomic
def fail_abandoned(*, real_at: datetime) -> None:
    """Fails the sweeps whose own process is gone."""
    rows = models.BacktestSweep.objects.filter(status="running", on_cluster=False, lease_until__lt=real_at)
    for sweep_id in rows.values_list("id", flat=True):
        text = f"the process that ran it is gone: go on with `manage.py sweep --resume {sweep_id}`"
        fail(sweep_id, text, real_at=real_at)


@transaction.atomic
def call_workers(sweep_id: int, *, real_at: datetime) -> int:
    """How many tasks to queue for chunks that nobody works on; 0 if others were called less than a lease ago.

    A chunk that ended its worker MOST_ATTEMPTS times makes the sweep fail.
    """
    free = models.BacktestSweepChunk.objects.filter(_free(real_at), sweep_id=sweep_id)
    if hopeless := free.filter(attempts__gte=MOST_ATTEMPTS).first():
        points = f"{hopeless.first} to {hopeless.end - 1}"
        fail(sweep_id, f"{MOST_ATTEMPTS} workers ended while they ran points {points}", real_at=real_at)
        return 0
    waiting = free.count()
    rows = models.BacktestSweep.objects.filter(Q(queued_at=None) | Q(queued_at__lt=real_at - LEASE), id=sweep_id)
    return waiting if waiting and rows.filter(status="running").update(queued_at=real_at) else 0


def _free(real_at: datetime) -> Q:
    return Q(status="queued") | Q(status="running", lease_until__lt=real_at)


# --- reading ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def find(sweep_id: int) -> SweepRow | None:
    """The sweep of that id."""
    row = _rows().filter(id=sweep_id).first()
    return _row(row) if row else None


@transaction.atomic
def sweeps(*, limit: int = 50, offset: int = 0) -> list[SweepRow]:
    """Sweeps, newest first."""
    return [_row(row) for row in _rows().order_by("-id")[offset : offset + limit]]


@transaction.atomic
def unfinished() -> list[int]:
    """Ids of the sweeps that workers have yet to finish."""
    return list(models.BacktestSweep.objects.filter(status="running", on_cluster=True).values_list("id", flat=True))


@transaction.atomic
def results(sweep_id: int) -> list[PointResult]:
    """What there is so far, by point."""
    rows = models.BacktestSweepPoint.objects.filter(sweep_id=sweep_id).order_by("number")
    return [
        PointResult(
            number=row.number,
            params=row.params,
            metrics=row.metrics,
            moments=Moments(**row.moments) if row.moments else None,
            error=row.error,
            seconds=row.seconds,
        )
        for row in rows
    ]


@transaction.atomic
def numbers_done(sweep_id: int, part: range) -> Collection[int]:
    """The points of a part that have a result."""
    rows = models.BacktestSweepPoint.objects.filter(sweep_id=sweep_id, number__gte=part.start, number__lt=part.stop)
    return set(rows.values_list("number", flat=True))


@transaction.atomic
def workers_of(sweep_id: int) -> Sequence[tuple[str, int]]:
    """Host and process of every worker that took part, with the points it ran."""
    rows = models.BacktestSweepPoint.objects.filter(sweep_id=sweep_id).values_list("worker")
    return [(worker, count) for worker, count in rows.annotate(Count("id")).order_by("worker")]


def _rows() -> Any:
    return models.BacktestSweep.objects.annotate(done=Count("results"))


def _row(row: Any) -> SweepRow:
    return SweepRow(
        symbols=tuple(row.symbols),
        grid={key: tuple(values) for key, values in row.grid},
        done=row.done,
        **{name: getattr(row, name) for name in ROW_FIELDS},
    )
