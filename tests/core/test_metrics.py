"""The figures of a backtest against numbers worked out by hand, and against an independent library."""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtests.metrics import (
    Drawdown,
    Metrics,
    annual_volatility,
    cagr,
    daily_returns,
    exposure,
    longest_drawdown,
    longest_streak,
    measure,
    sharpe_ratio,
    sortino_ratio,
    time_in_market,
)
from orders.lifecycle import Side
from orders.portfolio import Trade
from trading.market import Session

CAPITAL = Decimal(25000)
OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
MONDAY = Session(date=date(2024, 3, 4), open=OPEN, close=OPEN + timedelta(minutes=390))
TUESDAY = Session(date=date(2024, 3, 5), open=OPEN + timedelta(days=1), close=OPEN + timedelta(days=1, minutes=390))


def trade(pnl: str, *, minutes: tuple[int, int] = (0, 1), commission: str = "0", symbol: str = "AAPL") -> Trade:
    """A trade of $1,000 with this result, held between these minutes after Monday's open; $10 were at risk."""
    return Trade(
        correlation_id="c",
        symbol=symbol,
        side=Side.LONG,
        qty=Decimal(10),
        entry_price=Decimal(100),
        exit_price=Decimal(100) + (Decimal(pnl) + Decimal(commission)) / 10,
        entry_at=OPEN + timedelta(minutes=minutes[0]),
        exit_at=OPEN + timedelta(minutes=minutes[1]),
        pnl=Decimal(pnl),
        pnl_pct=Decimal(pnl) / 10,
        commission=Decimal(commission),
        strategy="velez",
        exit_reason="stop_loss",
        initial_stop_price=Decimal(99),
        planned_risk=Decimal(10),
    )


def figures(*pnls: str, daily_equity: str = "", max_drawdown: str = "0", commission: str = "0") -> Metrics:
    """The metrics of trades with these results."""
    equity = [Decimal(value) for value in daily_equity.split()]
    return measure(
        initial_capital=CAPITAL,
        final_equity=equity[-1] if equity else CAPITAL,
        daily_equity=equity,
        max_drawdown=Decimal(max_drawdown),
        trades=[trade(pnl, commission=commission) for pnl in pnls],
        sessions=[MONDAY, TUESDAY],
    )


def returns(text: str) -> list[Decimal]:
    return [Decimal(value) for value in text.split()]


def test_a_run_without_trades_leaves_everything_undefined_that_divides_by_them() -> None:
    result = figures(daily_equity="25000 25000")
    assert result.total_trades == 0
    assert result.total_return == 0
    assert result.final_equity == CAPITAL
    assert (result.win_rate, result.profit_factor, result.sharpe_ratio) == (None, None, None)
    assert (result.average_win, result.average_loss, result.expectancy) == (None, None, None)
    assert (result.best_trade, result.worst_trade, result.average_r, result.average_duration_seconds) == (None,) * 4
    assert (result.max_drawdown, result.exposure, result.time_in_market) == (0, 0, 0)
    assert (result.longest_winning_streak, result.longest_losing_streak) == (0, 0)
    assert (result.sortino_ratio, result.cagr, result.annual_volatility) == (None, 0, 0)


def test_three_wins_a_loss_and_a_draw_by_hand() -> None:
    result = figures("30", "20.50", "-25.25", "0", "10", daily_equity="25010 25035.25", commission="0.10")
    assert result.total_return == pytest.approx(0.00141)
    assert result.win_rate == 0.6  # the draw is a trade, but no win
    assert (result.total_trades, result.winners, result.losers, result.sessions) == (5, 3, 1, 2)
    assert (result.gross_profit, result.gross_loss) == (Decimal("60.50"), Decimal("25.25"))
    assert result.profit_factor == pytest.approx(2.396039603960396)
    assert result.average_win == Decimal("60.50") / 3
    assert result.average_loss == Decimal("25.25")
    assert result.expectancy == Decimal("7.05")
    assert (result.best_trade, result.worst_trade) == (Decimal(30), Decimal("-25.25"))
    assert result.average_r == pytest.approx(0.705)
    assert (result.longest_winning_streak, result.longest_losing_streak) == (2, 1)
    assert result.average_duration_seconds == 60
    assert result.commission == Decimal("0.50")


def test_without_a_loss_the_profit_factor_is_undefined_not_infinite() -> None:
    assert figures("10", "20").profit_factor is None


def test_with_losses_alone_the_profit_factor_is_zero() -> None:
    assert figures("-10").profit_factor == 0


def test_sharpe_ratio_by_hand() -> None:
    # 25000 -> 25250 -> 24745 -> 25239.9: returns +1 %, -2 %, +2 %. Mean 1/300, squared distances add up to 26/3 e-4,
    # half of that is the sample variance.
    daily = daily_returns([CAPITAL, *returns("25250 24745 25239.9")])
    assert daily == returns("0.01 -0.02 0.02")
    assert sharpe_ratio(daily) == pytest.approx((1 / 300) / math.sqrt(26 / 3 * 1e-4 / 2) * math.sqrt(252), rel=1e-14)


def test_the_first_day_counts_against_the_initial_capital() -> None:
    assert figures(daily_equity="25250 24745 25239.9").sharpe_ratio == pytest.approx(math.sqrt(252 / 39), rel=1e-14)


@pytest.mark.parametrize("days", ["", "0.01", "0 0 0", "0.01 0.01 0.01"])
def test_under_two_days_or_without_deviation_the_sharpe_ratio_is_undefined(days: str) -> None:
    assert sharpe_ratio(returns(days)) is None


def test_equal_returns_that_no_decimal_holds_have_no_deviation() -> None:
    third = Decimal(1) / 3
    assert sharpe_ratio([third] * 7) is None


def test_a_lost_account_has_no_sharpe_ratio() -> None:
    assert sharpe_ratio(daily_returns(returns("25000 0 100 200"))) is None
    assert daily_returns(returns("25000 0")) == [Decimal(-1)]


def test_sortino_ratio_by_hand() -> None:
    # +1 %, -2 %, +2 %: the mean is 1/300, the only loss gives a downside deviation of root(4e-4 / 3).
    assert sortino_ratio(returns("0.01 -0.02 0.02")) == pytest.approx((1 / 300) / math.sqrt(4e-4 / 3) * math.sqrt(252))


@pytest.mark.parametrize("days", ["", "-0.01", "0 0", "0.01 0 0.02"])
def test_without_a_loss_the_sortino_ratio_is_undefined_not_infinite(days: str) -> None:
    assert sortino_ratio(returns(days)) is None


def test_a_year_is_252_sessions() -> None:
    assert cagr(Decimal("1.21"), 504) == pytest.approx(0.1)
    assert cagr(Decimal("1.1"), 126) == pytest.approx(0.21)
    assert cagr(Decimal(0), 10) == -1


def test_a_yearly_return_that_no_number_can_tell_is_undefined() -> None:
    assert cagr(Decimal(1000), 1) is None
    assert cagr(Decimal(-1), 10) is None
    assert cagr(Decimal(1), 0) is None


cents_lists = st.lists(st.integers(min_value=2_000_000, max_value=3_000_000), min_size=2, max_size=60)


@given(cents_lists)
def test_every_figure_of_daily_returns_agrees_with_an_independent_library(cents: list[int]) -> None:
    equity = [CAPITAL, *(Decimal(value) / 100 for value in cents)]
    ours = daily_returns(equity)
    values = np.array([float(value) for value in equity])
    theirs = values[1:] / values[:-1] - 1

    def about(value: float) -> object:
        return pytest.approx(value, rel=1e-6, abs=1e-9)

    assert annual_volatility(ours) == about(empyrical.annual_volatility(theirs))
    assert cagr(equity[-1] / CAPITAL, len(cents)) == about(empyrical.cagr(theirs))
    assert float(drawdown(" ".join(map(str, equity[1:])))) == about(-empyrical.max_drawdown(theirs))
    sharpe, sortino = sharpe_ratio(ours), sortino_ratio(ours)
    if sharpe is None:
        assert theirs.std() == pytest.approx(0, abs=1e-12)
    else:
        assert sharpe == about(empyrical.sharpe_ratio(theirs))
    if sortino is None:
        assert theirs.min() >= 0
    else:
        assert sortino == about(empyrical.sortino_ratio(theirs))


def drawdown(marks: str) -> Decimal:
    measured = Drawdown(CAPITAL)
    for mark in marks.split():
        measured.mark(Decimal(mark))
    return measured.largest


@pytest.mark.parametrize(
    ("marks", "fraction"),
    [
        ("", "0"),
        ("26000 27000", "0"),
        ("24000 26000", "0.04"),  # the initial capital is the first peak
        ("50000 45000 60000 57000", "0.1"),  # the larger fraction
        ("40000 39000 60000 58600", "0.025"),  # not the larger sum
        ("20000 25000 15000", "0.4"),  # a peak regained is the same peak
    ],
)
def test_drawdown_is_the_largest_fall_from_a_peak_as_a_fraction(marks: str, fraction: str) -> None:
    assert drawdown(marks) == Decimal(fraction)


@pytest.mark.parametrize(
    ("equity", "closes"),
    [("100", 0), ("100 101 102", 0), ("100 99 100", 1), ("100 99 98 101 100 99 98", 3), ("100 100 99", 1)],
)
def test_the_longest_drawdown_counts_closes_below_the_highest_one_before(equity: str, closes: int) -> None:
    assert longest_drawdown(returns(equity)) == closes


@pytest.mark.parametrize(("hits", "longest"), [("", 0), ("0", 0), ("1", 1), ("110111", 3), ("0110", 2)])
def test_a_streak_is_unbroken(hits: str, longest: int) -> None:
    assert longest_streak(hit == "1" for hit in hits) == longest


def test_time_in_the_market_counts_overlapping_trades_once() -> None:
    trades = [trade("1", minutes=(0, 60)), trade("1", minutes=(30, 90), symbol="MSFT"), trade("1", minutes=(40, 50))]
    assert time_in_market(trades, [MONDAY]) == pytest.approx(90 / 390)
    assert time_in_market([*trades, trade("1", minutes=(100, 130))], [MONDAY]) == pytest.approx(120 / 390)


def test_time_in_the_market_counts_a_night_only_within_the_sessions() -> None:
    overnight = trade("1", minutes=(380, 24 * 60 + 29))
    assert time_in_market([overnight], [MONDAY, TUESDAY]) == pytest.approx((10 + 29) / 780)


def test_time_in_the_market_without_sessions_is_none_at_all() -> None:
    assert time_in_market([], []) == 0
    assert exposure([], [], [CAPITAL]) == 0


def test_exposure_is_what_was_invested_of_what_there_was() -> None:
    # $1,000 for 195 of 390 minutes of $25,000; on the second day for 39 of 390 minutes of $20,000.
    trades = [trade("1", minutes=(0, 195)), trade("1", minutes=(24 * 60, 24 * 60 + 39))]
    expected = (1000 * 195 + 1000 * 39) / (25_000 * 390 + 20_000 * 390)
    assert exposure(trades, [MONDAY, TUESDAY], [CAPITAL, Decimal(20_000), Decimal(1)]) == pytest.approx(expected)
    both = [trade("1", minutes=(0, 390)), trade("1", minutes=(0, 390), symbol="MSFT")]
    assert exposure(both, [MONDAY], [CAPITAL]) == pytest.approx(2000 / 25_000)
