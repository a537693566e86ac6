"""The figures of a backtest: money exact, ratios as fractions, None where a figure is undefined."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise
from math import isfinite

from orders.portfolio import Trade
from trading.market import Session

TRADING_DAYS_PER_YEAR = 252
ZERO = Decimal(0)
NO_TIME = timedelta()
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a run came to. Money (Decimal) is in dollars, per trade where it is an average; ratios are fractions.

    `cagr` and `annual_volatility` are extrapolated from however many sessions there were, at 252 a year.
    `average_r` is the mean of P&L over planned risk. `exposure` is the share of the equity that was in positions,
    averaged over the sessions' time; `time_in_market` the share of that time in which any position was open.
    `longest_drawdown_sessions` counts closes in a row below the highest close so far. A trade of 0 ends a streak.
    """

    total_return: float
    final_equity: Decimal
    win_rate: float | None
    profit_factor: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    cagr: float | None
    annual_volatility: float | None
    max_drawdown: float
    longest_drawdown_sessions: int
    total_trades: int
    sessions: int
    winners: int
    losers: int
    gross_profit: Decimal
    gross_loss: Decimal
    average_win: Decimal | None
    average_loss: Decimal | None
    best_trade: Decimal | None
    worst_trade: Decimal | None
    expectancy: Decimal | None
    average_r: float | None
    average_duration_seconds: float | None
    longest_winning_streak: int
    longest_losing_streak: int
    commission: Decimal
    exposure: float
    time_in_market: float


def measure(
    *,
    initial_capital: Decimal,
    final_equity: Decimal,
    daily_equity: Sequence[Decimal],
    max_drawdown: Decimal,
    trades: Sequence[Trade],
    sessions: Sequence[Session],
) -> Metrics:
    """All figures of one run; `sessions` are those with a bar, `daily_equity` is the equity at the end of each."""
    pnls = [trade.pnl for trade in trades]
    wins, losses = [pnl for pnl in pnls if pnl > 0], [-pnl for pnl in pnls if pnl < 0]
    gross_profit, gross_loss = sum(wins, ZERO), sum(losses, ZERO)
    equity = [initial_capital, *daily_equity]
    returns = daily_returns(equity)
    multiples = [trade.pnl / trade.planned_risk for trade in trades if trade.planned_risk]
    return Metrics(
        total_return=float(final_equity / initial_capital - 1),
        final_equity=final_equity,
        win_rate=len(wins) / len(trades) if trades else None,
        profit_factor=float(gross_profit / gross_loss) if losses else None,
        sharpe_ratio=sharpe_ratio(returns),
        sortino_ratio=sortino_ratio(returns),
        cagr=cagr(final_equity / initial_capital, len(daily_equity)),
        annual_volatility=annual_volatility(returns),
        max_drawdown=float(max_drawdown),
        longest_drawdown_sessions=longest_drawdown(equity),
        total_trades=len(trades),
        sessions=len(sessions),
        winners=len(wins),
        losers=len(losses),
        gross_profit=gross_profit,
        gross_loss=gross_loss,
        average_win=gross_profit / len(wins) if wins else None,
        average_loss=gross_loss / len(losses) if losses else None,
        best_trade=max(pnls, default=None),
        worst_trade=min(pnls, default=None),
        expectancy=(gross_profit - gross_loss) / len(trades) if trades else None,
        average_r=float(sum(multiples, ZERO) / len(multiples)) if multiples else None,
        average_duration_seconds=sum(trade.duration_seconds for trade in trades) / len(trades) if trades else None,
        longest_winning_streak=longest_streak(pnl > 0 for pnl in pnls),
        longest_losing_streak=longest_streak(pnl < 0 for pnl in pnls),
        commission=sum((trade.commission for trade in trades), ZERO),
        exposure=exposure(trades, sessions, equity),
        time_in_market=time_in_market(trades, sessions),
    )


class Drawdown:
    """The largest fall from a peak so far, as a fraction of that peak; the initial capital is the first peak."""

    def __init__(self, initial_capital: Decimal) -> None:
        self.peak = initial_capital
        self.largest = ZERO

    def mark(self, equity: Decimal) -> None:
        """Takes note of the equity at one moment."""
        if equity >= self.peak:
            self.peak = equity
        else:
            self.largest = max(self.largest, (self.peak - equity) / self.peak)


def daily_returns(equity: Sequence[Decimal]) -> list[Decimal] | None:
    """Close-to-close returns as fractions; None if an equity of 0 or less leaves a later one undefined."""
    if any(value <= 0 for value in equity[:-1]):
        return None
    return [after / before - 1 for before, after in pairwise(equity)]


def sharpe_ratio(returns: Sequence[Decimal] | None) -> float | None:
    """Mean over sample deviation (ddof 1) of daily returns, annualised by the root of 252, the risk-free rate being 0.

    W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management, 1994. None under two days or without deviation.
    """
    deviation = _deviation(returns)
    if not returns or not deviation:
        return None
    return float(_mean(returns) / deviation * Decimal(TRADING_DAYS_PER_YEAR).sqrt())


def sortino_ratio(returns: Sequence[Decimal] | None) -> float | None:
    """Mean over downside deviation of daily returns, annualised by the root of 252; the target return is 0.

    The downside deviation is the root of the mean of all squared returns, gains counting as 0. F. A. Sortino and
    L. N. Price, "Performance Measurement in a Downside Risk Framework", Journal of Investing, 1994. None under two days
    or without a loss.
    """
    if returns is None or len(returns) < 2 or min(returns) >= 0:
        return None
    downside = (sum((min(value, ZERO) ** 2 for value in returns), ZERO) / len(returns)).sqrt()
    return float(_mean(returns) / downside * Decimal(TRADING_DAYS_PER_YEAR).sqrt())


def annual_volatility(returns: Sequence[Decimal] | None) -> float | None:
    """Sample deviation (ddof 1) of daily returns times the root of 252; None under two days."""
    deviation = _deviation(returns)
    return None if deviation is None else float(deviation * Decimal(TRADING_DAYS_PER_YEAR).sqrt())


def cagr(growth: Decimal, sessions: int) -> float | None:
    """The yearly return (a fraction) that gives this growth, final over initial equity, in so many sessions.

    None without sessions, for equity below 0, and where so short a run has no year that a number could tell.
    """
    if sessions == 0 or growth < 0:
        return None
    yearly = float(growth ** (Decimal(TRADING_DAYS_PER_YEAR) / sessions) - 1)
    return yearly if isfinite(yearly) else None


def longest_drawdown(equity: Sequence[Decimal]) -> int:
    """The largest number of values in a row below the highest one before them."""
    peak, current, longest = equity[0], 0, 0
    for value in equity:
        peak, current = (value, 0) if value >= peak else (peak, current + 1)
        longest = max(longest, current)
    return longest


def longest_streak(hits: Iterable[bool]) -> int:
    """The largest number of hits in a row."""
    return max((sum(1 for _ in run) for hit, run in groupby(hits) if hit), default=0)


def exposure(trades: Iterable[Trade], sessions: Sequence[Session], equity: Sequence[Decimal]) -> float:
    """Dollars in positions, at entry prices, over dollars of equity, both times how long: an average over the sessions.

    `equity` is that at the start of each session (and may go on). 0 without any.
    """
    closes = [session.close for session in sessions]
    held = sum(
        (
            trade.entry_price * trade.qty * _seconds(span)
            for trade in trades
            for span in _within(trade.entry_at, trade.exit_at, sessions, closes)
        ),
        ZERO,
    )
    available = sum(
        (before * _seconds(session.close - session.open) for before, session in zip(equity, sessions, strict=False)),
        ZERO,
    )
    return float(held / available) if available > 0 else 0.0


def time_in_market(trades: Iterable[Trade], sessions: Sequence[Session]) -> float:
    """Share of the sessions' time in which at least one position was open; 0 without sessions."""
    closes = [session.close for session in sessions]
    held = sum((span for start, end in _united(trades) for span in _within(start, end, sessions, closes)), NO_TIME)
    total = sum((session.close - session.open for session in sessions), NO_TIME)
    return held / total if total else 0.0


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, ZERO) / len(values)


def _deviation(values: Sequence[Decimal] | None) -> Decimal | None:
    """The sample deviation; exactly 0 where all values are equal, None under two of them."""
    if values is None or len(values) < 2:
        return None
    if min(values) == max(values):
        return ZERO
    mean = _mean(values)
    return (sum(((value - mean) ** 2 for value in values), ZERO) / (len(values) - 1)).sqrt()


def _united(trades: Iterable[Trade]) -> Iterator[tuple[datetime, datetime]]:
    """The spans in which any trade was open, in order."""
    start = end = None
    for entry_at, exit_at in sorted((trade.entry_at, trade.exit_at) for trade in trades):
        if start is None or end is None or entry_at > end:
            if start is not None and end is not None:
                yield start, end
            start, end = entry_at, exit_at
        else:
            end = max(end, exit_at)
    if start is not None and end is not None:
        yield start, end


def _within(
    start: datetime, end: datetime, sessions: Sequence[Session], closes: Sequence[datetime]
) -> Iterator[timedelta]:
    """How much of a span lies in each session it touches; `closes` are those of the sessions."""
    for index in range(bisect_right(closes, start), len(sessions)):
        session = sessions[index]
        if session.open >= end:
            return
        yield min(end, session.close) - max(start, session.open)


def _seconds(span: timedelta) -> int:
    return span // SECOND
