"""A result taken apart by month, symbol and exit reason."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from backtests.breakdown import by_exit_reason, by_month, by_symbol
from orders.lifecycle import Side
from orders.portfolio import Trade
from trading.market import Session

OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)


def trade(symbol: str, pnl: str, reason: str) -> Trade:
    return Trade(
        correlation_id="c",
        symbol=symbol,
        side=Side.LONG,
        qty=Decimal(10),
        entry_price=Decimal(100),
        exit_price=Decimal(100) + Decimal(pnl) / 10,
        entry_at=OPEN,
        exit_at=OPEN + timedelta(minutes=1),
        pnl=Decimal(pnl),
        pnl_pct=Decimal(pnl) / 10,
        commission=Decimal(0),
        strategy="velez",
        exit_reason=reason,
        initial_stop_price=None,
        planned_risk=None,
    )


TRADES = [
    trade("TSLA", "10", "max_run"),
    trade("AAPL", "-5", "stop_loss"),
    trade("AAPL", "0", "stop_loss"),
    trade("TSLA", "-4", "stop_loss"),
    trade("TSLA", "2", "end_of_day"),
]


def sessions(*days: str) -> list[Session]:
    return [Session(date=date.fromisoformat(day), open=OPEN, close=OPEN) for day in days]


def test_symbols_come_in_the_order_of_the_watchlist_and_only_if_traded() -> None:
    aapl, tsla = by_symbol(TRADES, ["AAPL", "MSFT", "TSLA"])
    assert (aapl.name, aapl.trades, aapl.winners, aapl.losers, aapl.pnl) == ("AAPL", 2, 0, 1, Decimal(-5))
    assert (aapl.average_pnl, aapl.win_rate, aapl.profit_factor) == (Decimal("-2.5"), 0, 0)
    assert (tsla.name, tsla.trades, tsla.winners, tsla.losers, tsla.pnl) == ("TSLA", 3, 2, 1, Decimal(8))
    assert tsla.win_rate == pytest.approx(2 / 3)
    assert tsla.profit_factor == 3


def test_exit_reasons_come_by_how_often_they_occurred() -> None:
    groups = by_exit_reason(TRADES)
    assert [(group.name, group.trades, group.pnl) for group in groups] == [
        ("stop_loss", 3, Decimal(-9)),
        ("end_of_day", 1, Decimal(2)),
        ("max_run", 1, Decimal(10)),
    ]
    assert groups[1].profit_factor is None  # nothing was lost


def test_a_month_is_measured_against_the_end_of_the_one_before() -> None:
    days = sessions("2024-01-30", "2024-01-31", "2024-02-01", "2024-04-01")
    january, february, april = by_month(Decimal(100), days, [Decimal(v) for v in (105, 110, 99, 99)])
    assert (january.year, january.month, january.sessions) == (2024, 1, 2)
    assert january.pnl == 10
    assert january.change == pytest.approx(0.1)
    assert (february.month, february.pnl) == (2, Decimal(-11))
    assert february.change == pytest.approx(-0.1)
    assert (april.month, april.pnl, april.change) == (4, Decimal(0), 0)


def test_a_month_that_begins_with_nothing_has_no_return() -> None:
    _, february = by_month(Decimal(100), sessions("2024-01-31", "2024-02-01"), [Decimal(0), Decimal(5)])
    assert (february.pnl, february.change) == (Decimal(5), None)


def test_no_sessions_have_no_months() -> None:
    assert by_month(Decimal(100), [], []) == []
