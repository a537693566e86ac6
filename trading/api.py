"""`/api/orders`, `/api/trades`, and what the running engine can be asked to do."""

import csv
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError

from orders import store as order_store
from orders.api import EventOut, Exact, Moment, OrderOut, TradeOut
from risk.api import operator
from trading import store
from trading.store import NEW_YORK

router = Router()

LARGEST_PAGE = 1000


class Asked(Schema):
    """A request that waits for the engine; `done_at` and `error` tell how it ended. Wall-clock times."""

    id: int
    kind: str
    requested_by: str
    created_at: Moment
    expires_at: Moment
    done_at: Moment | None
    error: str


class ShutdownIn(Schema):
    """`flatten` closes all positions first; without it they stay, with their stops at the broker."""

    flatten: bool = False


class StopIn(Schema):
    """Where the stop should be, in dollars."""

    stop_price: Decimal = Field(gt=0, max_digits=12, decimal_places=4)


# --- the ledger -------------------------------------------------------------------------------------------------------


def current_account() -> str:
    """The account of the latest run: the one that pages and API show. Empty before the first run."""
    run = store.last_run()
    return run.account_id if run else ""


@router.get("orders", response=list[OrderOut], tags=["ledger"])
def orders(
    request: HttpRequest, symbol: str = "", unfinished_only: bool = False, limit: int = 100, offset: int = 0
) -> Any:
    """Orders, newest first."""
    _check_page(limit, offset)
    return order_store.recent_orders(
        current_account(), symbol=symbol.upper(), unfinished_only=unfinished_only, limit=limit, offset=offset
    )


@router.get("orders/{uuid:local_id}/events", response=list[EventOut], tags=["ledger"])
def order_events(request: HttpRequest, local_id: UUID) -> Any:
    """Everything that happened to one order, in order."""
    account_id = current_account()
    if order_store.find_order(account_id, str(local_id)) is None:
        raise HttpError(404, f"There is no order {local_id}.")
    return [EventOut.of(event) for event in order_store.events_of(account_id, str(local_id))]


@router.get("trades", response=list[TradeOut], tags=["ledger"])
def trades(
    request: HttpRequest,
    symbol: str = "",
    start_date: date | None = None,
    end_date: date | None = None,
    limit: int = 100,
    offset: int = 0,
    format: Literal["json", "csv"] = "json",
) -> Any:
    """Completed round trips, latest exit first. Dates are New York days of the exit, both included; CSV has all."""
    _check_page(limit, offset)
    recorded = order_store.recent_trades(
        current_account(),
        symbol=symbol.upper(),
        since=start_of(start_date) if start_date else None,
        until=start_of(end_date + timedelta(days=1)) if end_date else None,
        limit=None if format == "csv" else limit,
        offset=0 if format == "csv" else offset,
    )
    rows = [TradeOut.of(each) for each in recorded]
    return trades_as_csv(rows) if format == "csv" else rows


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


def _check_page(limit: int, offset: int) -> None:
    if not (1 <= limit <= LARGEST_PAGE and offset >= 0):
        raise HttpError(400, f"limit must be from 1 to {LARGEST_PAGE}, offset 0 or more.")


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


@router.post("shutdown", response={202: Asked}, tags=["engine"])
def shutdown(request: HttpRequest, how: ShutdownIn | None = None) -> Any:
    """Stop the engine gracefully."""
    return _ask(request, "shutdown", flatten=how.flatten if how else False)


@router.post("halt", response={202: Asked}, tags=["engine"])
def halt(request: HttpRequest) -> Any:
    """No new entries, working ones are cancelled; positions keep their stops. Holds until `resume`, over restarts."""
    return _ask(request, "halt")


@router.post("resume", response={202: Asked}, tags=["engine"])
def resume(request: HttpRequest) -> Any:
    """Allow new entries again."""
    return _ask(request, "resume")


@router.post("flatten", response={202: Asked}, tags=["engine"])
def flatten(request: HttpRequest) -> Any:
    """Halt, cancel working entries, and close every position at market."""
    return _ask(request, "flatten")


@router.post("positions/{symbol}/close", response={202: Asked}, tags=["engine"])
def close_position(request: HttpRequest, symbol: str) -> Any:
    """Cancel the symbol's working entry and close its position at market."""
    return _ask(request, "close", symbol=symbol.upper())


@router.post("positions/{symbol}/move-stop", response={202: Asked}, tags=["engine"])
def move_stop(request: HttpRequest, symbol: str, to: StopIn) -> Any:
    """Move the protective stop of a position towards the price; the engine refuses any other move."""
    return _ask(request, "move_stop", symbol=symbol.upper(), stop_price=to.stop_price)


@router.get("requests/{int:request_id}", response=Asked, tags=["engine"])
def request_state(request: HttpRequest, request_id: int) -> Any:
    """What became of something asked of the engine."""
    try:
        return store.find_request(request_id)
    except LookupError:
        raise HttpError(404, f"There is no request {request_id}.") from None


def _ask(request: HttpRequest, kind: str, **payload: Any) -> Status[store.Request]:
    by = operator(request)
    try:
        return Status(202, store.ask(kind, payload, by=by))
    except store.NoLiveEngine:
        raise HttpError(409, "No engine is running, so nothing was done.") from None
