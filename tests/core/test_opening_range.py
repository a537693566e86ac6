"""The opening range: what it measures, which close breaks it, where the orders go, and when it leaves.

Candles are one minute and the range is the first five, so that 99 to 101 is broken by the first close above 101. The
day before rises or falls evenly, which makes the trend.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backtests.desk import Result
from backtests.runner import days_of, run
from orders.lifecycle import Side
from orders.portfolio import Trade
from trading.exchange import Exchange
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.messages import BarDelivered, DecisionRecorded, HistoryDelivered, SessionStarted, SubmitOrder
from trading.settings import TraderSettings
from trading.strategies.opening_range import OpeningRange
from trading.strategies.velez import Velez
from trading.trader import Trader
from trading.warmup import WarmUp

FRIDAY, MONDAY, TUESDAY = calendar.sessions(date(2024, 3, 1), date(2024, 3, 5))
RANGE = ["100 101 99 100"] * 5
INSIDE = "100 100.5 99.5 100"
ABOVE = "100.5 101.5 100.5 101.2"  # closes above 101; its high is 101.5
BELOW = "99.5 99.5 98.5 98.8"
FAST, SLOW = 5, 20


def minutes(rows: Iterable[str], *, session: Session = MONDAY, start: int = 0, symbol: str = "AAPL") -> list[Bar]:
    """Bars of consecutive minutes, "open high low close" each; "-" is a minute without a bar."""
    found = []
    for minute, row in enumerate(rows, start=start):
        if row != "-":
            opened, high, low, close = map(Decimal, row.split())
            stamp = session.open + minute * MINUTE
            found.append(Bar(symbol=symbol, timestamp=stamp, open=opened, high=high, low=low, close=close, volume=1000))
    return found


def yesterday(direction: int, symbol: str = "AAPL") -> WarmUp:
    """A day that rises (or falls) by 10 cents a minute to 100 dollars, enough for both averages to be known."""
    length = (FRIDAY.close - FRIDAY.open) // MINUTE
    closes = [Decimal(100) - direction * (length - 1 - minute) * Decimal("0.10") for minute in range(length)]
    bars = minutes((f"{close} {close} {close} {close}" for close in closes), session=FRIDAY, symbol=symbol)
    return WarmUp(bars=tuple(bars), sessions=(FRIDAY,), is_enough=True)


def parameters(**changed: Any) -> dict[str, Any]:
    small = {"candle_interval_minutes": 1, "sma_fast": FAST, "sma_slow": SLOW, "range_minutes": 5}
    return {**OpeningRange.hyperparameters, **small, **changed}


def trader(strategies: Mapping[str, Mapping[str, Any]], symbols: Iterable[str] = ("AAPL",)) -> Trader:
    return Trader(
        settings=TraderSettings(strategies=strategies),
        symbols=symbols,
        cash=Decimal(25_000),
        account_id="test",
        asks_broker=False,
    )


def backtest(bars: list[Bar], *, trend: int = 1, **changed: Any) -> Result:
    by_symbol: dict[str, list[Bar]] = {}
    for bar in bars:
        by_symbol.setdefault(bar.symbol, []).append(bar)
    return run(
        trader=trader({"opening_range": parameters(**changed)}, by_symbol),
        exchange=Exchange(),
        days=days_of(by_symbol, [MONDAY, TUESDAY]),
        warm_ups={symbol: yesterday(trend, symbol) for symbol in by_symbol},
    )


def only(result: Result) -> Trade:
    assert len(result.trades) == 1, result.trades
    return result.trades[0]


def at(minute: int, session: Session = MONDAY) -> datetime:
    return session.open + timedelta(minutes=minute)


# --- one breakout -----------------------------------------------------------------------------------------------------


def test_the_first_close_above_the_range_is_bought_at_its_high_with_the_stop_in_the_middle_of_the_range() -> None:
    trade = only(backtest(minutes([*RANGE, INSIDE, ABOVE, "101.2 101.8 101.2 101.6", "101 101 99.9 100"])))
    assert (trade.side, trade.entry_price, trade.entry_at) == (Side.LONG, Decimal("101.51"), at(7))
    assert trade.initial_stop_price == Decimal("100.00")
    assert (trade.exit_price, trade.exit_reason) == (Decimal("99.99"), "stop_loss")
    assert trade.strategy == "opening_range"


def test_the_stop_lies_where_the_setting_says() -> None:
    bars = minutes([*RANGE, ABOVE, "101.2 101.8 101.2 101.6"])
    assert only(backtest(bars, stop_range_pct=Decimal(100))).initial_stop_price == Decimal("99.00")
    assert only(backtest(bars, stop_range_pct=Decimal(10))).initial_stop_price == Decimal("100.80")


def test_it_leaves_at_the_first_close_at_the_target() -> None:
    # Bought at 101.51; the range is 2 wide and the target 200 % of that away: 105.51.
    up = ["101.2 101.8 101.2 101.6", "102 105.6 102 105.5", "105.5 106 105.5 105.6", INSIDE]
    trade = only(backtest(minutes([*RANGE, ABOVE, *up])))
    assert (trade.exit_reason, trade.exit_at, trade.exit_price) == ("target", at(9), Decimal("105.59"))


def test_half_way_to_the_target_the_stop_moves_to_the_entrys_price() -> None:
    up = ["101.2 101.8 101.2 101.6", "102 103.6 102 103.52", "103 103 101 101"]
    trade = only(backtest(minutes([*RANGE, ABOVE, *up])))
    assert (trade.exit_reason, trade.exit_price) == ("trailing_stop", Decimal("101.50"))
    short_of_it = ["101.2 101.8 101.2 101.6", "102 103.6 102 103.5", "103 103 99 99"]
    assert only(backtest(minutes([*RANGE, ABOVE, *short_of_it]))).exit_reason == "stop_loss"


def test_a_short_is_the_mirror_image() -> None:
    bars = minutes([*RANGE, BELOW, "98.8 98.8 98 98.2", "98 98 94 94.4"])
    trade = only(backtest(bars, trend=-1, allow_short=True))
    assert (trade.side, trade.entry_price, trade.initial_stop_price) == (
        Side.SHORT,
        Decimal("98.49"),
        Decimal("100.00"),
    )
    assert (trade.exit_reason, trade.exit_price) == ("target", Decimal("94.41"))
    assert backtest(bars, trend=-1).trades == ()


# --- each condition failing once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([*RANGE, INSIDE, "100 101.5 100 101"], "a close at the range's high is not beyond it"),
        ([*RANGE[:4], "100 101 99 100.5", INSIDE, "100 102 100 100.9"], "a high beyond it is no close"),
        ([*RANGE[:4], ABOVE, "101 101.4 101 101.4"], "a close within the range's minutes is part of the range"),
        (["-"] * 5 + [INSIDE, ABOVE, "101 102 101 102"], "without a bar in the first minutes there is no range"),
    ],
)
def test_no_signal(rows: list[str], why: str) -> None:
    assert backtest(minutes(rows)).decisions == {}, why


def test_against_the_trend_nothing_is_bought() -> None:
    bars = minutes([*RANGE, ABOVE, "101.2 101.8 101.2 101.6"])
    assert len(backtest(bars, trend=1).trades) == 1
    assert backtest(bars, trend=-1).decisions == {}


def test_only_the_first_close_beyond_the_range_counts_and_a_new_day_has_a_range_of_its_own() -> None:
    again = [INSIDE, ABOVE, INSIDE, ABOVE]  # the first entry expires unfilled, and the day's chance is gone
    monday = minutes([*RANGE, ABOVE, *again])
    higher = ["110 111 109 110"] * 5
    tuesday = minutes([*higher, ABOVE, "110 111.5 110 111.2", "111.2 112 111 112"], session=TUESDAY)
    result = backtest([*monday, *tuesday])
    assert result.decisions == {"": 2}
    trade = only(result)
    assert (trade.entry_at, trade.initial_stop_price) == (at(7, TUESDAY), Decimal("110.00"))


def test_a_candle_belongs_to_the_range_if_it_begins_within_its_minutes() -> None:
    rows = [*RANGE, "100 103 100 102", "102 102 101 101.5", "101.5 104 101.5 103.5", "103 104 103 104"]
    assert backtest(minutes(rows), range_minutes=6).trades[0].entry_at == at(8)


# --- restart and company ----------------------------------------------------------------------------------------------


def test_after_a_restart_within_the_day_history_gives_the_range_back() -> None:
    engine = trader({"opening_range": parameters()})
    now = at(6)
    history = yesterday(1)
    today = minutes([*RANGE, INSIDE])
    engine.handle(SessionStarted(now=now, session=MONDAY))
    engine.handle(
        HistoryDelivered(now=now, symbol="AAPL", bars=(*history.bars, *today), rebuilds=True, sessions=(FRIDAY, MONDAY))
    )
    (bar,) = minutes([ABOVE], start=6)
    answers = engine.handle(BarDelivered(now=bar.delivered_at, bar=bar))
    (order,) = [answer.order for answer in answers if isinstance(answer, SubmitOrder)]
    assert (order.stop_price, order.planned_stop_price) == (Decimal("101.50"), Decimal("100.00"))
    (decision,) = [answer for answer in answers if isinstance(answer, DecisionRecorded)]
    assert all(condition.met for condition in decision.conditions)
    assert decision.conditions[0].needed == "outside 99 to 101"


def test_it_shares_the_capital_with_velez_and_each_leaves_by_its_own_rules() -> None:
    """Velez holds AAPL while its range is broken: the symbol is taken. Nobody holds TSLA: the range is traded."""
    velez = {
        **Velez.hyperparameters,
        "candle_interval_minutes": 1,
        "sma_fast": FAST,
        "sma_slow": SLOW,
        "tightness_threshold_pct": Decimal(5),
    }
    quiet = ["100 101 99 100"] * 3
    rising = ["100 100.6 100 100.6", "100.6 101 100.4 101"]  # strong and green: Velez buys at 100.6
    aapl = minutes([*quiet, *rising, ABOVE, "101.2 101.8 101.2 101.6"])
    tsla = minutes([*RANGE, "101 101.5 100.9 101.01", "101.2 101.8 101.2 101.3"], symbol="TSLA")
    bars = {"AAPL": aapl, "TSLA": tsla}
    result = run(
        trader=trader({"velez": velez, "opening_range": parameters()}, bars),
        exchange=Exchange(),
        days=days_of(bars, [MONDAY]),
        warm_ups={"AAPL": yesterday(1), "TSLA": yesterday(1, "TSLA")},
    )
    assert {(trade.symbol, trade.strategy) for trade in result.trades} == {
        ("AAPL", "velez"),
        ("TSLA", "opening_range"),
    }
    assert result.final_equity == Decimal(25_000) + sum(trade.pnl for trade in result.trades)
