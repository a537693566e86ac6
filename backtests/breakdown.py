"""The result of a backtest taken apart: by month, by symbol, by the reason trades were closed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from orders.portfolio import Trade
from trading.market import Session

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One calendar month: its sessions, and the equity at the end against that before its first one, as a fraction.

    `change` is None where the equity before was 0 or less.
    """

    year: int
    month: int
    sessions: int
    pnl: Decimal
    change: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The trades that have something in common. Ratios are fractions, `average_pnl` dollars a trade."""

    name: str
    trades: int
    winners: int
    losers: int
    pnl: Decimal
    average_pnl: Decimal
    win_rate: float
    profit_factor: float | None


def by_month(initial_capital: Decimal, sessions: Sequence[Session], daily_equity: Sequence[Decimal]) -> list[Month]:
    """All months with a session, in order; `daily_equity` is the equity at the end of each session."""
    ends: dict[tuple[int, int], tuple[int, Decimal]] = {}
    for session, equity in zip(sessions, daily_equity, strict=True):
        key = session.date.year, session.date.month
        ends[key] = ends.get(key, (0, ZERO))[0] + 1, equity
    months = []
    before = initial_capital
    for (year, month), (count, equity) in ends.items():
        change = float(equity / before - 1) if before > 0 else None
        months.append(Month(year=year, month=month, sessions=count, pnl=equity - before, change=change))
        before = equity
    return months


def by_symbol(trades: Iterable[Trade], symbols: Sequence[str]) -> list[Group]:
    """The symbols that were traded, in the given order."""
    found = _grouped(trades, lambda trade: trade.symbol)
    return [found[symbol] for symbol in symbols if symbol in found]


def by_exit_reason(trades: Iterable[Trade]) -> list[Group]:
    """The exit reasons that occurred, the most frequent first."""
    return sorted(
        _grouped(trades, lambda trade: trade.exit_reason).values(), key=lambda each: (-each.trades, each.name)
    )


def _grouped(trades: Iterable[Trade], name_of: Callable[[Trade], str]) -> dict[str, Group]:
    pnls: dict[str, list[Decimal]] = defaultdict(list)
    for trade in trades:
        pnls[name_of(trade)].append(trade.pnl)
    return {name: _group(name, those) for name, those in pnls.items()}


def _group(name: str, pnls: Sequence[Decimal]) -> Group:
    wins, losses = [pnl for pnl in pnls if pnl > 0], [-pnl for pnl in pnls if pnl < 0]
    total = sum(pnls, ZERO)
    return Group(
        name=name,
        trades=len(pnls),
        winners=len(wins),
        losers=len(losses),
        pnl=total,
        average_pnl=total / len(pnls),
        win_rate=len(wins) / len(pnls),
        profit_factor=float(sum(wins, ZERO) / sum(losses, ZERO)) if losses else None,
    )
