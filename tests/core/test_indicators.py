"""The running averages: exact where decimals are, and equal to what TA-Lib and pandas-ta make of real closes."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pandas_ta_classic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.real_bars import real_days
from trading.indicators import IndicatorCalculator, IndicatorSet


def run(closes: str, *, fast: int = 2, slow: int = 3) -> list[IndicatorSet]:
    calculator = IndicatorCalculator(fast=fast, slow=slow)
    return [calculator.add(Decimal(close)) for close in closes.split()]


def averages(fast: str | None, slow: str | None, prev_fast: str | None, prev_slow: str | None) -> IndicatorSet:
    """A set as anybody might build it from four averages."""
    values = [None if text is None else Decimal(text) for text in (fast, slow, prev_fast, prev_slow)]
    return IndicatorSet(
        sma_fast=values[0], sma_slow=values[1], prev_sma_fast=values[2], prev_sma_slow=values[3], bar_count=200
    )


class TestAverages:
    def test_an_average_is_unknown_until_there_are_enough_candles(self) -> None:
        told = [(one.sma_fast, one.sma_slow) for one in run("1 2 6 10")]
        assert told == [(None, None), (Decimal("1.5"), None), (4, 3), (8, 6)]

    def test_the_previous_averages_are_those_of_the_candle_before(self) -> None:
        told = [(one.prev_sma_fast, one.prev_sma_slow) for one in run("1 2 6 10")]
        assert told == [(None, None), (None, None), (Decimal("1.5"), None), (4, 3)]

    def test_candles_are_counted_up_to_the_slow_length(self) -> None:
        assert [one.bar_count for one in run("1 2 3 4 5")] == [1, 2, 3, 3, 3]

    def test_all_four_are_known_one_candle_after_the_slow_average(self) -> None:
        assert [one.all_known for one in run("1 2 3 4")] == [False, False, False, True]

    def test_by_default_the_averages_are_over_20_and_200_candles(self) -> None:
        calculator = IndicatorCalculator()
        sets = [calculator.add(Decimal(close)) for close in range(1, 202)]
        assert [one.sma_fast is not None for one in sets].index(True) == 19
        assert [one.sma_slow is not None for one in sets].index(True) == 199
        assert (sets[200].sma_fast, sets[200].sma_slow) == (Decimal("191.5"), Decimal("101.5"))

    def test_after_a_reset_nothing_is_remembered(self) -> None:
        calculator = IndicatorCalculator(fast=2, slow=3)
        first = [calculator.add(Decimal(close)) for close in (5, 6, 7, 8)]
        calculator.reset()
        assert [calculator.add(Decimal(close)) for close in (5, 6, 7, 8)] == first

    @pytest.mark.parametrize(("fast", "slow"), [(0, 5), (5, 5), (6, 5)])
    def test_the_fast_average_must_be_the_shorter_one(self, fast: int, slow: int) -> None:
        with pytest.raises(ValueError, match="must be shorter"):
            IndicatorCalculator(fast=fast, slow=slow)


class TestSpread:
    @pytest.mark.parametrize(
        ("fast", "slow", "prev_fast", "prev_slow", "words"),
        [
            ("101", "100", "100.5", "100", "positive rises"),
            ("101", "100", "101", "100", "positive"),
            ("101", "100", "102", "100", "positive falls"),
            ("100", "100", "99", "100", "rises"),
            ("99", "100", "99.5", "100", "negative falls"),
            ("99", "100", "98", "100", "negative rises"),
            (None, "100", "98", "100", ""),
            ("101", "100", None, "100", "positive"),
            ("101", "100", "98", None, "positive"),
        ],
    )
    def test_sign_and_direction(
        self, fast: str | None, slow: str | None, prev_fast: str | None, prev_slow: str | None, words: str
    ) -> None:
        one = averages(fast, slow, prev_fast, prev_slow)
        told = {
            "positive": one.spread_is_positive,
            "negative": one.spread_is_negative,
            "rises": one.spread_rises,
            "falls": one.spread_falls,
        }
        assert " ".join(word for word, holds in told.items() if holds) == words

    @pytest.mark.parametrize(
        ("fast", "close", "is_within"),
        [
            ("101.99", "100", True),
            ("102", "100", False),
            ("98.01", "100", True),
            ("98", "100", False),
            ("102", "101", True),
        ],
    )
    def test_two_percent_apart_is_not_within_two_percent(self, fast: str, close: str, *, is_within: bool) -> None:
        one = averages(fast, "100", "100", "100")
        assert one.spread_is_within(Decimal(2), of=Decimal(close)) is is_within

    def test_unknown_averages_are_not_within_anything(self) -> None:
        assert not averages(None, None, None, None).spread_is_within(Decimal(5), of=Decimal(100))

    @pytest.mark.parametrize(
        ("fast", "slow", "closes"),
        [(3, 6, "8 4 7 7 7 3 6"), (3, 7, "3 1 12 8 7 11 11 10"), (6, 7, "9 8 12 11 12 8 12 2")],
    )
    def test_an_unchanged_spread_is_seen_where_rounded_averages_would_show_a_change(
        self, fast: int, slow: int, closes: str
    ) -> None:
        latest = run(closes, fast=fast, slow=slow)[-1]
        assert latest.all_known
        by_hand = [latest.sma_fast, latest.sma_slow, latest.prev_sma_fast, latest.prev_sma_slow]
        now_fast, now_slow, before_fast, before_slow = (value for value in by_hand if value is not None)
        assert now_fast - now_slow != before_fast - before_slow
        assert (latest.spread_rises, latest.spread_falls) == (False, False)


@given(
    lengths=st.tuples(st.integers(min_value=1, max_value=8), st.integers(min_value=1, max_value=12)),
    closes=st.lists(st.decimals(min_value="0.0001", max_value="99999", places=4), min_size=1, max_size=40),
)
def test_every_comparison_is_that_of_exact_fractions(lengths: tuple[int, int], closes: list[Decimal]) -> None:
    fast, slow = lengths[0], lengths[0] + lengths[1]
    calculator = IndicatorCalculator(fast=fast, slow=slow)
    spreads: list[Fraction | None] = [None]
    for count, close in enumerate(closes, start=1):
        latest = calculator.add(close)
        known = count >= slow
        fast_average = Fraction(sum(map(Fraction, closes[max(0, count - fast) : count]))) / fast
        slow_average = Fraction(sum(map(Fraction, closes[max(0, count - slow) : count]))) / slow
        spreads.append(fast_average - slow_average if known else None)
        before, now = spreads[-2:]
        assert latest.spread_is_positive == (now is not None and now > 0)
        assert latest.spread_is_negative == (now is not None and now < 0)
        assert latest.spread_rises == (now is not None and before is not None and now > before)
        assert latest.spread_falls == (now is not None and before is not None and now < before)
        within = now is not None and abs(now) * 100 < 2 * Fraction(close)
        assert latest.spread_is_within(Decimal(2), of=close) == within
        if latest.sma_fast is not None:
            assert abs(Fraction(latest.sma_fast) - fast_average) < Fraction(1, 10**20)


@pytest.mark.parametrize("file", ["daytrading2025/TSLA.csv.gz", "stockbot2018/AMD.csv.gz", "pyalgotrade/SPY.csv.gz"])
@pytest.mark.parametrize(("fast", "slow"), [(20, 200), (7, 130)])
def test_on_real_closes_the_averages_are_those_of_pandas_ta(file: str, fast: int, slow: int) -> None:
    closes = [bar.close for day in real_days(file).values() for bar in day]
    calculator = IndicatorCalculator(fast=fast, slow=slow)
    sets = [calculator.add(close) for close in closes]
    floats = np.array([float(close) for close in closes])
    for length, ours in ((fast, [one.sma_fast for one in sets]), (slow, [one.sma_slow for one in sets])):
        values = np.array([np.nan if value is None else float(value) for value in ours])
        by_pandas = pandas_ta_classic.sma(pd.Series(floats), length=length, talib=False)
        np.testing.assert_allclose(values, by_pandas.to_numpy(), rtol=1e-9)
    assert [one.prev_sma_slow for one in sets[1:]] == [one.sma_slow for one in sets[:-1]]
