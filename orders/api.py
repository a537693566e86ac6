"""Orders, their events and trades as the API writes them: exact numbers and UTC times as text."""

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

from ninja import Schema
from pydantic import PlainSerializer

from orders.encoding import decimal_text, encode_fact, timestamp
from orders.store import RecordedEvent, RecordedTrade

AVERAGE_PLACES = Decimal("0.000001")


def average_text(value: Decimal) -> str:
    """A quotient as text, rounded half-even to 6 places."""
    return decimal_text(value.quantize(AVERAGE_PLACES, rounding=ROUND_HALF_EVEN))


Exact = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str)]
Average = Annotated[Decimal, PlainSerializer(average_text, return_type=str)]
Moment = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


class OrderOut(Schema):
    """An order as it is now. `side` is the position's; `exit_reason` is empty for entries."""

    local_id: str
    client_order_id: str
    broker_id: str | None
    correlation_id: str
    parent_id: str | None
    symbol: str
    side: str
    role: str
    buys: bool
    order_type: str
    time_in_force: str
    qty_requested: Exact
    qty_filled: Exact
    limit_price: Exact | None
    stop_price: Exact | None
    avg_fill_price: Average | None
    state: str
    strategy: str
    exit_reason: str
    submit_attempts: int
    last_error: str
    expires_at: Moment | None
    version: int
    created_at: Moment
    updated_at: Moment


class EventOut(Schema):
    """One thing that happened to an order; `fact` has its particulars."""

    id: int
    event_type: str
    old_state: str | None
    new_state: str
    broker_id: str | None
    recorded_at: Moment
    recorded_real_at: Moment
    fact: dict[str, Any]

    @classmethod
    def of(cls, event: RecordedEvent) -> "EventOut":
        """The event as the API writes it."""
        return cls(
            id=event.id,
            event_type=event.event_type,
            old_state=event.old_state,
            new_state=event.new_state,
            broker_id=event.broker_id,
            recorded_at=event.fact.at,
            recorded_real_at=event.recorded_real_at,
            fact=encode_fact(event.fact),
        )


class TradeOut(Schema):
    """A round trip. Prices are volume-weighted, `pnl` is dollars after commission, `pnl_pct` percent of the cost."""

    trade_id: str
    correlation_id: str
    symbol: str
    side: str
    qty: Exact
    entry_price: Average
    exit_price: Average
    entry_at: Moment
    exit_at: Moment
    pnl: Exact
    pnl_pct: float
    duration_seconds: int
    commission: Exact
    strategy: str
    exit_reason: str
    initial_stop_price: Exact | None
    planned_risk: Average | None
    estimated: bool
    corrects_trade_id: str | None
    notes: list[str]

    @classmethod
    def of(cls, recorded: RecordedTrade) -> "TradeOut":
        """The trade as the API writes it."""
        trade = recorded.trade
        return cls(
            trade_id=recorded.trade_id,
            correlation_id=trade.correlation_id,
            symbol=trade.symbol,
            side=trade.side,
            qty=trade.qty,
            entry_price=trade.entry_price,
            exit_price=trade.exit_price,
            entry_at=trade.entry_at,
            exit_at=trade.exit_at,
            pnl=trade.pnl,
            pnl_pct=float(trade.pnl_pct),
            duration_seconds=trade.duration_seconds,
            commission=trade.commission,
            strategy=trade.strategy,
            exit_reason=trade.exit_reason,
            initial_stop_price=trade.initial_stop_price,
            planned_risk=trade.planned_risk,
            estimated=trade.estimated,
            corrects_trade_id=recorded.corrects_trade_id,
            notes=list(recorded.notes),
        )
