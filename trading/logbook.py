"""What a Trader was told, as lines of text and back: with the bars it is enough to tell it all again.

The broker's answers are no part of it: they follow from the orders, and the ledger has them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import trading.strategies  # noqa: F401  registers them
from orders.encoding import decimal_text, decode, decode_fact, encode, encode_fact, timestamp
from orders.events import Filled
from orders.lifecycle import Order
from risk.config import BY_KEY, Config, resolve
from trading.market import Bar, Session
from trading.messages import (
    CloseRequested,
    DataEnded,
    EntriesBlocked,
    Event,
    ExecutionCorrected,
    ForeignHeld,
    Halted,
    HistoryDelivered,
    LedgerLost,
    LedgerRegained,
    PositionAdopted,
    PositionGone,
    Resumed,
    SessionStarted,
    SettingsChanged,
    ShuttingDown,
    StopMoveRequested,
    SymbolBlocked,
    WatchlistChanged,
)
from trading.settings import trader_settings

# Where to trade and what to show has no say in what is traded.
OF_THE_PLACE = ("broker.", "web.", "worker.", "log_", "database_url", "redis_url", "data_dir", "db_busy_timeout_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an account stood just before a session began: all that is needed to go on from there.

    `settings` are texts by key, `blocked` reasons by symbol ("" for all of them) and cause; `fills` are those of open
    round trips, in order. `halted` is empty while entries are allowed.
    """

    now: datetime
    settings: Mapping[str, str]
    symbols: tuple[str, ...]
    cash: Decimal
    orders: tuple[Order, ...]
    fills: tuple[tuple[Order, Filled], ...]
    halted: str
    blocked: Mapping[str, Mapping[str, str]]


Entry = Standing | Event


def is_told(event: Event) -> bool:
    """Whether an event belongs in the log book."""
    return type(event).__name__ in _READERS


def to_line(entry: Entry, *, real_at: datetime, settings: Mapping[str, str]) -> str:
    """One entry as JSON; `settings` are those from now on, as texts by key."""
    match entry:
        case Standing():
            fields = _write_standing(entry)
        case SettingsChanged():
            fields = {"now": timestamp(entry.now), "settings": dict(settings)}
        case HistoryDelivered():
            fields = _write_history(entry)
        case SessionStarted():
            fields = _write_session_started(entry)
        case _:
            fields = encode(entry)
    return json.dumps({"told": type(entry).__name__, "real_at": timestamp(real_at), **fields}, separators=(",", ":"))


def from_line(line: str) -> tuple[datetime, Entry]:
    """When an entry was written down by the wall clock, and what it says.

    Raises:
        ValueError: it is no entry, or not one of this version of the program.
    """
    try:
        fields = json.loads(line)
        read = _READERS[fields.pop("told")]
        return datetime.fromisoformat(fields.pop("real_at")), read(fields)
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def config_of(settings: Mapping[str, str]) -> Config:
    """The settings that have a say in what is traded; keys that are none any more are left out.

    Raises:
        ConfigError: a value is no longer allowed.
    """
    return resolve([]).with_overrides(
        {key: text for key, text in settings.items() if key in BY_KEY and not key.startswith(OF_THE_PLACE)}
    )


# --- entries that are not flat ----------------------------------------------------------------------------------------


def _write_standing(standing: Standing) -> dict[str, Any]:
    return {
        "now": timestamp(standing.now),
        "settings": dict(standing.settings),
        "symbols": list(standing.symbols),
        "cash": decimal_text(standing.cash),
        "orders": encode(standing.orders),
        "fills": [[encode(order), encode_fact(fill)] for order, fill in standing.fills],
        "halted": standing.halted,
        "blocked": {symbol: dict(reasons) for symbol, reasons in standing.blocked.items()},
    }


def _read_standing(fields: dict[str, Any]) -> Standing:
    fills = [(decode(Order, order), decode_fact(fill)) for order, fill in fields["fills"]]
    return Standing(
        now=datetime.fromisoformat(fields["now"]),
        settings=fields["settings"],
        symbols=tuple(fields["symbols"]),
        cash=Decimal(fields["cash"]),
        orders=tuple(decode(Order, order) for order in fields["orders"]),
        fills=tuple((order, fill) for order, fill in fills if isinstance(fill, Filled)),
        halted=fields["halted"],
        blocked=fields["blocked"],
    )


def _write_session_started(started: SessionStarted) -> dict[str, Any]:
    return {
        "now": timestamp(started.now),
        "session": encode(started.session),
        "start_equity": encode(started.start_equity),
        "breaker": started.breaker,
        "tripped_at": encode(started.tripped_at),
        "losses_in_a_row": started.losses_in_a_row,
        "entries": dict(started.entries),
    }


def _read_session_started(fields: dict[str, Any]) -> SessionStarted:
    equity, tripped_at = fields["start_equity"], fields["tripped_at"]
    return SessionStarted(
        now=datetime.fromisoformat(fields["now"]),
        session=_read_session(fields["session"]),
        start_equity=None if equity is None else Decimal(equity),
        breaker=fields["breaker"],
        tripped_at=None if tripped_at is None else datetime.fromisoformat(tripped_at),
        losses_in_a_row=fields["losses_in_a_row"],
        entries=fields["entries"],
    )


def _write_history(history: HistoryDelivered) -> dict[str, Any]:
    return {
        "now": timestamp(history.now),
        "symbol": history.symbol,
        "bars": [_bar_text(bar) for bar in history.bars],
        "rebuilds": history.rebuilds,
        "sessions": encode(history.sessions),
        "interval_minutes": history.interval_minutes,
        "window_start": encode(history.window_start),
    }


def _read_history(fields: dict[str, Any]) -> HistoryDelivered:
    window_start = fields["window_start"]
    return HistoryDelivered(
        now=datetime.fromisoformat(fields["now"]),
        symbol=fields["symbol"],
        bars=tuple(_read_bar(fields["symbol"], text) for text in fields["bars"]),
        rebuilds=fields["rebuilds"],
        sessions=tuple(map(_read_session, fields["sessions"])),
        interval_minutes=fields["interval_minutes"],
        window_start=None if window_start is None else datetime.fromisoformat(window_start),
    )


def _read_settings_changed(fields: dict[str, Any]) -> SettingsChanged:
    settings = trader_settings(config_of(fields["settings"]))
    return SettingsChanged(now=datetime.fromisoformat(fields["now"]), settings=settings)


def _read_watchlist_changed(fields: dict[str, Any]) -> WatchlistChanged:
    return WatchlistChanged(now=datetime.fromisoformat(fields["now"]), symbols=tuple(fields["symbols"]))


def _read_session(fields: dict[str, str]) -> Session:
    opens, closes = datetime.fromisoformat(fields["open"]), datetime.fromisoformat(fields["close"])
    return Session(date=date.fromisoformat(fields["date"]), open=opens, close=closes)


def _bar_text(bar: Bar) -> str:
    return f"{bar.timestamp.isoformat()},{bar.open:f},{bar.high:f},{bar.low:f},{bar.close:f},{bar.volume}"


def _read_bar(symbol: str, text: str) -> Bar:
    stamp, *prices, volume = text.split(",")
    opened, high, low, close = map(Decimal, prices)
    return Bar(
        symbol=symbol,
        timestamp=datetime.fromisoformat(stamp),
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=int(volume),
    )


_FLAT: tuple[type[Event], ...] = (
    CloseRequested,
    DataEnded,
    EntriesBlocked,
    ExecutionCorrected,
    ForeignHeld,
    Halted,
    LedgerLost,
    LedgerRegained,
    PositionAdopted,
    PositionGone,
    Resumed,
    ShuttingDown,
    StopMoveRequested,
    SymbolBlocked,
)
_READERS: dict[str, Callable[[dict[str, Any]], Entry]] = {
    "Standing": _read_standing,
    "SessionStarted": _read_session_started,
    "HistoryDelivered": _read_history,
    "SettingsChanged": _read_settings_changed,
    "WatchlistChanged": _read_watchlist_changed,
    **{kind.__name__: partial(decode, kind) for kind in _FLAT},
}
