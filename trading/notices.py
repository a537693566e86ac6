"""What people are told when they do not look: kinds of events, and a day in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from orders.portfolio import Position, Trade
from trading.messages import ActivityRecorded, ActivityType, Level
from trading.wording import signed_dollars

KINDS: Mapping[str, str] = {
    "fill": "Every fill",
    "trade": "Every closed trade with its result",
    "breaker": "A limit of the session trips, or trading halts or resumes",
    "error": "Errors, refused orders, and positions without a stop",
    "summary": "A summary after the close",
}
_KIND_OF: Mapping[ActivityType, str] = {
    ActivityType.ORDER_FILLED: "fill",
    ActivityType.TRADE_CLOSED: "trade",
    ActivityType.CIRCUIT_BREAKER: "breaker",
    ActivityType.HALTED: "breaker",
    ActivityType.RESUMED: "breaker",
    ActivityType.ERROR: "error",
    ActivityType.ORDER_REJECTED: "error",
    ActivityType.NAKED: "error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell; `kind` is one of KINDS, or `test`."""

    kind: str
    title: str
    text: str


def notice_of(record: ActivityRecorded) -> Notice | None:
    """What is told of an activity, None for what is only shown. Whatever is critical counts as an error."""
    kind = "error" if record.level in (Level.ERROR, Level.CRITICAL) else _KIND_OF.get(record.type)
    if kind is None:
        return None
    words = record.message[:1].upper() + record.message[1:]
    return Notice(kind=kind, title=f"algo-trader: {record.type.replace('_', ' ')}", text=words)


def summary(
    day: date, trades: Sequence[Trade], *, start_equity: Decimal, equity: Decimal, positions: Sequence[Position]
) -> Notice:
    """A session in a few lines."""
    wins = sum(trade.pnl > 0 for trade in trades)
    result = equity - start_equity
    lines = [
        f"Result {signed_dollars(result)} ({result / start_equity:+.2%}), equity ${equity:,.2f}."
        if start_equity
        else f"Result {signed_dollars(result)}.",
        f"{len(trades)} trades, {wins} won." if trades else "No trades.",
        *(f"{trade.symbol} {signed_dollars(trade.pnl)} ({trade.exit_reason.replace('_', ' ')})" for trade in trades),
    ]
    if positions:
        lines.append(f"Held overnight: {', '.join(position.symbol for position in positions)}.")
    return Notice(kind="summary", title=f"algo-trader: {day.isoformat()}", text="\n".join(lines))
