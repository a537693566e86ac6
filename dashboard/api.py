"""`/api/dashboard`, the chart's candles, and what monitoring reads."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from ninja.errors import HttpError
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from redis import Redis
from redis.exceptions import RedisError

from dashboard import store
from orders import guards
from orders.encoding import decimal_text
from risk.api import operator
from trading import store as trading_store
from trading.live.broadcast import ENGINE_CHANNEL, LAYER_ERRORS

router = Router()


class CheckOut(Schema):
    """What a check found, and what to do if it is not passed."""

    step: str
    is_done: bool
    detail: str


def _answers(shape: str, *, media_type: str = "application/json") -> dict[str, Any]:
    """The description of an answer that is made elsewhere, or is text."""
    schema = {"$ref": f"#/components/schemas/{shape}"} if shape else {"type": "string"}
    return {"responses": {200: {"content": {media_type: {"schema": schema}}}}}


ENGINE_ANSWERS_SECONDS = 1.0
MOST_CANDLES = 2000

WEB_PROCESS = CollectorRegistry()
ProcessCollector(namespace="algotrader_web", registry=WEB_PROCESS)

Limit = Annotated[int, Query(ge=1, le=MOST_CANDLES)]


@router.get("dashboard", tags=["dashboard"], openapi_extra=_answers("Snapshot"))
def dashboard(request: HttpRequest) -> dict[str, Any]:
    """The state that the WebSocket's `snapshot` carries; from the database when no engine answers."""
    return current_snapshot()


def current_snapshot() -> dict[str, Any]:
    """The running engine's own state, or what the database knows when there is none or it does not answer."""
    if trading_store.live_lease() is not None:
        answer = async_to_sync(_ask_engine)()
        if answer is not None:
            return answer
    return store.snapshot()


async def _ask_engine() -> dict[str, Any] | None:
    layer = get_channel_layer()
    try:
        async with asyncio.timeout(ENGINE_ANSWERS_SECONDS):
            reply = await layer.new_channel()
            await layer.send(ENGINE_CHANNEL, {"type": "snapshot.request", "reply": reply})
            answer = await layer.receive(reply)
        with suppress(TimeoutError):  # Redis's layer forgets a channel when its reader is cancelled, not before
            async with asyncio.timeout(0):
                await layer.receive(reply)
    except (TimeoutError, *LAYER_ERRORS):
        return None
    (text,) = answer["texts"]
    data: dict[str, Any] = json.loads(text)["data"]
    return data


@router.get("candles", tags=["dashboard"], openapi_extra=_answers("ChartShape"))
def candles(request: HttpRequest, symbol: str, limit: Limit = 400) -> dict[str, Any]:
    """A symbol's latest candles with averages, entries and exits among them, and the open position's stop."""
    return store.chart(symbol.upper(), limit=limit)


@router.post("paper-check/{step}", tags=["setup"], response=CheckOut)
def paper_check(request: HttpRequest, step: str) -> Any:
    """Try one step of the way to Alpaca's paper account: keys, clock, account, feed, stream or order."""
    operator(request)
    from trading.live import paper_check as checks  # brings the broker's library, which no page needs

    if step not in checks.STEPS:
        raise HttpError(404, f"There is no check {step}; there are: {', '.join(checks.STEPS)}.")
    outcome = async_to_sync(checks.run)(step, store.effective_config())
    return {"step": step, "is_done": outcome.is_done, "detail": outcome.detail}


class Health(Schema):
    """`ok` or `ready`."""

    status: str


@router.get("health", auth=None, tags=["monitoring"], response=Health)
def health(request: HttpRequest) -> dict[str, str]:
    """The web process answers; nothing is said about the engine or the market."""
    return {"status": "ok"}


@router.get("health/ready", auth=None, tags=["monitoring"], response={200: Health, 503: None})
def ready(request: HttpRequest) -> Any:
    """Whether this web process can do its work: the database with its triggers, and Redis where it is used."""
    failing = [name for name, check in (("database", _database_answers), ("redis", _redis_answers)) if not check()]
    if failing:
        raise HttpError(503, f"Not ready: {' and '.join(failing)}.")
    return {"status": "ready"}


def _database_answers() -> bool:
    try:
        guards.require()
    except (DatabaseError, guards.UnguardedLedger):
        return False
    return True


def _redis_answers() -> bool:
    if not settings.REDIS_URL:
        return True
    try:
        with Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as redis:
            return bool(redis.ping())
    except RedisError:
        return False


@router.get("metrics", tags=["monitoring"], openapi_extra=_answers("", media_type="text/plain"))
def metrics(request: HttpRequest) -> HttpResponse:
    """Figures of ledger, engine and this web process in Prometheus' text format."""
    lines = "".join(f"{line}\n" for line in metric_lines(store.figures()))
    text = lines + trading_store.engine_meters() + generate_latest(WEB_PROCESS).decode()
    return HttpResponse(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def metric_lines(figures: store.Figures) -> Iterator[str]:
    """The lines of Prometheus' text format; what is unknown is left out."""
    yield from _gauge("algotrader_engine_up", "Whether an engine holds a live lease.", int(figures.engine_is_running))
    if figures.heartbeat_age_seconds is not None:
        age = round(figures.heartbeat_age_seconds, 3)
        yield from _gauge("algotrader_engine_heartbeat_age_seconds", "Seconds since the engine's last heartbeat.", age)
    yield from _described("algotrader_orders", "Orders of the current account by state.")
    for state, count in figures.orders_by_state.items():
        yield f'algotrader_orders{{state="{state}"}} {count}'
    yield from _gauge("algotrader_trades", "Completed round trips of the current account.", figures.trades)
    yield from _gauge(
        "algotrader_realized_pnl_dollars", "Profit of all completed round trips.", decimal_text(figures.realized_pnl)
    )
    yield from _gauge("algotrader_open_positions", "Open positions.", figures.open_positions)
    yield from _gauge(
        "algotrader_unprotected_positions", "Open positions without a working stop.", figures.unprotected_positions
    )
    cover = figures.cover
    yield from _described("algotrader_naked_seconds", "Seconds that closed positions were without full stop cover.")
    for quantile, seconds in (("0.5", cover.p50_seconds), ("0.99", cover.p99_seconds), ("1", cover.max_seconds)):
        yield f'algotrader_naked_seconds{{quantile="{quantile}"}} {seconds}'
    yield from _gauge(
        "algotrader_naked_dollars", "The most dollars that were naked at once.", decimal_text(cover.most_dollars)
    )
    yield from _gauge("algotrader_worker_queue_depth", "Background tasks that wait.", figures.waiting_tasks)
    yield from _gauge("algotrader_halted", "Whether the operator has halted trading.", int(figures.is_halted))
    yield from _described("algotrader_breaker_tripped", "Circuit breakers that have tripped in the latest session.")
    for breaker in figures.breakers:
        yield f'algotrader_breaker_tripped{{breaker="{breaker}"}} 1'


def _gauge(name: str, help_text: str, value: float | str) -> Iterator[str]:
    yield from _described(name, help_text)
    yield f"{name} {value}"


def _described(name: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} gauge"
