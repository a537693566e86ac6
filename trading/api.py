"""`/api/orders`, `/api/trades`, and what the running engine can be asked to do."""

import csv
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import BaseModel, ConfigDict, Field

from orders import store as order_store
from orders.api import EventOut, Exact, Moment, Offset, OrderOut, RowId, TradeOut, one_page
from risk.api import IdempotencyKey, once, operator
from trading import store
from trading.store import NEW_YORK

router = Router()

LARGEST_PAGE = 1000

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most rows of a page.")]
Day = Annotated[date, Query(ge=date(1970, 1, 1), le=date(2200, 1, 1))]


class Asked(Schema):
    """A request that waits for the engine; `done_at`, `result` and `error` tell how it ended. Wall-clock times."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 12, "kind": "halt", "requested_by": "operator", "created_at": "2026-03-02T15:04:05.000000Z",
                "expires_at": "2026-03-02T15:05:05.000000Z", "done_at": None, "result": "", "error": "",
            }
        }
    )  # fmt: skip

    id: int
    kind: str
    requested_by: str
    created_at: Moment
    expires_at: Moment
    done_at: Moment | None
    result: str
    error: str


class ShutdownIn(BaseModel):
    """`flatten` closes all positions first; without it they stay, with their stops at the broker."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"flatten": True}})

    flatten: bool = False


class StopIn(BaseModel):
    """Where the stop should be, in dollars."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"stop_price": "99.87"}})

    stop_price: Decimal = Field(gt=0, max_digits=12, decimal_places=4)


# --- the ledger -------------------------------------------------------------------------------------------------------


def current_account() -> str:
    """The account of the latest run: the one that pages and API show. Empty before the first run."""
    run = store.last_run()
    return run.account_id if run else ""


@router.get("orders", response=list[OrderOut], tags=["ledger"])
def orders(
    request: HttpRequest,
    response: HttpResponse,
    symbol: str = "",
    unfinished_only: bool = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Any:
    """Orders, newest first. The header Link names the pages beside this one."""
    found = order_store.recent_orders(
        current_account(), symbol=symbol.upper(), unfinished_only=unfinished_only, limit=limit + 1, offset=offset
    )
    return one_page(found, request, response, limit=limit, offset=offset)


@router.get("orders/{local_id}/events", response=list[EventOut], tags=["ledger"])
def order_events(request: HttpRequest, local_id: UUID) -> Any:
    """Everything that happened to one order, in order."""
    account_id = current_account()
    if order_store.find_order(account_id, str(local_id)) is None:
        raise HttpError(404, f"There is no order {local_id}.")
    return [EventOut.of(event) for event in order_store.events_of(account_id, str(local_id))]


@router.get(
    "trades",
    response=list[TradeOut],
    tags=["ledger"],
    openapi_extra={"responses": {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}},
)
def trades(
    request: HttpRequest,
    response: HttpResponse,
    symbol: str = "",
    strategy: str = "",
    exit_reason: str = "",
    start_date: Day | None = None,
    end_date: Day | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
    format: Literal["json", "csv"] = "json",
) -> Any:
    """Completed round trips, latest exit first. Dates are New York days of the exit, both included; CSV has all."""
    recorded = order_store.recent_trades(
        current_account(),
        symbol=symbol.upper(),
        strategy=strategy,
        exit_reason=exit_reason,
        since=start_of(start_date) if start_date else None,
        until=start_of(end_date + timedelta(days=1)) if end_date else None,
        limit=None if format == "csv" else limit + 1,
        offset=0 if format == "csv" else offset,
    )
    rows = [TradeOut.of(each) for each in recorded]
    if format == "csv":
        return trades_as_csv(rows)
    return one_page(rows, request, response, limit=limit, offset=offset)


def trades_as_csv(rows: list[TradeOut]) -> HttpResponse:
    """A CSV file of trades with the columns of the API."""
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="trades.csv"'
    writer = csv.DictWriter(response, fieldnames=list(TradeOut.model_fields))
    writer.writeheader()
    for row in rows:
        values = row.model_dump()
        writer.writerow(values | {"notes": " | ".join(_as_cell(note) for note in values["notes"])})
    return response


def start_of(day: date) -> datetime:
    """The New York midnight with which a day begins."""
    return datetime.combine(day, time(), tzinfo=NEW_YORK)


def _as_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


class CoverOut(Schema):
    """Seconds for which closed positions were without full stop cover; dollars are the most that was naked at once."""

    positions: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float
    longest_seconds: float
    most_dollars: Exact


@router.get("cover", response=CoverOut, tags=["ledger"])
def cover(request: HttpRequest) -> Any:
    """How well the account's closed positions were protected."""
    return store.cover_figures(current_account())


# --- the engine -------------------------------------------------------------------------------------------------------


@router.post("shutdown", response={202: Asked, 409: None}, tags=["engine"])
def shutdown(request: HttpRequest, how: ShutdownIn | None = None, key: IdempotencyKey = None) -> Any:
    """Stop the engine gracefully."""
    return _ask(request, key, "shutdown", flatten=how.flatten if how else False)


@router.post("halt", response={202: Asked, 409: None}, tags=["engine"])
def halt(request: HttpRequest, key: IdempotencyKey = None) -> Any:
    """No new entries, working ones are cancelled; positions keep their stops. Holds until `resume`, over restarts."""
    return _ask(request, key, "halt")


@router.post("resume", response={202: Asked, 409: None}, tags=["engine"])
def resume(request: HttpRequest, key: IdempotencyKey = None) -> Any:
    """Allow new entries again."""
    return _ask(request, key, "resume")


@router.post("flatten", response={202: Asked, 409: None}, tags=["engine"])
def flatten(request: HttpRequest, key: IdempotencyKey = None) -> Any:
    """Halt, cancel all orders, close every position at market; done when the broker shows that, the result is proof."""
    return _ask(request, key, "flatten")


@router.post("positions/{symbol}/close", response={202: Asked, 409: None}, tags=["engine"])
def close_position(request: HttpRequest, symbol: str, key: IdempotencyKey = None) -> Any:
    """Cancel the symbol's working entry and close its position at market."""
    return _ask(request, key, "close", symbol=symbol.upper())


@router.post("positions/{symbol}/move-stop", response={202: Asked, 409: None}, tags=["engine"])
def move_stop(request: HttpRequest, symbol: str, to: StopIn, key: IdempotencyKey = None) -> Any:
    """Move the protective stop of a position towards the price; the engine refuses any other move."""
    return _ask(request, key, "move_stop", symbol=symbol.upper(), stop_price=to.stop_price)


@router.get("requests/{request_id}", response=Asked, tags=["engine"])
def request_state(request: HttpRequest, request_id: RowId) -> Any:
    """What became of something asked of the engine."""
    try:
        return store.find_request(request_id)
    except LookupError:
        raise HttpError(404, f"There is no request {request_id}.") from None


def _ask(request: HttpRequest, key: str | None, kind: str, **payload: Any) -> Status[store.Request]:
    by = operator(request)
    try:
        request_id = once(request, by, key, lambda: store.ask(kind, payload, by=by).id)
        return Status(202, store.find_request(request_id))
    except store.NoLiveEngine:
        raise HttpError(409, "No engine is running, so nothing was done.") from None
