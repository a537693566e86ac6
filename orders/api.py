"""Orders, their events and trades as the API writes them: exact numbers and UTC times as text."""

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any, TypeVar

from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Schema
from pydantic import ConfigDict, PlainSerializer

from orders.encoding import decimal_text, encode_fact, timestamp
from orders.store import RecordedEvent, RecordedTrade

AVERAGE_PLACES = Decimal("0.000001")


def average_text(value: Decimal) -> str:
    """A quotient as text, rounded half-even to 6 places."""
    return decimal_text(value.quantize(AVERAGE_PLACES, rounding=ROUND_HALF_EVEN))


Row = TypeVar("Row")
LARGEST_OFFSET = 1_000_000_000
Offset = Annotated[int, Query(ge=0, le=LARGEST_OFFSET, description="Rows to skip.")]
RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Exact = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str)]
Average = Annotated[Decimal, PlainSerializer(average_text, return_type=str)]
Moment = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


def one_page(
    found: Sequence[Row], request: HttpRequest, response: HttpResponse, *, limit: int, offset: int
) -> list[Row]:
    """The rows of a page, of which one more was looked for; the header Link (RFC 8288) names those beside it."""
    beside = {"next": offset + limit} if len(found) > limit else {}
    if offset:
        beside["prev"] = max(offset - limit, 0)
    links = []
    for relation, start in beside.items():
        query = request.GET.copy()
        query["limit"], query["offset"] = str(limit), str(start)
        links.append(f'<{request.path}?{query.urlencode()}>; rel="{relation}"')
    if links:
        response["Link"] = ", ".join(links)
    return list(found[:limit])


class OrderOut(Schema):
    """An order as it is now. `side` is the position's; `exit_reason` is empty for entries."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "local_id": "0640d236-539b-5e9d-a921-021034ba86ae",
                "client_order_id": "0640d236-539b-5e9d-a921-021034ba86ae",
                "broker_id": "904837e3-3b76-47ec-b432-046db621571b",
                "correlation_id": "bbfb2216-8d99-565f-adf6-e4d972a3fa38", "parent_id": None, "symbol": "AAPL",
                "side": "long", "role": "entry", "buys": True, "order_type": "stop", "time_in_force": "day",
                "qty_requested": "12", "qty_filled": "12", "limit_price": None, "stop_price": "100",
                "avg_fill_price": "100.01", "state": "filled", "strategy": "velez", "exit_reason": "",
                "submit_attempts": 1, "last_error": "", "expires_at": "2026-03-02T15:06:00.000000Z", "version": 4,
                "created_at": "2026-03-02T15:04:00.000000Z", "updated_at": "2026-03-02T15:04:31.000000Z",
            }
        }
    )  # fmt: skip

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

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "trade_id": "7d3fb5a3-4d3e-5b8f-9c2e-1f0a9c1f5c3e",
                "correlation_id": "bbfb2216-8d99-565f-adf6-e4d972a3fa38", "symbol": "AAPL", "side": "long",
                "qty": "12", "entry_price": "100.01", "exit_price": "101.49", "pnl": "17.76", "pnl_pct": 1.479852,
                "entry_at": "2026-03-02T15:04:31.000000Z", "exit_at": "2026-03-02T15:40:02.000000Z",
                "duration_seconds": 2131, "commission": "0", "strategy": "velez", "exit_reason": "trailing_stop",
                "initial_stop_price": "99.5", "planned_risk": "6.12", "estimated": False,
                "corrects_trade_id": None, "notes": [],
            }
        }
    )  # fmt: skip

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
