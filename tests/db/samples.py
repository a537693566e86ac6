"""Orders, facts and trades to write into a ledger."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from orders import store
from orders.events import Accepted, Canceled, Created, Fact, Filled, Submitted
from orders.lifecycle import Order, OrderType, Role, Side, TimeInForce, apply
from orders.portfolio import Trade

ACCOUNT = "simulator:TEST"
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
REAL = datetime(2026, 3, 7, 9, 0, 0, 123456, tzinfo=UTC)


def uuid_of(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid5(NAMESPACE_OID, name))


def at(minutes: float) -> datetime:
    """Market time, minutes after the open."""
    return OPEN + timedelta(minutes=minutes)


def order(name: str = "entry", *, signal: str = "signal", **changes: Any) -> Order:
    """A long buy-stop entry for 10 AAPL at 100.00, unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "local_id": uuid_of(name),
        "correlation_id": uuid_of(signal),
        "symbol": "AAPL",
        "side": Side.LONG,
        "role": Role.ENTRY,
        "order_type": OrderType.STOP,
        "qty_requested": Decimal(10),
        "strategy": "velez",
        "created_at": at(0),
        "updated_at": at(0),
        "stop_price": Decimal("100.00"),
        "planned_stop_price": Decimal("99.50"),
        "expires_at": at(2),
    }
    return Order(**{**values, **changes})


def stop(name: str = "stop", *, signal: str = "signal", **changes: Any) -> Order:
    """The protective stop of that entry, at 99.50."""
    values: dict[str, Any] = {
        "role": Role.STOP_LOSS,
        "time_in_force": TimeInForce.GTC,
        "stop_price": Decimal("99.50"),
        "planned_stop_price": None,
        "expires_at": None,
        "parent_id": uuid_of("entry"),
    }
    return order(name, signal=signal, **{**values, **changes})


def fill(of: Order, qty: str, price: str, *, minute: float = 1, execution: str = "", **changes: Any) -> Filled:
    """An execution of `qty` shares at `price`."""
    return Filled(
        local_id=of.local_id,
        at=at(minute),
        qty=Decimal(qty),
        price=Decimal(price),
        filled_at=at(minute),
        execution_id=execution or f"{of.local_id}|{minute}|{qty}",
        **changes,
    )


def record_new(new: Order, *, account_id: str = ACCOUNT) -> Order:
    """Writes an order down as created."""
    created = Created(local_id=new.local_id, at=new.created_at)
    store.record_order(new, created, None, account_id=account_id, run_id=1, real_at=REAL)
    return new


def record(before: Order, fact: Fact, *, account_id: str = ACCOUNT) -> Order:
    """Writes down what a fact makes of an order."""
    after = apply(before, fact)
    store.record_order(after, fact, before, account_id=account_id, run_id=1, real_at=REAL)
    return after


def record_working(new: Order, *, account_id: str = ACCOUNT) -> Order:
    """Writes an order down until the broker has accepted it."""
    record_new(new, account_id=account_id)
    submitted = record(new, Submitted(local_id=new.local_id, at=at(0)), account_id=account_id)
    accepted = Accepted(local_id=new.local_id, at=at(0), broker_id=f"broker-{new.local_id[:8]}")
    return record(submitted, accepted, account_id=account_id)


def record_canceled(working: Order) -> Order:
    """Writes down that an order was cancelled."""
    return record(working, Canceled(local_id=working.local_id, at=at(3)))


def trade(signal: str = "signal", **changes: Any) -> Trade:
    """A round trip of 10 AAPL from 100.01 to 99.49, unless `changes` say otherwise."""
    loss = Trade(
        correlation_id=uuid_of(signal),
        symbol="AAPL",
        side=Side.LONG,
        qty=Decimal(10),
        entry_price=Decimal("100.01"),
        exit_price=Decimal("99.49"),
        entry_at=at(1),
        exit_at=at(5),
        pnl=Decimal("-5.20"),
        pnl_pct=Decimal("-0.5199480051994800519948005199"),
        commission=Decimal(0),
        strategy="velez",
        exit_reason="stop_loss",
        initial_stop_price=Decimal("99.50"),
        planned_risk=Decimal("5.10"),
    )
    return replace(loss, **changes)


def record_trade(done: Trade, *, account_id: str = ACCOUNT, corrects_trade_id: str | None = None) -> str:
    """Writes a round trip down."""
    return store.record_trade(
        done,
        account_id=account_id,
        run_id=1,
        settings_hash="abc",
        real_at=REAL,
        corrects_trade_id=corrects_trade_id,
    )
