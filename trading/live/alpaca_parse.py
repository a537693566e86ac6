"""Alpaca's JSON in our words. What is new there, a status or an event, is kept as text and never an error."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from trading.broker import (
    AccountInfo,
    BrokerOrderStatus,
    BrokerPosition,
    MarketHours,
    OrderStatus,
    TradeUpdate,
    TradingStatus,
)
from trading.market import Bar, Quote, to_four_decimals

Json = Mapping[str, Any]

log = structlog.get_logger("alpaca")

NEW_YORK = ZoneInfo("America/New_York")
HALT_CODES = frozenset({"2", "H", "P"})  # CTA halt; UTP halt and volatility pause
RESUME_CODES = frozenset({"3", "T"})  # CTA and UTP resumption of trading

# Of the statuses not named as ours, these are known to say neither "works" nor "ended".
_UNDECIDED = frozenset(
    {
        "pending_new", "accepted_for_bidding", "held", "pending_cancel", "pending_replace", "pending_review",
        "stopped", "suspended", "calculated", "done_for_day",
    }
)  # fmt: skip


def order(raw: Json) -> OrderStatus:
    """One order, its legs included.

    Raises:
        ValueError, KeyError, TypeError: something that no order can lack is missing or no number.
    """
    filled_at = raw.get("filled_at")
    submitted_at = moment(raw.get("submitted_at") or raw.get("created_at") or raw["updated_at"])
    filled = _decimal(raw.get("filled_qty")) or Decimal(0)
    quantity = _decimal(raw.get("qty"))
    return OrderStatus(
        broker_order_id=str(raw["id"]),
        client_order_id=str(raw.get("client_order_id") or ""),
        symbol=str(raw.get("symbol") or ""),
        buys=raw.get("side") == "buy",
        order_type=str(raw.get("type") or raw.get("order_type") or ""),
        status=order_status(str(raw["status"])),
        broker_status=str(raw["status"]),
        qty=filled if quantity is None else quantity,  # an order for an amount of dollars has no quantity
        filled_qty=filled,
        avg_fill_price=_decimal(raw.get("filled_avg_price")),
        limit_price=_decimal(raw.get("limit_price")),
        stop_price=_decimal(raw.get("stop_price")),
        submitted_at=submitted_at,
        updated_at=moment(raw["updated_at"]) if raw.get("updated_at") else submitted_at,
        replaced_by=_text(raw.get("replaced_by")),
        replaces=_text(raw.get("replaces")),
        filled_at=moment(filled_at) if filled_at else None,
        legs=tuple(order(leg) for leg in raw.get("legs") or ()),
    )


def order_status(text: str) -> BrokerOrderStatus:
    """The broker's status folded to ours. Whatever decides nothing, known or not, is `PENDING`."""
    try:
        return BrokerOrderStatus(text)
    except ValueError:
        if text not in _UNDECIDED:
            _note_unknown_status(text)
        return BrokerOrderStatus.PENDING


def trade_update(data: Json) -> TradeUpdate:
    """One message of the trade update stream (the `data` of its envelope). Raises as `order` does."""
    report = order(data["order"])
    timestamp = data.get("timestamp") or data.get("at")
    execution_id = _text(data.get("execution_id"))
    return TradeUpdate(
        event=str(data["event"]),
        order=report,
        timestamp=moment(timestamp) if timestamp else report.updated_at,
        execution_id=execution_id,
        execution_qty=_decimal(data.get("qty")) if execution_id else None,
        execution_price=_decimal(data.get("price")) if execution_id else None,
        previous_execution_id=_text(data.get("previous_execution_id")),
    )


def fill_activity(raw: Json) -> TradeUpdate:
    """One FILL of the account's activities.

    It knows the order's broker id, quantities and state, but neither its client id nor its prices. The execution id
    is the second half of the activity's id.
    """
    at = moment(raw["transaction_time"])
    quantity, price = _required(raw, "qty"), _required(raw, "price")
    cumulative = _decimal(raw.get("cum_qty"))
    filled = quantity if cumulative is None else cumulative
    event = str(raw.get("type") or "fill")
    status = str(raw.get("order_status") or ("filled" if event == "fill" else "partially_filled"))
    return TradeUpdate(
        event=event,
        timestamp=at,
        execution_id=str(raw["id"]).partition("::")[2] or str(raw["id"]),
        execution_qty=quantity,
        execution_price=price,
        order=OrderStatus(
            broker_order_id=str(raw["order_id"]),
            client_order_id="",
            symbol=str(raw["symbol"]),
            buys=raw["side"] == "buy",
            order_type="",
            status=order_status(status),
            broker_status=status,
            qty=filled + (_decimal(raw.get("leaves_qty")) or Decimal(0)),
            filled_qty=filled,
            avg_fill_price=None,
            limit_price=None,
            stop_price=None,
            submitted_at=at,
            updated_at=at,
        ),
    )


def position(raw: Json) -> BrokerPosition:
    """One position. The side decides the sign: that of a short's quantity is not documented."""
    size = abs(_required(raw, "qty"))
    return BrokerPosition(
        symbol=str(raw["symbol"]),
        qty=-size if raw["side"] == "short" else size,
        avg_entry_price=_required(raw, "avg_entry_price"),
        current_price=_decimal(raw.get("current_price")),
    )


def account(raw: Json) -> AccountInfo:
    """The account; blocked when the broker or its owner has stopped trading in any way."""
    equity = _required(raw, "equity")
    last_equity = _decimal(raw.get("last_equity"))
    blocks = ("trading_blocked", "account_blocked", "trade_suspended_by_user")
    return AccountInfo(
        account_number=str(raw["account_number"]),
        equity=equity,
        last_equity=equity if last_equity is None else last_equity,
        cash=_required(raw, "cash"),
        buying_power=_required(raw, "buying_power"),
        is_blocked=raw.get("status") != "ACTIVE" or any(raw.get(block) for block in blocks),
        shorting_enabled=bool(raw.get("shorting_enabled")),
    )


def market_hours(raw: Json) -> MarketHours:
    """One day of the calendar, which comes in New York wall time."""
    day = date.fromisoformat(raw["date"])
    opens, closes = (datetime.combine(day, time.fromisoformat(raw[key]), NEW_YORK) for key in ("open", "close"))
    return MarketHours(date=day, open=opens.astimezone(UTC), close=closes.astimezone(UTC))


def bars(symbol: str, rows: Iterable[Json]) -> list[Bar]:
    """Minute bars of one symbol, from REST (times as text) or from the stream (MessagePack timestamps)."""
    return [
        Bar(
            symbol=symbol,
            timestamp=_bar_time(row["t"]),
            open=to_four_decimals(_required(row, "o")),
            high=to_four_decimals(_required(row, "h")),
            low=to_four_decimals(_required(row, "l")),
            close=to_four_decimals(_required(row, "c")),
            volume=int(row["v"]),
        )
        for row in rows
    ]


def snapshot(symbol: str, raw: Json) -> Quote:
    """Latest trade and quote and the day's volume of one symbol. A bid or ask of 0 means that there is none."""
    trade, quote, day = raw["latestTrade"], raw.get("latestQuote") or {}, raw.get("dailyBar") or {}
    return Quote(
        symbol=symbol,
        bid=_decimal(quote.get("bp")) or Decimal(0),
        ask=_decimal(quote.get("ap")) or Decimal(0),
        last=_required(trade, "p"),
        volume=int(day.get("v") or 0),
        timestamp=moment(quote.get("t") or trade["t"]),
    )


def trading_status(raw: Json) -> TradingStatus | None:
    """A halt or resumption from the `statuses` channel, None for its other messages (quotation only, imbalances)."""
    code = str(raw["sc"])
    if code not in HALT_CODES | RESUME_CODES:
        return None
    words = [str(raw[key]) for key in ("sm", "rm") if raw.get(key)]
    return TradingStatus(
        symbol=str(raw["S"]), halted=code in HALT_CODES, reason=": ".join(words), timestamp=_bar_time(raw["t"])
    )


def moment(text: str) -> datetime:
    """An RFC 3339 time in UTC; anything finer than a microsecond is cut off."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return parsed.astimezone(UTC)


def _bar_time(value: Any) -> datetime:
    if isinstance(value, str):
        return moment(value)
    plain: datetime = value.to_datetime()
    return plain.astimezone(UTC)


def _required(raw: Json, key: str) -> Decimal:
    value = _decimal(raw[key])
    if value is None:
        raise ValueError(f"{key} is empty")
    return value


def _decimal(value: Any) -> Decimal | None:
    """A number as it was written: text and `Decimal` exactly, a float by its shortest text."""
    if value is None or value == "":
        return None
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise ValueError(f"{value} is no number") from None
    if not number.is_finite():
        raise ValueError(f"{value} is no number")
    return number


def _text(value: Any) -> str | None:
    return str(value) if value else None


@lru_cache(maxsize=64)
def _note_unknown_status(text: str) -> None:
    """Once for each text: the same order is read many times."""
    log.warning("alpaca.unknown_order_status", status=text)
