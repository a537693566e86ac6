"""The bridge to the engine's tables: what it wrote down, its runs, its lease, and what it is asked to do.

Every function is one transaction; `prepare` comes before one. `real_at` and `now` are the wall clock, `at` and
`recorded_at` market time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db import IntegrityError, connection, transaction

from orders import store as order_store
from orders.encoding import encode
from orders.events import Fact
from orders.fields import utc_now
from orders.lifecycle import Order
from orders.rows import Statement, insertions, search
from risk import store as risk_store
from trading import models
from trading.batch import Batch
from trading.messages import (
    ActivityRecorded,
    ActivityType,
    CandleClosed,
    CoverMeasured,
    DecisionRecorded,
    HaltRecorded,
    Level,
    Noted,
    OrderRecorded,
    Record,
    SessionRecorded,
    TradeRecorded,
)

LEASE_LIFE = timedelta(seconds=15)
REQUEST_LIFE = timedelta(seconds=60)
END_TRANSACTION_MS = 5000
NEW_YORK = ZoneInfo("America/New_York")
# The ledger can be written, but holds something else than what the records build upon.
DOES_NOT_FIT = (order_store.StaleOrder, order_store.UnfaithfulRecord, IntegrityError)


class NoLiveEngine(Exception):
    """No engine holds a lease that is alive: nobody would do what is asked."""


class LeaseHeld(Exception):
    """Another engine runs on this database."""


class LeaseLost(Exception):
    """The lease is somebody else's by now: this engine must stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Which engine runs, where, and when it last said so (wall clock). `port` is its dashboard's, if it has one."""

    token: str
    pid: int
    host: str
    port: int | None
    run_id: int | None
    account_id: str
    state: str
    started_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something the engine is asked; wall-clock times. `error` is empty if it was done."""

    id: int
    kind: str
    payload: Mapping[str, Any]
    requested_by: str
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None
    done_at: datetime | None
    result: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of the engine; wall-clock times."""

    id: int
    account_id: str
    provider: str
    account_mode: str
    strategies: tuple[str, ...]
    symbols: tuple[str, ...]
    settings: Mapping[str, str]
    settings_hash: str
    options: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    reason: str


# --- what the Trader recorded -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch with the statements of most of its rows; the others need to look at what is in the ledger first."""

    batch: Batch
    orders: order_store.PreparedOrders
    decisions: Sequence[Statement]
    activities: Sequence[Statement]


def prepare(batch: Batch) -> Prepared:
    """What can be done of writing before the transaction begins. Candles and notes are no rows.

    Raises:
        StaleOrder, UnfaithfulRecord: see `orders.store.prepare_orders`.
    """
    changes: list[tuple[Order, Fact, Order | None]] = []
    decisions: list[dict[str, Any]] = []
    activities: list[dict[str, Any]] = []
    for record in batch.records:
        match record:
            case OrderRecorded():
                changes.append((record.order, record.fact, record.before))
            case DecisionRecorded():
                decisions.append(_decision_columns(record, batch))
            case ActivityRecorded():
                activities.append(_activity_columns(record, batch))
            case TradeRecorded() | SessionRecorded() | HaltRecorded() | CoverMeasured() | CandleClosed() | Noted():
                pass
    return Prepared(
        batch=batch,
        orders=order_store.prepare_orders(changes, **_origin(batch)),
        decisions=insertions(models.Decision, decisions),
        activities=insertions(models.Activity, activities),
    )


@transaction.atomic
def write_once(prepared: Prepared, *, token: str = "") -> list[int]:
    """As `write_batch`, but nothing if an earlier attempt, whose outcome nobody learned, got through after all."""
    batch = prepared.batch
    if not _is_written(batch):
        return write_batch(prepared, token=token)
    same = {"account_id": batch.account_id, "recorded_real_at": batch.real_at}
    return list(models.Activity.objects.filter(**same).order_by("id").values_list("id", flat=True))


@transaction.atomic
def write_batch(prepared: Prepared, *, token: str = "") -> list[int]:
    """Writes everything or nothing; with a `token` only while the engine's lease is this one's.

    Returns the ids of the new activities, in order.

    Raises:
        LeaseLost: somebody took over. Checked where the row is written, so an engine that hung meanwhile does nothing.
        StaleOrder: see `orders.store.record_order`.
    """
    _write_orders(prepared.orders, token)
    batch = prepared.batch
    same = _origin(batch)
    for record in batch.records:
        match record:
            case TradeRecorded():
                order_store.record_trade(record.trade, settings_hash=batch.settings_hash, **same)
            case SessionRecorded():
                risk_store.save_session(
                    day=record.session.date,
                    opens_at=record.session.open,
                    closes_at=record.session.close,
                    start_equity=record.start_equity,
                    breaker=record.breaker,
                    tripped_at=record.tripped_at,
                    halted=record.halted,
                    **same,
                )
            case HaltRecorded():  # a session's own row may only add a halt, or there may be no session yet
                day = record.at.astimezone(NEW_YORK).date()
                risk_store.set_halted(halted=record.halted, day=day, **same)
            case CoverMeasured():
                _write_cover(record, batch)
            case OrderRecorded() | DecisionRecorded() | ActivityRecorded() | CandleClosed() | Noted():
                pass
    for statement in prepared.decisions:
        statement.run()
    return [number for statement in prepared.activities for number in statement.ids()]


def _write_orders(orders: order_store.PreparedOrders, token: str) -> None:
    """Looks for the lease too, even if there are no orders. Where orders only change, their change does that itself:
    a statement less, after each of which other threads may hold this one up.
    """
    lease = search(models.EngineLease, where={"token": token}) if token else None
    if lease is not None and (orders.additions or not orders.updates):
        _require(lease)
        lease = None
    try:
        orders.write(only_if=lease)
    except order_store.StaleOrder:
        if lease is not None:
            _require(lease)
        raise


def _require(lease: Statement) -> None:
    if not lease.finds():
        raise LeaseLost("another process took over this database")


def _is_written(batch: Batch) -> bool:
    """Whether its rows are there; a batch of a session's state alone may be written again and again."""
    account_id, real_at = batch.account_id, batch.real_at
    changes = [record for record in batch.records if isinstance(record, OrderRecorded)]
    if changes:
        return order_store.is_recorded(changes[0].order, account_id=account_id, recorded_real_at=real_at)
    same = {"account_id": account_id, "recorded_real_at": real_at}
    return any(table.objects.filter(**same).exists() for table in (models.Activity, models.Decision))


def write(
    records: Sequence[Record], *, account_id: str, run_id: int | None, settings_hash: str, real_at: datetime
) -> list[int]:
    """Prepares and writes a batch of these."""
    batch = Batch(
        account_id=account_id, run_id=run_id, settings_hash=settings_hash, real_at=real_at, records=tuple(records)
    )
    return write_batch(prepare(batch))


@transaction.atomic
def activities(
    account_id: str, *, limit: int = 50, before_id: int | None = None, correlation_id: str = ""
) -> list[tuple[int, ActivityRecorded]]:
    """The activity feed with the rows' ids, newest first, optionally from before a row or of one signal."""
    rows = models.Activity.objects.filter(account_id=account_id)
    if before_id is not None:
        rows = rows.filter(id__lt=before_id)
    if correlation_id:
        rows = rows.filter(correlation_id=correlation_id)
    return [(row.pk, _activity(row)) for row in rows.order_by("-id")[:limit]]


@transaction.atomic
def activities_between(account_id: str, *, since: datetime, until: datetime) -> list[tuple[int, ActivityRecorded]]:
    """The activity feed from `since` to before `until` of market time with the rows' ids, oldest first."""
    rows = models.Activity.objects.filter(account_id=account_id, recorded_at__gte=since, recorded_at__lt=until)
    return [(row.pk, _activity(row)) for row in rows.order_by("id")]


@transaction.atomic
def decisions(
    account_id: str, *, symbol: str = "", limit: int = 50, before_id: int | None = None, correlation_id: str = ""
) -> list[dict[str, Any]]:
    """Decisions as plain values by column, newest first, optionally from before a row or of one signal."""
    rows = models.Decision.objects.filter(account_id=account_id)
    if symbol:
        rows = rows.filter(symbol=symbol)
    if before_id is not None:
        rows = rows.filter(id__lt=before_id)
    if correlation_id:
        rows = rows.filter(correlation_id=correlation_id)
    return [dict(row) for row in rows.order_by("-id").values()[:limit]]


@transaction.atomic
def decisions_of_run(run_id: int) -> list[dict[str, Any]]:
    """The decisions of a run as plain values by column, in order."""
    return [dict(row) for row in models.Decision.objects.filter(run_id=run_id).order_by("id").values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverFigures:
    """Seconds without full stop cover of the account's closed positions, and the most dollars that were naked."""

    positions: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float
    longest_seconds: float
    most_dollars: Decimal


@transaction.atomic
def cover_figures(account_id: str) -> CoverFigures:
    """The figures over every position that was measured; zeros without any."""
    columns = ("naked_seconds", "longest_seconds", "most_dollars")
    rows = list(models.PositionCover.objects.filter(account_id=account_id).values_list(*columns))
    seconds = sorted(float(row[0]) for row in rows)
    return CoverFigures(
        positions=len(rows),
        p50_seconds=_nearest_rank(seconds, 50),
        p99_seconds=_nearest_rank(seconds, 99),
        max_seconds=max(seconds, default=0.0),
        longest_seconds=max((float(row[1]) for row in rows), default=0.0),
        most_dollars=max((row[2] for row in rows), default=Decimal(0)),
    )


def _nearest_rank(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that at least so many percent of all do not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1] if ascending else 0.0


def _write_cover(record: CoverMeasured, batch: Batch) -> None:
    cover = record.cover
    models.PositionCover.objects.create(
        **_same_columns(batch),
        recorded_at=record.at,
        symbol=cover.symbol,
        correlation_id=cover.correlation_id,
        naked_seconds=Decimal(repr(cover.seconds)),
        longest_seconds=Decimal(repr(cover.longest_seconds)),
        most_dollars=cover.most_dollars,
        stretches=cover.stretches,
    )


def _activity(row: models.Activity) -> ActivityRecorded:
    return ActivityRecorded(
        at=row.recorded_at,
        type=ActivityType(row.type),
        symbol=row.symbol,
        message=row.message,
        correlation_id=row.correlation_id,
        level=Level(row.level),
    )


def _activity_columns(record: ActivityRecorded, batch: Batch) -> dict[str, Any]:
    return {
        **_same_columns(batch),
        "recorded_at": record.at,
        "type": str(record.type),
        "level": str(record.level),
        "symbol": record.symbol,
        "message": record.message,
        "correlation_id": record.correlation_id,
    }


def _decision_columns(record: DecisionRecorded, batch: Batch) -> dict[str, Any]:
    return {
        **_same_columns(batch),
        "recorded_at": record.at,
        "symbol": record.symbol,
        "strategy": record.strategy,
        "side": str(record.side),
        "candle": encode(record.candle),
        "conditions": encode(record.conditions),
        "checks": encode(record.checks),
        "refused_by": record.refused_by,
        "qty": record.qty,
        "entry_price": record.entry_price,
        "stop_price": record.stop_price,
        "correlation_id": record.correlation_id,
        "settings_hash": batch.settings_hash,
    }


def _origin(batch: Batch) -> dict[str, Any]:
    """Whose records these are, and when they were made, as the stores' functions take it."""
    return {"account_id": batch.account_id, "run_id": batch.run_id, "real_at": batch.real_at}


def _same_columns(batch: Batch) -> dict[str, Any]:
    return {"account_id": batch.account_id, "run_id": batch.run_id, "recorded_real_at": batch.real_at}


# --- runs -------------------------------------------------------------------------------------------------------------


@transaction.atomic
def start_run(
    *,
    account_id: str,
    provider: str,
    account_mode: str,
    strategies: Sequence[str],
    symbols: Sequence[str],
    settings: Mapping[str, str],
    settings_hash: str,
    options: Mapping[str, Any],
    real_at: datetime,
) -> int:
    """Writes down a start of the engine with its settings; the run's id. A run that never ended did so by a crash."""
    crashed = models.EngineRun.objects.filter(outcome="running")
    crashed.update(outcome="failed", ended_at=real_at, reason="the process ended without a word")
    run = models.EngineRun.objects.create(
        account_id=account_id,
        provider=provider,
        account_mode=account_mode,
        strategies=list(strategies),
        symbols=list(symbols),
        settings=dict(settings),
        settings_hash=settings_hash,
        options=dict(options),
        started_at=real_at,
    )
    return run.pk


@transaction.atomic
def end_run(run_id: int, *, outcome: str, reason: str, real_at: datetime) -> None:
    """Writes down how a run ended: `stopped` or `failed`."""
    models.EngineRun.objects.filter(id=run_id).update(outcome=outcome, reason=reason, ended_at=real_at)


@transaction.atomic
def load_run(run_id: int) -> Run | None:
    """The run of that id."""
    row = models.EngineRun.objects.filter(id=run_id).first()
    return _run(row) if row else None


@transaction.atomic
def runs_of(account_id: str) -> list[Run]:
    """All runs on an account, oldest first."""
    return [_run(row) for row in models.EngineRun.objects.filter(account_id=account_id).order_by("id")]


@transaction.atomic
def last_run() -> Run | None:
    """The latest run on this database: its account is the one the pages show while no engine runs."""
    row = models.EngineRun.objects.order_by("-id").first()
    return _run(row) if row else None


def _run(row: models.EngineRun) -> Run:
    return Run(
        id=row.pk,
        account_id=row.account_id,
        provider=row.provider,
        account_mode=row.account_mode,
        strategies=tuple(row.strategies),
        symbols=tuple(row.symbols),
        settings=row.settings,
        settings_hash=row.settings_hash,
        options=row.options,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        reason=row.reason,
    )


# --- the lease --------------------------------------------------------------------------------------------------------


@transaction.atomic
def take_lease(*, token: str, pid: int, host: str, port: int | None, real_at: datetime) -> None:
    """Makes this process the engine of the database. The caller already holds the database's lock.

    On one machine that lock is proof that whoever wrote the old lease is gone; it may not reach another machine (a
    network file system), so a live lease from there stands.

    Raises:
        LeaseHeld: an engine on another machine is alive.
    """
    held = live_lease(now=real_at)
    if held is not None and held.host != host:
        raise LeaseHeld(f"an engine runs on this database already: process {held.pid} on {held.host}")
    models.EngineLease.objects.update_or_create(
        id=models.LEASE_ROW,
        defaults={
            "token": token,
            "pid": pid,
            "host": host,
            "port": port,
            "run_id": None,
            "account_id": "",
            "state": "starting",
            "started_at": real_at,
            "heartbeat_at": real_at,
        },
    )


@transaction.atomic
def seize_lease(*, token: str, pid: int, host: str, real_at: datetime) -> None:
    """Makes this process the only one that may write, whoever held the lease: an engine that hangs, or a dead one."""
    models.EngineLease.objects.update_or_create(
        id=models.LEASE_ROW,
        defaults={
            "token": token,
            "pid": pid,
            "host": host,
            "port": None,
            "run_id": None,
            "account_id": "",
            "state": "stopping",
            "started_at": real_at,
            "heartbeat_at": real_at,
        },
    )


@transaction.atomic
def beat(
    token: str,
    *,
    now: datetime | None = None,
    state: str | None = None,
    run_id: int | None = None,
    account_id: str | None = None,
    port: int | None = None,
    meters: str | None = None,
) -> None:
    """Says that the engine is alive, and what is new about it.

    Raises:
        LeaseLost: another engine took the lease.
    """
    news = {"state": state, "run_id": run_id, "account_id": account_id, "port": port, "meters": meters}
    changes = {name: value for name, value in news.items() if value is not None}
    if models.EngineLease.objects.filter(token=token).update(heartbeat_at=now or utc_now(), **changes) != 1:
        raise LeaseLost("another engine took over this database")


@transaction.atomic
def engine_meters() -> str:
    """What the running engine counted, by its latest heartbeat; empty without one."""
    alive = models.EngineLease.objects.filter(heartbeat_at__gt=utc_now() - LEASE_LIFE)
    return alive.values_list("meters", flat=True).first() or ""


@transaction.atomic
def drop_lease(token: str) -> None:
    """Gives the lease up, if it is still ours."""
    models.EngineLease.objects.filter(token=token).delete()


@transaction.atomic
def live_lease(*, now: datetime | None = None) -> Lease | None:
    """The lease of a running engine, None if its heart has not beaten for 15 s."""
    lease = peek_lease()
    return lease if lease is not None and lease.heartbeat_at > (now or utc_now()) - LEASE_LIFE else None


def peek_lease() -> Lease | None:
    """The lease, however old. No transaction: it is read also while another process holds SQLite's only one."""
    row = models.EngineLease.objects.first()
    if row is None:
        return None
    return Lease(
        token=row.token,
        pid=row.pid,
        host=row.host,
        port=row.port,
        run_id=row.run_id,
        account_id=row.account_id,
        state=row.state,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """One that has written, on a server that waits for its client: `silent_seconds` so far."""

    backend: int
    name: str
    silent_seconds: float


def open_transactions() -> list[OpenTransaction]:
    """Everybody else's on this PostgreSQL database; none with SQLite, which does not tell who holds it.

    No transaction, here and in `end_transaction`: both are for the time in which nobody else gets one.
    """
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, application_name, extract(epoch FROM clock_timestamp() - state_change)::float"
            " FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_xid IS NOT NULL AND wait_event_type = 'Client'"
        )
        return [
            OpenTransaction(backend=backend, name=name or "a process", silent_seconds=seconds)
            for backend, name, seconds in cursor.fetchall()
        ]


def end_transaction(backend: int) -> bool:
    """Ends a session of this PostgreSQL database, whose transaction is rolled back; False if it is not seen to end."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, %s)", [backend, END_TRANSACTION_MS])
        row = cursor.fetchone()
    return row is not None and bool(row[0])


# --- requests ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def ask(kind: str, payload: Mapping[str, Any], *, by: str, now: datetime | None = None) -> Request:
    """Leaves a request for the running engine, good for 60 s.

    Raises:
        NoLiveEngine: there is nobody to ask.
    """
    now = now or utc_now()
    lease = live_lease(now=now)
    if lease is None:
        raise NoLiveEngine("no engine is running")
    row = models.OperatorRequest.objects.create(
        kind=kind,
        payload={name: encode(value) for name, value in payload.items()},
        lease_token=lease.token,
        account_id=lease.account_id,
        requested_by=by,
        created_at=now,
        expires_at=now + REQUEST_LIFE,
    )
    return find_request(row.pk)


def claim_requests(token: str, *, now: datetime | None = None) -> list[Request]:
    """The requests that wait for the holder of this lease, oldest first; from now on they are its to finish.

    Asked several times a second: only when there is one does it wait for whoever writes just now.
    """
    now = now or utc_now()
    waiting = models.OperatorRequest.objects.filter(lease_token=token, claimed_at__isnull=True, expires_at__gt=now)
    ids = list(waiting.order_by("id").values_list("id", flat=True))
    return _claim(ids, now) if ids else []


@transaction.atomic
def _claim(ids: Sequence[int], now: datetime) -> list[Request]:
    open_ones = models.OperatorRequest.objects.filter(claimed_at__isnull=True)
    return [find_request(pk) for pk in ids if open_ones.filter(id=pk).update(claimed_at=now)]


@transaction.atomic
def finish_request(request_id: int, *, result: str = "", error: str = "", now: datetime | None = None) -> None:
    """Writes down what came of a request; `error` says why it was not done."""
    rows = models.OperatorRequest.objects.filter(id=request_id, done_at__isnull=True)
    rows.update(done_at=now or utc_now(), result=result, error=error)


@transaction.atomic
def withdraw_request(request_id: int, *, reason: str, now: datetime | None = None) -> bool:
    """Takes a request back that nobody has taken up; False if somebody has."""
    now = now or utc_now()
    rows = models.OperatorRequest.objects.filter(id=request_id, claimed_at__isnull=True)
    return bool(rows.update(claimed_at=now, done_at=now, error=reason))


@transaction.atomic
def find_request(request_id: int) -> Request:
    """A request as it stands. Raises LookupError if there is none of that id."""
    row = models.OperatorRequest.objects.filter(id=request_id).first()
    if row is None:
        raise LookupError(f"there is no request {request_id}")
    return Request(
        id=row.pk,
        kind=row.kind,
        payload=row.payload,
        requested_by=row.requested_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        claimed_at=row.claimed_at,
        done_at=row.done_at,
        result=row.result,
        error=row.error,
    )
