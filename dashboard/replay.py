"""A past day of the engine, from its own records: everything that the page needs to show any minute of it."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from orders import store as order_store
from orders.events import Accepted, Filled, Replaced
from orders.lifecycle import Order, Role
from orders.store import RecordedEvent
from risk import store as risk_store
from risk.config import BY_KEY, parse
from trading import store as trading_store
from trading.live import calendar, recording
from trading.live.broadcast import activity_line, number, timestamp
from trading.store import Run

CANDLES_BEFORE = 30
MOST_DAYS = 250
DAY_BEFORE_IS_WITHIN = timedelta(days=5)


def days(runs: Sequence[Run]) -> list[date]:
    """The sessions of which there are records, newest first. Files of other days hold history read to warm up."""
    kept = {day for run in runs for day in recording.days(run.id) if recording.bars_exist(run.id, day)}
    return sorted(kept, reverse=True)[:MOST_DAYS]


def story(account_id: str, runs: Sequence[Run], day: date, symbol: str) -> dict[str, Any] | None:
    """The day as the engine lived it, the chart's candles of one symbol; None when the exchange was closed."""
    session = calendar.session_on(day)
    if session is None:
        return None
    until = session.close + timedelta(minutes=10)
    events = order_store.events_between(account_id, since=session.open, until=until)
    state = risk_store.load_session(account_id, day)
    run = next((run for run in reversed(runs) if recording.bars_exist(run.id, day)), None)
    candles = _candles(runs, day, symbol)
    trades = order_store.trades_around(account_id, since=session.open, until=until)
    carried = order_store.positions_at(account_id, session.open)
    filled = {order.symbol for order, event in events if isinstance(event.fact, Filled)}
    held = sorted(filled | {position.symbol for position in carried})
    return {
        "day": day.isoformat(),
        "symbol": symbol,
        "open": timestamp(session.open),
        "close": timestamp(session.close),
        "interval_minutes": candles[0]["interval"] if candles else 1,
        "candles": candles,
        "fills": [_fill(order, event.fact) for order, event in events if isinstance(event.fact, Filled)],
        "stops": [
            {
                "symbol": order.symbol,
                "signal": order.correlation_id,
                "timestamp": timestamp(event.fact.at),
                "price": number(event.stop_price),
            }
            for order, event in events
            if order.role is Role.STOP_LOSS and isinstance(event.fact, Accepted | Replaced)
        ],
        "orders": [_order_event(order, event) for order, event in events],
        "trades": [{"timestamp": timestamp(trade.exit_at), "pnl": float(trade.pnl)} for trade in trades],
        "carried": [
            {
                "symbol": position.symbol,
                "signal": position.correlation_id,
                "side": str(position.side),
                "qty": float(position.qty),
                "price": float(position.avg_entry_price),
            }
            for position in carried
        ],
        "prices": {each: _closes(runs, day, each) for each in held},
        "activities": [
            activity_line(row_id, record)
            for row_id, record in trading_store.activities_between(account_id, since=session.open, until=until)
        ],
        "start_equity": number(state.start_equity) if state else None,
        "limits": _limits(run.settings if run else {}, state.start_equity if state else None),
    }


def _limits(settings: Mapping[str, str], start_equity: Decimal | None) -> dict[str, float | None]:
    """The limits of the run's start; a setting changed later in the day is in the activities."""

    def value(key: str) -> Decimal:
        return Decimal(str(parse(key, settings.get(key, BY_KEY[key].default))))

    return {
        "daily_loss": number(value("risk.max_daily_loss_pct") * start_equity) if start_equity else None,
        "losses_in_a_row": float(value("risk.consecutive_loss_pause")),
        "positions": float(value("risk.max_open_positions")),
    }


def _candles(runs: Sequence[Run], day: date, symbol: str) -> list[dict[str, Any]]:
    """The day's candles, as the latest run that has them tells, after some of the days before."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for strategy in run.strategies[:1]:
            first = day - DAY_BEFORE_IS_WITHIN
            candles = recording.candles_between(run.id, symbol, strategy=strategy, first=first, last=day)
            found |= {candle["timestamp"]: candle for candle in candles}
    ordered = [found[each] for each in sorted(found)]
    opened = calendar.session_on(day)
    begins = timestamp(opened.open) if opened else ""
    before = [candle for candle in ordered if candle["timestamp"] < begins]
    return before[-CANDLES_BEFORE:] + [candle for candle in ordered if candle["timestamp"] >= begins]


def _closes(runs: Sequence[Run], day: date, symbol: str) -> list[tuple[str, float]]:
    """When which price was known."""
    known: dict[datetime, float] = {}
    for run in runs:
        known |= {each.delivered_at: float(each.bar.close) for each in recording.bars(run.id, symbol, day)}
    return [(timestamp(moment), known[moment]) for moment in sorted(known)]


def _fill(order: Order, fill: Filled) -> dict[str, Any]:
    return {
        "timestamp": timestamp(fill.filled_at),
        "symbol": order.symbol,
        "signal": order.correlation_id,
        "side": str(order.side),
        "kind": "entry" if order.role is Role.ENTRY else "exit",
        "buys": order.buys,
        "qty": float(fill.qty),
        "price": float(fill.price),
    }


def _order_event(order: Order, event: RecordedEvent) -> dict[str, Any]:
    fact = event.fact
    return {
        "timestamp": timestamp(fact.filled_at if isinstance(fact, Filled) else fact.at),
        "id": order.local_id,
        "symbol": order.symbol,
        "role": str(order.role),
        "buys": order.buys,
        "qty": float(order.qty_requested),
        "state": event.new_state,
        "price": number(event.stop_price),
    }
