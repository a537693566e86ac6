"""The flight recorder: what the ledger and the run's files tell of one order, and of one trade."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from orders import store as order_store
from orders.events import Accepted, Replaced, ReplaceRefused, ReplaceRequested, Submitted
from orders.lifecycle import Order, Role, Side
from orders.portfolio import Trade
from orders.store import RecordedEvent, RecordedTrade
from trading.live import recording
from trading.live.broadcast import number, timestamp
from trading.store import NEW_YORK

CANDLES_AROUND = 40
CLOCK = re.compile(r"\b(\d\d:\d\d:\d\d)( UTC)?\b")
ANSWERS = ("accepted", "rejected", "failed", "fill", "partial_fill", "canceled", "expired", "replaced", "forced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An event of an order: milliseconds since the one before it by the wall clock, and who says so."""

    event: RecordedEvent
    after_ms: float | None
    told_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMove:
    """A stop that was asked to move; `took_ms` until the broker answered, None while it has not."""

    asked_at: datetime
    before: Decimal | None
    after: Decimal
    outcome: str
    took_ms: float | None


def signals(decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The decisions with their candle as numbers, and the words of the risk checks in New York time."""
    return [
        {
            **decision,
            "candle": _candle(decision["candle"]),
            "checks": [
                {**check, "detail": _in_new_york(check["detail"], decision["recorded_at"])}
                for check in decision["checks"]
            ],
        }
        for decision in decisions
    ]


def _candle(recorded: Mapping[str, Any]) -> dict[str, Any]:
    prices = {name: Decimal(recorded[name]) for name in ("open", "high", "low", "close")}
    return {**recorded, **prices, "timestamp": datetime.fromisoformat(recorded["timestamp"])}


def _in_new_york(words: str, day: datetime) -> str:
    """The rules speak, and are recorded, in UTC."""

    def there(found: re.Match[str]) -> str:
        moment = datetime.combine(day.astimezone(UTC), time.fromisoformat(found[1]), UTC)
        return f"{moment.astimezone(NEW_YORK):%H:%M:%S}"

    return CLOCK.sub(there, words)


def steps(events: Sequence[RecordedEvent]) -> list[Step]:
    """Each event with its latency."""
    return [
        Step(
            event=event,
            after_ms=_milliseconds(event.recorded_real_at - before.recorded_real_at) if before else None,
            told_by="broker" if event.event_type in ANSWERS else "here",
        )
        for before, event in zip([None, *events], events, strict=False)
    ]


def submission_ms(events: Sequence[RecordedEvent]) -> float | None:
    """Milliseconds from the request to the broker's acceptance."""
    sent = next((event for event in events if isinstance(event.fact, Submitted)), None)
    taken = next((event for event in events if isinstance(event.fact, Accepted)), None)
    return _milliseconds(taken.recorded_real_at - sent.recorded_real_at) if sent and taken else None


def stop_moves(events: Sequence[RecordedEvent]) -> list[StopMove]:
    """The moves of a stop, in order."""
    moves: list[StopMove] = []
    price = events[0].stop_price if events else None
    for event, rest in ((event, events[index + 1 :]) for index, event in enumerate(events)):
        if isinstance(event.fact, ReplaceRequested):
            answer = next((each for each in rest if isinstance(each.fact, Replaced | ReplaceRefused)), None)
            moves.append(
                StopMove(
                    asked_at=event.fact.at,
                    before=price,
                    after=event.fact.stop_price,
                    outcome=answer.event_type if answer else "waiting",
                    took_ms=_milliseconds(answer.recorded_real_at - event.recorded_real_at) if answer else None,
                )
            )
        elif isinstance(event.fact, Replaced):
            price = event.fact.stop_price
    return moves


# --- one trade --------------------------------------------------------------------------------------------------------


def trade_chart(account_id: str, recorded: RecordedTrade) -> dict[str, Any]:
    """The trade's candles with some before and after it, its executions, and the path of its stop."""
    trade = recorded.trade
    candles = _candles_around(recorded)
    interval = timedelta(minutes=candles[0]["interval"]) if candles else timedelta(minutes=1)
    orders = order_store.orders_by_correlation(account_id, trade.correlation_id)
    return {
        "candles": candles,
        "interval_minutes": interval // timedelta(minutes=1),
        "marks": [mark for order in orders for mark in _marks(account_id, order)],
        "stops": _stop_path(account_id, orders, trade),
        "planned_stop_price": number(trade.initial_stop_price),
    }


def excursions(trade: Trade, candles: Sequence[Mapping[str, Any]]) -> dict[str, Decimal] | None:
    """The best and the worst that the trade stood at, in dollars, by the candles of its life; None without any."""
    first, last = timestamp(trade.entry_at - timedelta(minutes=1)), timestamp(trade.exit_at)
    held = [candle for candle in candles if first <= candle["timestamp"] <= last]
    if not held:
        return None
    high = Decimal(str(max(candle["high"] for candle in held)))
    low = Decimal(str(min(candle["low"] for candle in held)))
    best, worst = (high, low) if trade.side is Side.LONG else (low, high)
    sign = 1 if trade.side is Side.LONG else -1
    return {
        "best": (best - trade.entry_price) * trade.qty * sign,
        "worst": (worst - trade.entry_price) * trade.qty * sign,
    }


def _candles_around(recorded: RecordedTrade) -> list[dict[str, Any]]:
    trade = recorded.trade
    if recorded.run_id is None:
        return []
    first, last = (moment.astimezone(NEW_YORK).date() for moment in (trade.entry_at, trade.exit_at))
    candles = recording.candles_between(
        recorded.run_id, trade.symbol, strategy=trade.strategy, first=first - timedelta(days=4), last=last
    )
    begins, ends = timestamp(trade.entry_at), timestamp(trade.exit_at)
    before = [candle for candle in candles if candle["timestamp"] < begins]
    held = [candle for candle in candles if begins <= candle["timestamp"] <= ends]
    after = [candle for candle in candles if candle["timestamp"] > ends]
    return before[-CANDLES_AROUND:] + held + after[: CANDLES_AROUND // 2]


def _marks(account_id: str, order: Order) -> list[dict[str, Any]]:
    return [
        {
            "timestamp": timestamp(fill.filled_at),
            "kind": "entry" if order.role is Role.ENTRY else "exit",
            "buys": order.buys,
            "qty": float(fill.qty),
            "price": float(fill.price),
        }
        for fill in order_store.fills_of(account_id, order.local_id)
    ]


def _stop_path(account_id: str, orders: Sequence[Order], trade: Trade) -> list[dict[str, Any]]:
    """Where the stop was, from each moment on; None when there was none any more."""
    stops = [order for order in orders if order.role is Role.STOP_LOSS]
    path = [
        {"timestamp": timestamp(event.fact.at), "price": number(event.stop_price)}
        for stop in stops
        for event in order_store.events_of(account_id, stop.local_id)
        if isinstance(event.fact, Accepted | Replaced)
    ]
    return [*path, {"timestamp": timestamp(trade.exit_at), "price": path[-1]["price"]}] if path else []


def _milliseconds(span: timedelta) -> float:
    return round(span / timedelta(milliseconds=1), 3)
