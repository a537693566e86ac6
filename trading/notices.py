"""What people are told when they do not look: kinds of events, and a day in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from orders.portfolio import Trade
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
    ActivityType.SUMMARY: "summary",
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
    day: date,
    trades: Sequence[Trade],
    *,
    at: datetime,
    start_equity: Decimal | None,
    equity: Decimal | None,
    held: Sequence[str],
) -> ActivityRecorded:
    """A session in a few lines; where equity is not known the result is that of the closed trades."""
    wins = sum(trade.pnl > 0 for trade in trades)
    if start_equity and equity is not None:
        result = equity - start_equity
        first = f"Result {signed_dollars(result)} ({result / start_equity:+.2%}), equity ${equity:,.2f}."
    else:
        first = f"Result {signed_dollars(sum((trade.pnl for trade in trades), Decimal(0)))}."
    lines = [
        f"{day.isoformat()}: {first}",
        f"{len(trades)} trade{'s' if len(trades) > 1 else ''}, {wins} won." if trades else "No trades.",
        *(f"{trade.symbol} {signed_dollars(trade.pnl)} ({trade.exit_reason.replace('_', ' ')})" for trade in trades),
    ]
    if held:
        lines.append(f"Held overnight: {', '.join(held)}.")
    return ActivityRecorded(at=at, type=ActivityType.SUMMARY, symbol="", message="\n".join(lines))
