"""Which changes of settings may cost money, and so are asked about twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from risk.config import Config, as_text

MORE_MAY_BE_LOST = {
    "risk.max_risk_per_trade_pct": "one trade may lose more at its stop",
    "risk.max_risk_per_trade_abs": "one trade may lose more at its stop",
    "risk.max_position_pct": "one position may be larger, and so is the loss if the price jumps over its stop",
    "risk.max_daily_loss_pct": "a day may lose more before entries stop",
    "risk.max_open_positions": "more positions may lose at the same time",
    "risk.consecutive_loss_pause": "more losing trades in a row are taken before entries stop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Danger:
    """A change with what it may lead to."""

    key: str
    before: str
    after: str
    why: str


def dangers(before: Config, after: Config, keys: Sequence[str]) -> list[Danger]:
    """Those of the changed keys that loosen a limit, hold overnight, let a strategy loose or drop a symbol."""
    found = {key: _why(key, before, after) for key in keys}
    return [
        Danger(key=key, before=as_text(before[key]), after=as_text(after[key]), why=why)
        for key, why in found.items()
        if why
    ]


def _why(key: str, before: Config, after: Config) -> str:
    old, new = before[key], after[key]
    if key in MORE_MAY_BE_LOST:
        return MORE_MAY_BE_LOST[key] if new > old else ""
    if key == "risk.flatten_minutes_before_close":
        return "positions are held overnight" if new == 0 and old else ""
    if key.endswith(".enabled"):
        return "the strategy may open positions from the next candle on" if new and not old else ""
    if key == "watchlist":
        gone = [symbol for symbol in old if symbol not in new]
        return f"{', '.join(gone)} take no more entries; an open position there is managed until it is flat" * bool(
            gone
        )
    return ""


WHEN: Mapping[str, str] = {
    "watchlist": "at once: prices of new symbols are subscribed and their averages warmed up",
    "log_level": "at once",
    "risk.flatten_minutes_before_close": "at once, for today's close too",
}


def applies(key: str) -> str:
    """When a change of a setting that needs no restart is felt."""
    return WHEN.get(key, "with the next entry")
