"""What Velez tells a backtest in advance, on whole columns, is what it says candle by candle."""

import random
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backtests.history import History, history_of
from orders.lifecycle import Side
from tests.core.test_leaps import random_walk
from trading.live import calendar
from trading.strategies import Velez
from trading.strategy import Holding

SESSIONS = calendar.sessions(date(2024, 3, 7), date(2024, 3, 12))
PERCENTS = ["0", "10", "33.3", "50", "66.7", "14.285714285714285714"]


@st.composite
def strategies(draw: st.DrawFn) -> Velez:
    return Velez(
        "AAPL",
        {
            "sma_fast": draw(st.integers(1, 3)),
            "sma_slow": draw(st.sampled_from([4, 8, 15])),
            "allow_short": draw(st.booleans()),
            "max_run_candles": draw(st.integers(1, 4)),
            "tightness_threshold_pct": Decimal(draw(st.sampled_from(["0.5", "2", "1.333333333333333333"]))),
            "strong_candle_body_pct": Decimal(draw(st.sampled_from(PERCENTS))),
            "doji_threshold_pct": Decimal(draw(st.sampled_from(PERCENTS))),
        },
    )


def history(seed: int, *, missing: float) -> History:
    bars = random_walk("AAPL", SESSIONS, random.Random(seed), missing=missing, volatility=12)
    return history_of(bars, (), SESSIONS)


def columns(of: History, velez: Velez) -> tuple[Any, Any]:
    wanted = {"interval_minutes": 2, "grace_seconds": 90}
    averages = of.averages(**wanted, fast=velez.parameters["sma_fast"], slow=velez.parameters["sma_slow"])
    return of.steps(**wanted).candles, averages


@settings(max_examples=25, deadline=None)
@given(velez=strategies(), seed=st.integers(0, 2**32), missing=st.sampled_from([0.0, 0.1]))
def test_candidates_are_exactly_the_signals(velez: Velez, seed: int, missing: float) -> None:
    candles, averages = columns(history(seed, missing=missing), velez)
    signals = []
    for place in range(len(candles)):
        about = candles.candle(place), averages.indicators(place)
        is_short = velez.parameters["allow_short"] and velez.should_short(*about)
        signals.append(velez.should_long(*about) or is_short)
    found = velez.candidates(candles, averages)
    assert found is not None
    assert found.tolist() == signals


@settings(max_examples=60, deadline=None)
@given(velez=strategies(), seed=st.integers(0, 2**32), side=st.sampled_from(Side), steps=st.lists(st.integers(1, 40)))
def test_what_is_foreseen_and_skipped_is_as_if_it_had_been_told(
    velez: Velez, seed: int, side: Side, steps: list[int]
) -> None:
    """Two positions are held over the same candles: one told of each, the other of those that can come to anything."""
    candles, averages = columns(history(seed, missing=0.0), velez)
    told = Velez("AAPL", velez.parameters)
    place = 0
    for step in steps:
        end = min(place + step, len(candles))
        foresight = velez.foresee(candles, first=place, end=end, side=side)
        assert place <= foresight.place <= end
        for quiet in range(place, foresight.place):
            assert managed(told, candles, averages, quiet, side) == (None, False)
        velez.skip(foresight)
        if foresight.place < end:
            wish = managed(told, candles, averages, foresight.place, side)
            assert managed(velez, candles, averages, foresight.place, side) == wish != (None, False)
            if wish[1]:
                told.position_closed()
                velez.position_closed()
        place = min(foresight.place + 1, end)


@settings(max_examples=40, deadline=None)
@given(velez=strategies(), seed=st.integers(0, 2**32), side=st.sampled_from(Side), first=st.integers(0, 600))
def test_the_outlook_on_a_position_is_what_managing_it_comes_to(
    velez: Velez, seed: int, side: Side, first: int
) -> None:
    candles, averages = columns(history(seed, missing=0.02), velez)
    expected: list[tuple[int, Decimal | None]] = []
    leaves = False
    for place in range(first, len(candles)):
        stop_price, leaves = managed(velez, candles, averages, place, side)
        expected += [(place, stop_price)] if stop_price is not None else []
        if leaves:
            expected.append((place, None))
            break
    foreseen = Velez("AAPL", velez.parameters).outlook(candles, first=first, side=side)
    assert foreseen is not None
    assert list(islice(foreseen, len(expected))) == expected
    if not leaves:
        assert next(foreseen, None) is None


def managed(velez: Velez, candles: Any, averages: Any, place: int, side: Side) -> tuple[Decimal | None, bool]:
    """The new stop, if it wants one, and whether it wants to leave."""
    candle, known = candles.candle(place), averages.indicators(place)
    holding = Holding(
        side=side,
        qty=Decimal(1),
        avg_entry_price=candle.close,
        current_price=candle.close,
        unrealized_pnl=Decimal(0),
        stop_price=None,
    )
    return velez.should_update_stop(candle, holding, known), velez.should_exit(candle, holding, known)
