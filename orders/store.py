"""The bridge between orders and their tables: every function is one transaction, every query one account's."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import QuerySet

from orders import models
from orders.encoding import decode, decode_fact, encode, encode_fact
from orders.events import Created, Fact, Filled
from orders.lifecycle import TERMINAL, IllegalTransition, Order, OrderState, OrderType, Role, Side, TimeInForce, apply
from orders.portfolio import ImpossibleFill, Portfolio, Position, Trade
from orders.rows import Statement, insertions, update

ZERO = Decimal(0)
MOST_IDS_A_QUERY = 500  # SQLite takes 32 766 parameters, older builds 999
TRADES = UUID("3b0d5a86-52e1-4d0f-9d5c-6c2f8f3f1a44")  # namespace of trade ids
ORDER_FIELDS = tuple(field.name for field in fields(Order))
TRADE_FIELDS = tuple(field.name for field in fields(Trade))


class StaleOrder(Exception):
    """The order in the ledger is not the one the change was made to: nothing was written."""


class UnfaithfulRecord(Exception):
    """The change is not what its fact does to the order, so history could not be replayed: nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """A row of `order_event`: the order's states before and after `fact`, and when it was written by the wall clock.

    `broker_id` and `stop_price` are the order's after it.
    """

    id: int
    event_type: str
    old_state: str | None
    new_state: str
    broker_id: str | None
    stop_price: Decimal | None
    fact: Fact
    recorded_real_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTrade:
    """A row of `trade` with what people noted about it."""

    trade_id: str
    trade: Trade
    run_id: int | None
    settings_hash: str
    corrects_trade_id: str | None
    recorded_real_at: datetime
    notes: tuple[str, ...]


# --- writing ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def record_order(
    order: Order, fact: Fact, before: Order | None, *, account_id: str, run_id: int | None, real_at: datetime
) -> None:
    """Writes an order as `fact` left it, and the fact itself. `before` is the order before it, None for a new one.

    Raises:
        StaleOrder: the ledger's row is not `before`.
        UnfaithfulRecord: applying `fact` to `before` does not give `order`.
    """
    record_orders([(order, fact, before)], account_id=account_id, run_id=run_id, real_at=real_at)


@transaction.atomic
def record_orders(
    changes: Sequence[tuple[Order, Fact, Order | None]], *, account_id: str, run_id: int | None, real_at: datetime
) -> None:
    """Writes several changes of orders in their order, as `record_order` does each.

    Raises:
        StaleOrder, UnfaithfulRecord: nothing was written.
    """
    prepare_orders(changes, account_id=account_id, run_id=run_id, real_at=real_at).write()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedOrders:
    """Changes of orders as statements. `updates` are by local id, with the version that the ledger should have."""

    additions: Sequence[Statement]
    updates: Sequence[tuple[str, int, Statement]]
    events: Sequence[Statement]

    def write(self, *, only_if: Statement | None = None) -> None:
        """Within the caller's transaction; no order is changed unless that search finds something.

        Raises:
            StaleOrder: an order is another one in the ledger, or nothing was found.
        """
        for addition in self.additions:
            addition.run()
        for local_id, version, change in self.updates:
            if (change if only_if is None else change.only_if(only_if)).run() != 1:
                raise StaleOrder(f"order {local_id} is not at version {version} in the ledger")
        for event in self.events:
            event.run()


def prepare_orders(
    changes: Sequence[tuple[Order, Fact, Order | None]], *, account_id: str, run_id: int | None, real_at: datetime
) -> PreparedOrders:
    """Changes of orders in their order, checked, in as few statements as possible; the database is not asked.

    An order that changes more than once is written as the last change left it; each change is an event of its own.

    Raises:
        StaleOrder: an order is changed twice, and the second time from something else.
        UnfaithfulRecord: see `record_order`.
    """
    firsts: dict[str, Order | None] = {}
    lasts: dict[str, Order] = {}
    for order, fact, before in changes:
        if not account_id:
            raise UnfaithfulRecord(f"order {order.local_id} belongs to no account")
        if isinstance(fact, Created) != (before is None) or (before is not None and apply(before, fact) != order):
            raise UnfaithfulRecord(f"order {order.local_id} is not what {fact.event_type} makes of it")
        if lasts.setdefault(order.local_id, order) is not order and before != lasts[order.local_id]:
            raise StaleOrder(f"order {order.local_id} is changed twice, and the second time from something else")
        firsts.setdefault(order.local_id, before)
        lasts[order.local_id] = order
    same: dict[str, Any] = {"account_id": account_id, "run_id": run_id, "recorded_real_at": real_at}
    news = [{**same, **_columns(lasts[new])} for new, before in firsts.items() if before is None]
    updates = []
    for local_id, known in firsts.items():
        if known is not None:
            columns = _columns(known)
            changed = {name: value for name, value in _columns(lasts[local_id]).items() if value != columns[name]}
            same_order = {"local_id": local_id, "account_id": account_id, "version": known.version}
            change = {"run_id": run_id, "recorded_real_at": real_at, **changed}
            updates.append((local_id, known.version, update(models.OrderState, change, where=same_order)))
    events = [{**same, **_event_columns(order, fact, before)} for order, fact, before in changes]
    return PreparedOrders(
        additions=insertions(models.OrderState, news),
        updates=updates,
        events=insertions(models.OrderEvent, events),
    )


@transaction.atomic
def is_recorded(order: Order, *, account_id: str, recorded_real_at: datetime) -> bool:
    """Whether the change that made the order what it is was written down, at that moment of the wall clock."""
    events = models.OrderEvent.objects.filter(order_local__local_id=order.local_id, version=order.version)
    return events.filter(account_id=account_id, recorded_real_at=recorded_real_at).exists()


@transaction.atomic
def record_trade(
    trade: Trade,
    *,
    account_id: str,
    run_id: int | None,
    settings_hash: str,
    real_at: datetime,
    corrects_trade_id: str | None = None,
) -> str:
    """Writes a round trip and returns its trade id; one that is there already is left alone.

    The id follows from the correlation id, and from how many trades of it there are: a late execution can open the
    position again, a correction names the trade it replaces.
    """
    rows = list(models.Trade.objects.filter(account_id=account_id, correlation_id=trade.correlation_id).order_by("id"))
    for row in rows:
        if _load_trade(row) == trade and row.corrects_trade_id == corrects_trade_id:
            return row.trade_id
    trade_id = str(uuid5(TRADES, f"{account_id}|{trade.correlation_id}|{len(rows)}"))
    models.Trade.objects.create(
        trade_id=trade_id,
        account_id=account_id,
        run_id=run_id,
        settings_hash=settings_hash,
        recorded_real_at=real_at,
        corrects_trade_id=corrects_trade_id,
        duration_seconds=max(trade.duration_seconds, 0),  # the times of two executions may come from two clocks
        **{name: _plain(getattr(trade, name)) for name in TRADE_FIELDS},
    )
    return trade_id


# --- what the engine needs to go on -----------------------------------------------------------------------------------


@transaction.atomic
def unfinished_orders(account_id: str) -> list[Order]:
    """Every order that is not terminal here, oldest first."""
    open_states = [str(state) for state in OrderState if state not in TERMINAL]
    rows = models.OrderState.objects.filter(account_id=account_id, state__in=open_states)
    return [load_order(row) for row in rows.order_by("id")]


@transaction.atomic
def open_round_trips(account_id: str) -> list[tuple[Order, list[Filled]]]:
    """All orders, with their executions, of round trips that are not written down as trades yet.

    The executions come in the order in which they were recorded: an order appears again when another's came between.
    Orders without any come last. A round trip counts as open while shares are held or no trade names it.
    """
    held: dict[str, Decimal] = defaultdict(Decimal)
    rows = models.OrderState.objects.filter(account_id=account_id).exclude(qty_filled=0)
    for correlation_id, role, qty in rows.values_list("correlation_id", "role", "qty_filled"):
        held[correlation_id] += qty if role == Role.ENTRY else -qty
    traded = set(models.Trade.objects.filter(account_id=account_id).values_list("correlation_id", flat=True))
    open_ones = [correlation_id for correlation_id, qty in held.items() if qty or correlation_id not in traded]
    orders = {row.local_id: load_order(row) for row in _orders_of(account_id, open_ones)}
    events = models.OrderEvent.objects.filter(order_local__local_id__in=list(orders), qty_filled__isnull=False)
    runs = groupby(events.order_by("id"), key=lambda event: event.order_local_id)
    executed = [(orders[local_id], [_filled(event) for event in run]) for local_id, run in runs]
    return executed + [(order, []) for order in orders.values() if not order.qty_filled]


@transaction.atomic
def facts_of(account_id: str, local_ids: Iterable[str]) -> dict[str, list[Fact]]:
    """Everything that happened to these orders, by local id, in order."""
    found: dict[str, list[Fact]] = {local_id: [] for local_id in local_ids}
    rows = models.OrderEvent.objects.filter(account_id=account_id, order_local__local_id__in=list(found))
    for row in rows.order_by("order_local_id", "version"):
        found[row.order_local_id].append(_fact(row))
    return found


@transaction.atomic
def orders_by_correlation(account_id: str, correlation_id: str) -> list[Order]:
    """The orders that came of one signal, oldest first."""
    return [load_order(row) for row in _orders_of(account_id, [correlation_id])]


@transaction.atomic
def find_order(account_id: str, local_id: str) -> Order | None:
    """The order of that local id."""
    row = models.OrderState.objects.filter(account_id=account_id, local_id=local_id).first()
    return load_order(row) if row else None


@transaction.atomic
def shares_by_order(account_id: str, local_ids: Iterable[str]) -> dict[str, tuple[Decimal, bool]]:
    """For each of these ids that is an order of ours: the shares filled, and whether it has ended here."""
    ended = {str(state) for state in TERMINAL}
    found: dict[str, tuple[Decimal, bool]] = {}
    wanted = sorted(set(local_ids))
    for start in range(0, len(wanted), MOST_IDS_A_QUERY):
        ids = wanted[start : start + MOST_IDS_A_QUERY]
        rows = models.OrderState.objects.filter(account_id=account_id, local_id__in=ids)
        for local_id, qty, state in rows.values_list("local_id", "qty_filled", "state"):
            found[str(local_id)] = qty, state in ended
    return found


@transaction.atomic
def latest_execution_at(account_id: str) -> datetime | None:
    """Market time of the latest execution that the broker told; those found by comparing positions do not count."""
    rows = models.OrderEvent.objects.filter(account_id=account_id, filled_at__isnull=False)
    rows = rows.exclude(execution_id__startswith="found-")
    return rows.order_by("-filled_at").values_list("filled_at", flat=True).first()


@transaction.atomic
def find_execution(account_id: str, execution_ids: Sequence[str]) -> tuple[Order, Filled] | None:
    """The first of these executions that is written down, with its order."""
    rows = models.OrderEvent.objects.filter(account_id=account_id, execution_id__in=execution_ids)
    event = rows.select_related("order_local").order_by("id").first()
    return (load_order(event.order_local), _filled(event)) if event else None


@transaction.atomic
def find_order_by_broker_id(account_id: str, broker_id: str) -> Order | None:
    """The order that has, or ever had, that id at the broker."""
    event = models.OrderEvent.objects.filter(account_id=account_id, broker_id=broker_id).first()
    return find_order(account_id, event.order_local_id) if event else None


@transaction.atomic
def trades_of_session(account_id: str, *, since: datetime, until: datetime) -> list[Trade]:
    """Trades closed from `since` to before `until`, in the order in which they were worked off; corrected ones once."""
    rows = models.Trade.objects.filter(account_id=account_id, correction__isnull=True)
    return [_load_trade(row) for row in rows.filter(exit_at__gte=since, exit_at__lt=until).order_by("id")]


@transaction.atomic
def trades_of_run(run_id: int) -> list[Trade]:
    """Trades that a run of the engine closed, in the order in which they were worked off; corrected ones once."""
    return [_load_trade(row) for row in models.Trade.objects.filter(run_id=run_id, correction=None).order_by("id")]


@transaction.atomic
def orders_of_run(run_id: int) -> list[Order]:
    """Orders that a run of the engine made or changed, oldest first."""
    touched = models.OrderEvent.objects.filter(run_id=run_id).values("order_local_id")
    return [load_order(row) for row in models.OrderState.objects.filter(local_id__in=touched).order_by("id")]


@transaction.atomic
def entries_submitted(account_id: str, *, since: datetime) -> dict[str, int]:
    """How many entries were made for each symbol since a moment of market time."""
    rows = models.OrderState.objects.filter(account_id=account_id, role=str(Role.ENTRY), created_at__gte=since)
    return dict(Counter(rows.values_list("symbol", flat=True)))


@transaction.atomic
def rebuild(account_id: str) -> list[Order]:
    """Every order as its events alone make it, oldest first: what `order_state` must say."""
    return list(_folded(models.OrderEvent.objects.filter(account_id=account_id)).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How many orders and events a database holds; `unfaithful` are orders that their events do not give."""

    orders: int
    events: int
    unfaithful: tuple[str, ...]


def audit(*, using: str) -> Audit:
    """Holds every order of a database against the fold of its events."""
    with transaction.atomic(using=using):
        broken: set[str] = set()
        folded = _folded(models.OrderEvent.objects.using(using), broken=broken)
        written = {row.local_id: load_order(row) for row in models.OrderState.objects.using(using).iterator()}
        unfaithful = sorted(
            local_id
            for local_id in folded.keys() | written.keys()
            if local_id in broken or folded.get(local_id) != written.get(local_id)
        )
        events = models.OrderEvent.objects.using(using).count()
    return Audit(orders=len(written), events=events, unfaithful=tuple(unfaithful))


def _folded(events: QuerySet[models.OrderEvent], *, broken: set[str] | None = None) -> dict[str, Order]:
    """Orders as their events make them; `broken` takes those whose events make none, which is an error without it."""
    orders: dict[str, Order] = {}
    for event in events.order_by("id").iterator():
        try:
            fact = _fact(event)
            if isinstance(fact, Created):
                orders[fact.local_id] = decode(Order, event.detail["order"])
            else:
                orders[fact.local_id] = apply(orders[fact.local_id], fact)
        except (KeyError, TypeError, ValueError, IllegalTransition):
            if broken is None:
                raise
            broken.add(event.order_local_id)
    return orders


# --- what the pages show ----------------------------------------------------------------------------------------------


@transaction.atomic
def recent_orders(
    account_id: str,
    *,
    symbol: str = "",
    role: str = "",
    state: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    unfinished_only: bool = False,
    limit: int = 100,
    offset: int = 0,
) -> list[Order]:
    """Orders created from `since` to before `until`, newest first."""
    rows = models.OrderState.objects.filter(account_id=account_id)
    wanted = {"symbol": symbol, "role": role, "state": state, "created_at__gte": since, "created_at__lt": until}
    rows = rows.filter(**{name: value for name, value in wanted.items() if value})
    if unfinished_only:
        rows = rows.exclude(state__in=[str(state) for state in TERMINAL])
    return [load_order(row) for row in rows.order_by("-id")[offset : offset + limit]]


@transaction.atomic
def events_of(account_id: str, local_id: str) -> list[RecordedEvent]:
    """Everything that happened to one order, in order."""
    rows = models.OrderEvent.objects.filter(account_id=account_id, order_local__local_id=local_id).order_by("version")
    return [_recorded_event(row) for row in rows]


@transaction.atomic
def find_trade(account_id: str, trade_id: str) -> RecordedTrade | None:
    """The trade of that id, with its notes."""
    rows = models.Trade.objects.filter(account_id=account_id, trade_id=trade_id).prefetch_related("notes")
    row = rows.first()
    return _recorded_trade(row) if row else None


@transaction.atomic
def trades_by_correlation(account_id: str, correlation_id: str) -> list[RecordedTrade]:
    """The trades that came of one signal, oldest first; a corrected one only as its correction."""
    rows = models.Trade.objects.filter(account_id=account_id, correlation_id=correlation_id, correction__isnull=True)
    return [_recorded_trade(row) for row in rows.order_by("id").prefetch_related("notes")]


@transaction.atomic
def add_note(trade_id: str, note: str) -> None:
    """Keeps what somebody has to say about a trade."""
    models.TradeNote.objects.create(trade_id=trade_id, note=note)


@transaction.atomic
def events_between(account_id: str, *, since: datetime, until: datetime) -> list[tuple[Order, RecordedEvent]]:
    """All events of orders from `since` to before `until` of market time, each with its order, in order."""
    rows = models.OrderEvent.objects.filter(account_id=account_id, recorded_at__gte=since, recorded_at__lt=until)
    return [
        (load_order(row.order_local), _recorded_event(row)) for row in rows.select_related("order_local").order_by("id")
    ]


@transaction.atomic
def trades_around(account_id: str, *, since: datetime, until: datetime) -> list[Trade]:
    """Trades that were open at some time from `since` to before `until`, by their exit; corrected ones once."""
    rows = models.Trade.objects.filter(account_id=account_id, correction__isnull=True)
    return [_load_trade(row) for row in rows.filter(exit_at__gte=since, entry_at__lt=until).order_by("exit_at", "id")]


@transaction.atomic
def positions_at(account_id: str, moment: datetime) -> list[Position]:
    """What was held at a moment of market time: the fold of the executions before it, by symbol."""
    closed = models.Trade.objects.filter(account_id=account_id, exit_at__lt=moment).values("correlation_id")
    events = models.OrderEvent.objects.filter(
        account_id=account_id, qty_filled__isnull=False, recorded_at__lt=moment
    ).exclude(order_local__correlation_id__in=closed)
    portfolio = Portfolio(cash=ZERO)
    for event in events.select_related("order_local").order_by("id"):
        with suppress(ImpossibleFill):  # it was written down, and is in no position
            portfolio.apply(load_order(event.order_local), _filled(event))
    return [position for _, position in sorted(portfolio.positions.items())]


@transaction.atomic
def fills_of(account_id: str, local_id: str) -> list[Filled]:
    """The executions of one order, in order."""
    return [event.fact for event in events_of(account_id, local_id) if isinstance(event.fact, Filled)]


@transaction.atomic
def recent_trades(
    account_id: str,
    *,
    symbol: str = "",
    strategy: str = "",
    exit_reason: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = 100,
    offset: int = 0,
) -> list[RecordedTrade]:
    """Trades closed from `since` to before `until`, latest exit first; a corrected trade only as its correction."""
    rows = models.Trade.objects.filter(account_id=account_id, correction__isnull=True).prefetch_related("notes")
    wanted = {"symbol": symbol, "strategy": strategy, "exit_reason": exit_reason}
    wanted_times = {"exit_at__gte": since, "exit_at__lt": until}
    rows = rows.filter(**{name: value for name, value in {**wanted, **wanted_times}.items() if value})
    rows = rows.order_by("-exit_at", "-id")
    return [_recorded_trade(row) for row in rows[offset : None if limit is None else offset + limit]]


# --- rows and values --------------------------------------------------------------------------------------------------


def load_order(row: models.OrderState) -> Order:
    """The order of a row."""
    values = {name: getattr(row, name) for name in ORDER_FIELDS}
    values |= {
        "side": Side(row.side),
        "role": Role(row.role),
        "order_type": OrderType(row.order_type),
        "time_in_force": TimeInForce(row.time_in_force),
        "state": OrderState(row.state),
    }
    return Order(**values)


def _load_trade(row: models.Trade) -> Trade:
    return Trade(**{name: getattr(row, name) for name in TRADE_FIELDS} | {"side": Side(row.side)})


def _recorded_trade(row: models.Trade) -> RecordedTrade:
    return RecordedTrade(
        trade_id=row.trade_id,
        trade=_load_trade(row),
        run_id=row.run_id,
        settings_hash=row.settings_hash,
        corrects_trade_id=row.corrects_trade_id,
        recorded_real_at=row.recorded_real_at,
        notes=tuple(note.note for note in row.notes.all()),
    )


def _recorded_event(row: models.OrderEvent) -> RecordedEvent:
    return RecordedEvent(
        id=row.pk,
        event_type=row.event_type,
        old_state=row.old_state,
        new_state=row.new_state,
        broker_id=row.broker_id,
        stop_price=row.stop_price,
        fact=_fact(row),
        recorded_real_at=row.recorded_real_at,
    )


def _orders_of(account_id: str, correlation_ids: Sequence[str]) -> Iterable[models.OrderState]:
    return models.OrderState.objects.filter(account_id=account_id, correlation_id__in=correlation_ids).order_by("id")


def _fact(event: models.OrderEvent) -> Fact:
    return decode_fact({name: value for name, value in event.detail.items() if name != "order"})


def _filled(event: models.OrderEvent) -> Filled:
    fact = _fact(event)
    if not isinstance(fact, Filled):
        raise TypeError(f"event {event.pk} has a quantity, but is no execution")
    return fact


def _columns(order: Order) -> dict[str, Any]:
    columns = {name: _plain(getattr(order, name)) for name in ORDER_FIELDS}
    return {**columns, "client_order_id": order.client_order_id, "avg_fill_price": order.avg_fill_price}


def _plain(value: Any) -> Any:
    """Words of an enumeration as the text that they are."""
    return str(value) if isinstance(value, str) else value


def _event_columns(order: Order, fact: Fact, before: Order | None) -> dict[str, Any]:
    detail = encode_fact(fact)
    if isinstance(fact, Created):
        detail["order"] = encode(order)
    execution = fact if isinstance(fact, Filled) else None
    return {
        "recorded_at": fact.at,
        "order_local_id": order.local_id,
        "event_type": _event_type(order, fact),
        "old_state": str(before.state) if before else None,
        "new_state": str(order.state),
        "version": order.version,
        "broker_id": order.broker_id,
        "client_order_id": order.client_order_id,
        "stop_price": order.stop_price,
        "detail": detail,
        "qty_filled": execution and execution.qty,
        "fill_price": execution and execution.price,
        "filled_at": execution and execution.filled_at,
        "commission": execution and execution.commission,
        "execution_id": execution and execution.execution_id,
    }


def _event_type(order: Order, fact: Fact) -> str:
    """Executions are always named as such, also where reconciliation found them; other forced facts are `forced`."""
    if isinstance(fact, Filled):
        return "fill" if order.state is OrderState.FILLED else "partial_fill"
    return "forced" if fact.forced else fact.event_type
