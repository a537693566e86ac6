"""The synthetic market: the same for the same seed, sane in its figures, and worth trading on."""

import statistics
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

import trading.strategies.velez  # noqa: F401  registers the strategy
from backtests.desk import Result
from backtests.runner import days_of, run
from trading.exchange import Exchange
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.settings import TraderSettings
from trading.simulator.synthetic import DEFAULT_SYMBOLS, FIRST_DATE, SyntheticBars
from trading.trader import Trader
from trading.warmup import history_needs, warm_up

WEEK = calendar.sessions(FIRST_DATE, FIRST_DATE + timedelta(days=6))
DAY = WEEK[0]


def test_the_first_session_is_a_full_one_and_the_clock_starts_at_ten_in_new_york() -> None:
    source = SyntheticBars(seed=1)
    assert DAY.close - DAY.open == calendar.FULL_SESSION
    assert source.first == DAY.open + timedelta(minutes=30)


def test_a_seed_gives_the_same_bars_whatever_was_made_before() -> None:
    one, other = SyntheticBars(seed=7), SyntheticBars(seed=7, symbols=("MSFT",))
    for session in reversed(WEEK):
        other.session_bars("TSLA", session)
    assert [one.session_bars("TSLA", s) for s in WEEK] == [other.session_bars("TSLA", s) for s in WEEK]


def test_these_bars_never_change() -> None:
    """A market that plays differently after an upgrade would contradict its account's history."""
    bars = SyntheticBars(seed=1).session_bars("AAPL", DAY)
    assert [_told(bar) for bar in (bars[0], bars[200], bars[-1])] == [
        "200.87 200.89 200.71 200.74 370143",
        "200.71 200.71 200.61 200.64 106643",
        "200.44 200.46 200.42 200.45 170356",
    ]


def test_other_seeds_symbols_and_days_are_different() -> None:
    paths = {
        tuple(bar.close for bar in SyntheticBars(seed=seed).session_bars(symbol, session))
        for seed in (1, 2)
        for symbol in ("AAPL", "MSFT")
        for session in WEEK[:2]
    }
    assert len(paths) == 8


def test_every_minute_is_there_and_sound() -> None:
    bars = SyntheticBars(seed=3).session_bars("NVDA", DAY)
    assert [bar.timestamp for bar in bars] == [DAY.open + minute * MINUTE for minute in range(390)]
    assert all(bar.fault is None for bar in bars)
    assert all(
        bar.volume > 0 and price == price.quantize(Decimal("0.01")) for bar in bars for price in (bar.open, bar.close)
    )


def test_a_half_day_is_half_as_long() -> None:
    half = calendar.session_on(date(2025, 7, 3))
    assert half is not None
    assert len(SyntheticBars(seed=1).session_bars("AAPL", half)) == 210


@pytest.mark.parametrize("symbol", [*DEFAULT_SYMBOLS, "MSFT", "BRK.B"])
def test_a_day_has_sane_figures(symbol: str) -> None:
    source = SyntheticBars(seed=5)
    days = [source.session_bars(symbol, session) for session in WEEK]
    moves = [float(bar.close / bar.open - 1) * 100 for bars in days for bar in bars]
    assert 0.02 < statistics.pstdev(moves) < 0.15  # percent in a minute, as in real shares
    ranges = [float((max(b.high for b in bars) - min(b.low for b in bars)) / bars[0].open) * 100 for bars in days]
    assert all(0.3 < each < 8 for each in ranges)
    gaps = [abs(float(after[0].open / before[-1].close - 1)) * 100 for before, after in pairwise(days)]
    assert max(gaps) < 5
    first, middle, last = (_volume(days, start) for start in (0, 180, 360))
    assert first > 1.5 * middle < 1.5 * last  # busy at both ends


def test_prices_stay_near_their_level_for_years() -> None:
    source = SyntheticBars(seed=1)
    years = calendar.sessions(FIRST_DATE, date(2030, 1, 1))[::60]
    closes = [source.session_bars("AAPL", session)[-1].close for session in years]
    assert Decimal(140) < min(closes) < max(closes) < Decimal(260)


def test_sessions_go_on_and_history_reaches_back_far_enough() -> None:
    source = SyntheticBars(seed=1)
    assert source.next_session(DAY.open) == WEEK[1]
    assert len(source.sessions(date(2000, 1, 1), FIRST_DATE)) == 65
    assert source.next_session(calendar.sessions(date(2049, 12, 1), date(2049, 12, 31))[-2].open) is None


def test_any_ticker_can_be_traded_and_nothing_else() -> None:
    source = SyntheticBars(seed=1)
    assert source.knows("MSFT")
    assert not source.knows("not a ticker")


@pytest.mark.parametrize("seed", [1, 2, 42])
def test_the_strategy_finds_something_to_do_and_wins_and_loses(seed: int) -> None:
    result = _traded(seed, WEEK)
    signals = sum(result.decisions.values())
    assert signals / len(WEEK) > 20  # one every few minutes over the five symbols
    won = [trade for trade in result.trades if trade.pnl > 0]
    lost = [trade for trade in result.trades if trade.pnl < 0]
    assert len(won) >= 5
    assert len(lost) >= 5
    assert {"stop_loss", "trailing_stop", "max_run"} <= {trade.exit_reason for trade in result.trades}


def _traded(seed: int, sessions: Sequence[Session]) -> Result:
    source = SyntheticBars(seed=seed)
    before = calendar.previous_sessions(sessions[0].date, 3)
    trader = Trader(
        settings=TraderSettings(), symbols=source.symbols, cash=Decimal(25000), account_id="test", asks_broker=False
    )
    needs = history_needs(strategy for symbol, strategy, *_ in trader.lines() if symbol == source.symbols[0])

    def bars(symbol: str, those: Sequence[Session]) -> list[Bar]:
        return [bar for session in those for bar in source.session_bars(symbol, session)]

    return run(
        trader=trader,
        exchange=Exchange(),
        days=days_of({symbol: bars(symbol, sessions) for symbol in source.symbols}, sessions),
        warm_ups={symbol: warm_up(bars(symbol, before), before, needs) for symbol in source.symbols},
    )


def _volume(days: Sequence[Sequence[Bar]], start: int) -> float:
    return statistics.mean(bar.volume for bars in days for bar in bars[start : start + 30])


def _told(bar: Bar) -> str:
    return f"{bar.open} {bar.high} {bar.low} {bar.close} {bar.volume}"
