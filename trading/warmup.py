"""How far back history is needed before the first signal: one rule for the engine, replays and backtests."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from trading.market import Bar, Session
from trading.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryNeed:
    """Completed candles of one length that a strategy must have seen before its first signal."""

    candles: int
    interval_minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """The bars that warm one symbol up, oldest first, and the sessions they cover whole; too few mean a cold start."""

    bars: tuple[Bar, ...]
    sessions: tuple[Session, ...]
    is_enough: bool


def history_needs(strategies: Iterable[Strategy]) -> tuple[HistoryNeed, ...]:
    """What a symbol's strategies need together."""
    return tuple(
        HistoryNeed(candles=each.required_history(), interval_minutes=each.candle_interval // timedelta(minutes=1))
        for each in strategies
    )


def sessions_to_fetch(sessions: Sequence[Session], needs: Iterable[HistoryNeed], *, already: int = 0) -> int:
    """How many of the last `sessions` to ask for next, at most all of them.

    First the fewest that could do if no minute were missing; twice as many as `already` when those held too little.
    The same as `already` means that there is nothing more to ask for.
    """
    return min(len(sessions), max(2 * already, max((_fewest(sessions, need) for need in needs), default=0)))


def warm_up(bars: Sequence[Bar], sessions: Sequence[Session], needs: Iterable[HistoryNeed]) -> WarmUp:
    """The last whole sessions that hold enough candles for every need, all of them if none do.

    `bars` are one symbol's, in order of time; `sessions` are those before the first one that is traded, in order.
    The answer does not depend on how much earlier history is given besides.
    """
    starts = [bar.timestamp for bar in bars]
    missing = {need.interval_minutes: need.candles for need in needs}
    first = len(sessions)
    while first and any(count > 0 for count in missing.values()):
        first -= 1
        session = sessions[first]
        within = bars[bisect_left(starts, session.open) : bisect_left(starts, session.close)]
        minutes = [(bar.timestamp - session.open) // timedelta(minutes=1) for bar in within if bar.fault is None]
        for interval in missing:
            missing[interval] -= len({minute // interval for minute in minutes})
    used = tuple(sessions[first:])
    chosen = tuple(
        bar for session in used for bar in bars[bisect_left(starts, session.open) : bisect_left(starts, session.close)]
    )
    return WarmUp(bars=chosen, sessions=used, is_enough=all(count <= 0 for count in missing.values()))


def _fewest(sessions: Sequence[Session], need: HistoryNeed) -> int:
    missing, count = need.candles, 0
    interval = timedelta(minutes=need.interval_minutes)
    for session in reversed(sessions):
        if missing <= 0:
            break
        missing -= -(-(session.close - session.open) // interval)
        count += 1
    return count
