"""What pages, chart and metrics read of the database; and the page's state while no engine tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django_q.models import OrmQ

import trading.strategies  # noqa: F401  registers them
from orders import store as order_store
from orders.fields import utc_now
from orders.lifecycle import WORKING, Order, Role, Side
from orders.models import OrderEvent, OrderState, Trade
from orders.portfolio import Position, fold
from risk import store as risk_store
from risk.config import Config, ConfigError
from risk.models import TradingSession
from trading import store as trading_store
from trading.live import recording
from trading.live.broadcast import account_mode, activity_line, number, timestamp
from trading.models import EngineLease
from trading.settings import strategy_parameters

ZERO = Decimal(0)
SHOWN_ACTIVITIES = 50
DISPLAY_DECIMALS = 6


# --- the dashboard without an engine ----------------------------------------------------------------------------------


@transaction.atomic
def snapshot() -> dict[str, Any]:
    """What the dashboard shows when no engine answers: the ledger's state, without live prices.

    `connection.engine` says why: `off`, or `silent` when one runs that does not answer.
    """
    run = trading_store.last_run()
    account_id = run.account_id if run else ""
    session = TradingSession.objects.filter(account_id=account_id).order_by("-date").first()
    last_candles = _last_candles(run)
    positions = [
        _position(position, stop_price, last_candles.get(position.symbol))
        for position, stop_price in open_positions(account_id)
    ]
    pnl = _pnl(account_id, session, positions)
    return {
        "account": {
            "equity": pnl["total_equity"],
            "buying_power": None,
            "cash": None,
            "account_id": account_id,
        },
        "positions": positions,
        "pnl": pnl,
        "strategies": _strategies(last_candles),
        "recent_activity": _activities(account_id),
        "connection": _connection(session, last_candles),
    }


def effective_config() -> Config:
    """The settings in effect; without the settings page's where one of these no longer fits."""
    base: Config = settings.ALGO
    try:
        return risk_store.effective(base)
    except ConfigError:
        return base


def shown_mode() -> str:
    """Which market the pages' banner names: the latest run's, before the first one the one that is set."""
    run = trading_store.last_run()
    if run:
        return run.account_mode
    config = effective_config()
    return account_mode(provider=config["broker.provider"], paper=config["broker.paper"])


@transaction.atomic
def open_positions(account_id: str) -> list[tuple[Position, Decimal | None]]:
    """Open positions by the fills in the ledger, each with the price of its working stop."""
    round_trips = order_store.open_round_trips(account_id)
    fills = [(order, fill) for order, executions in round_trips for fill in executions]
    portfolio, _ = fold(fills, cash=ZERO)
    stops = {order.symbol: order.stop_price for order in _working_stops(account_id)}
    return [(position, stops.get(symbol)) for symbol, position in sorted(portfolio.positions.items())]


def _working_stops(account_id: str) -> list[Order]:
    orders = order_store.unfinished_orders(account_id)
    return [order for order in orders if order.role is Role.STOP_LOSS and order.state in WORKING]


def _position(position: Position, stop_price: Decimal | None, candle: Mapping[str, Any] | None) -> dict[str, Any]:
    last = None if candle is None else Decimal(str(candle["close"]))
    return {
        "symbol": position.symbol,
        "qty": float(position.qty),
        "avg_entry_price": float(position.avg_entry_price),
        "current_price": number(last),
        "unrealized_pnl": None if last is None else float(position.unrealized_pnl(last)),
        "side": str(position.side),
        "stop_price": number(stop_price),
        "initial_stop_price": number(position.initial_stop_price),
        "naked_seconds": None,
        "naked_dollars": None,
        "naked_since": None,
        "entry_at": timestamp(position.entry_at),
        "strategy": position.strategy,
        "leaving": "",
        "stop_moving_to": None,
    }


def _pnl(account_id: str, session: TradingSession | None, positions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The latest session's result as far as the ledger knows it; unknown is None."""
    figures: dict[str, Any] = dict.fromkeys(
        (
            "today_pnl",
            "today_pnl_pct",
            "unrealized_pnl",
            "realized_pnl",
            "total_equity",
            "buying_power",
            "cash",
            "limits",
        )
    )
    if session is None or session.start_equity is None or session.opens_at is None:
        return figures
    closed = Trade.objects.filter(account_id=account_id, correction__isnull=True, exit_at__gte=session.opens_at)
    realized = float(sum(closed.values_list("pnl", flat=True), ZERO))
    gains = [position["unrealized_pnl"] for position in positions]
    if None in gains:
        return {**figures, "realized_pnl": realized}
    unrealized, start_equity = sum(gains), float(session.start_equity)
    today = round(realized + unrealized, DISPLAY_DECIMALS)
    return {
        "today_pnl": today,
        "today_pnl_pct": round(today / start_equity, DISPLAY_DECIMALS),
        "unrealized_pnl": round(unrealized, DISPLAY_DECIMALS),
        "realized_pnl": realized,
        "total_equity": round(start_equity + today, DISPLAY_DECIMALS),
        "buying_power": None,
        "cash": None,
        "limits": None,
    }


def _strategies(last_candles: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The watchlist with the averages of the last recorded candles; nothing is evaluated without an engine."""
    config = effective_config()
    lines = []
    for name in config["strategies"]:
        parameters = strategy_parameters(config, name)
        for symbol in config["watchlist"]:
            candle = last_candles.get(symbol, {})
            lines.append(
                {
                    "name": name,
                    "symbol": symbol,
                    "enabled": bool(parameters["enabled"]),
                    "status": "paused",
                    "indicators": {"sma_fast": candle.get("sma_fast"), "sma_slow": candle.get("sma_slow")},
                    "bar_count": 0,
                    "bars_needed": int(parameters["sma_slow"]),
                    "interval": int(parameters["candle_interval_minutes"]),
                    "last_price": candle.get("close"),
                    "conditions": [],
                    "blocked": "",
                }
            )
    return lines


def _activities(account_id: str) -> list[dict[str, Any]]:
    newest_first = trading_store.activities(account_id, limit=SHOWN_ACTIVITIES)
    return [activity_line(activity_id, record) for activity_id, record in reversed(newest_first)]


def _connection(session: TradingSession | None, last_candles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    run, lease = trading_store.last_run(), trading_store.live_lease()
    last_bar = max((candle["timestamp"] for candle in last_candles.values()), default=None)
    return {
        "status": "disconnected",
        "bar_stream": False,
        "trade_stream": False,
        "last_bar_at": last_bar,
        "account_mode": shown_mode(),
        "detail": "",
        "ledger_problem": "",
        "market_open": False,
        "session_open": timestamp(session.opens_at) if session and session.opens_at else None,
        "session_close": timestamp(session.closes_at) if session and session.closes_at else None,
        "half_day": False,
        "next_open": None,
        "halted": "halted before the engine stopped" if session and session.halted else "",
        "breakers": sorted(filter(None, session.breaker.split(","))) if session else [],
        "engine": "silent" if lease else "off",
        "engine_ended_at": timestamp(run.ended_at) if run and run.ended_at else None,
        "engine_failure": run.reason if run and run.outcome == "failed" else "",
    }


def has_candles(run: trading_store.Run) -> bool:
    """Whether the run has recorded candles with both averages."""
    return any(candle["sma_slow"] is not None for candle in _last_candles(run).values())


def _last_candles(run: trading_store.Run | None) -> dict[str, dict[str, Any]]:
    if run is None:
        return {}
    newest = {symbol: recording.candles(run.id, symbol, 1) for symbol in run.symbols}
    return {symbol: candles[-1] for symbol, candles in newest.items() if candles}


# --- the chart --------------------------------------------------------------------------------------------------------


@transaction.atomic
def chart(symbol: str, *, limit: int) -> dict[str, Any]:
    """A symbol's latest candles with their averages, the fills among them, and the open position's stop."""
    run = trading_store.last_run()
    candles = recording.candles(run.id, symbol, limit) if run else []
    stop = None
    marks: list[dict[str, Any]] = []
    if run and candles:
        stop = next((stop for stop in _working_stops(run.account_id) if stop.symbol == symbol), None)
        marks = _marks(run.account_id, symbol, since=datetime.fromisoformat(candles[0]["timestamp"]))
    return {
        "symbol": symbol,
        "candles": candles,
        "marks": marks,
        "stop_price": number(stop.stop_price) if stop else None,
    }


def _marks(account_id: str, symbol: str, *, since: datetime) -> list[dict[str, Any]]:
    fills = OrderEvent.objects.filter(account_id=account_id, order_local__symbol=symbol, filled_at__gte=since)
    columns = ("filled_at", "qty_filled", "fill_price", "order_local__role", "order_local__side")
    return [
        {
            "timestamp": timestamp(filled_at),
            "kind": "entry" if role == Role.ENTRY else "exit",
            "buys": (side == Side.LONG) == (role == Role.ENTRY),
            "qty": float(qty),
            "price": float(price),
        }
        for filled_at, qty, price, role, side in fills.order_by("filled_at", "id").values_list(*columns)
        if filled_at and qty and price
    ]


# --- metrics ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the metrics tell. `heartbeat_age_seconds` is None when no engine ever ran or the last one ended in order."""

    heartbeat_age_seconds: float | None
    engine_is_running: bool
    orders_by_state: Mapping[str, int]
    trades: int
    realized_pnl: Decimal
    open_positions: int
    unprotected_positions: int
    is_halted: bool
    breakers: Sequence[str]
    cover: trading_store.CoverFigures
    waiting_tasks: int


@transaction.atomic
def figures() -> Figures:
    """The figures of the current account."""
    run = trading_store.last_run()
    account_id = run.account_id if run else ""
    beat_at = EngineLease.objects.values_list("heartbeat_at", flat=True).first()
    states = OrderState.objects.filter(account_id=account_id).values_list("state").annotate(Count("id"))
    session = TradingSession.objects.filter(account_id=account_id).order_by("-date").first()
    positions = open_positions(account_id)
    results = Trade.objects.filter(account_id=account_id, correction__isnull=True).values_list("pnl", flat=True)
    return Figures(
        heartbeat_age_seconds=max(0.0, (utc_now() - beat_at).total_seconds()) if beat_at else None,
        engine_is_running=trading_store.live_lease() is not None,
        orders_by_state=dict(states.order_by("state")),
        trades=len(results),
        realized_pnl=sum(results, ZERO),
        open_positions=len(positions),
        unprotected_positions=sum(stop_price is None for _, stop_price in positions),
        is_halted=bool(session and session.halted),
        breakers=sorted(filter(None, session.breaker.split(","))) if session else [],
        cover=trading_store.cover_figures(account_id),
        waiting_tasks=OrmQ.objects.count(),
    )
