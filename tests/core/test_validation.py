"""How far a backtest can be believed: numbers worked out by hand or printed in the source of the formula."""

from datetime import date
from decimal import Decimal
from math import sqrt

import pytest

from backtests.validation import (
    Moments,
    deflated_sharpe_ratio,
    expected_best_sharpe,
    moments,
    resampled,
    windows,
)
from trading.live import calendar

SESSIONS = calendar.sessions(date(2024, 3, 4), date(2024, 3, 15))  # ten


def dollars(text: str) -> list[Decimal]:
    return [Decimal(word) for word in text.split()]


# --- the deflated Sharpe ratio ----------------------------------------------------------------------------------------


def paper(trials: int) -> tuple[float, float]:
    """The example of the paper: 1 250 days, an annual Sharpe ratio of 2.5, half a unit of variance among the trials."""
    best = Moments(days=1250, sharpe=2.5 / sqrt(250), skewness=-3, kurtosis=10)
    # Two ratios with a sample variance of 1/2 in a year, 1/500 in a day.
    spread = sqrt(0.5 / 250)
    ratios = [0.0, spread * sqrt(2)]
    return expected_best_sharpe(0.5 / 250, trials), deflated_sharpe_ratio(best, sharpe_ratios=ratios, trials=trials)


def test_the_example_of_bailey_and_lopez_de_prado() -> None:
    luck, deflated = paper(trials=100)
    assert luck == pytest.approx(0.1132, abs=5e-5)
    assert deflated == pytest.approx(0.9004, abs=5e-5)


def test_with_fewer_variants_tried_the_same_result_is_believed() -> None:
    assert paper(trials=46)[1] == pytest.approx(0.9505, abs=5e-5)


def test_by_hand_one_variant_is_only_asked_whether_it_beats_nothing() -> None:
    # (0.1 - 0) * sqrt(100) / sqrt(1 - 0 + (3 - 1) / 4 * 0.01) = 1 / sqrt(1.005) = 0.997509, of which Z is 0.840741.
    one = Moments(days=101, sharpe=0.1, skewness=0, kurtosis=3)
    assert expected_best_sharpe(1.0, 1) == 0
    assert deflated_sharpe_ratio(one, sharpe_ratios=[0.1], trials=1) == pytest.approx(0.840741, abs=5e-6)


def test_by_hand_the_luckiest_of_two() -> None:
    # Z^-1[1/2] = 0 and Z^-1[1 - 1/(2e)] = 0.900451, times 0.577216 = 0.519755, times the deviation of 2.
    assert expected_best_sharpe(4.0, 2) == pytest.approx(2 * 0.519755, abs=5e-5)


def test_by_hand_the_moments_of_four_days() -> None:
    # Mean 0.01; deviations -0.01, -0.01, -0.01, 0.03: squares 12e-4, cubes 24e-6, fourth powers 84e-8, over 4 days.
    found = moments(dollars("0 0 0 0.04"))
    assert found is not None
    assert found.days == 4
    assert found.sharpe == pytest.approx(0.01 / sqrt(12e-4 / 3))
    assert found.skewness == pytest.approx(6e-6 / (3e-4) ** 1.5)
    assert found.kurtosis == pytest.approx(21e-8 / 9e-8)


@pytest.mark.parametrize("returns", ["", "0.01", "0.01 0.01 0.01"])
def test_without_deviation_there_is_no_sharpe_ratio(returns: str) -> None:
    assert moments(dollars(returns)) is None


# --- walk-forward -----------------------------------------------------------------------------------------------------


def days(train: int, test: int, *, is_anchored: bool) -> list[tuple[list[int], list[int]]]:
    found = windows(SESSIONS, train=train, test=test, is_anchored=is_anchored)
    number = {session: count for count, session in enumerate(SESSIONS)}
    return [([number[s] for s in window.train], [number[s] for s in window.test]) for window in found]


def test_a_rolling_window_keeps_its_length() -> None:
    assert days(4, 3, is_anchored=False) == [([0, 1, 2, 3], [4, 5, 6]), ([3, 4, 5, 6], [7, 8, 9])]


def test_an_anchored_window_grows_from_the_first_session() -> None:
    assert days(4, 3, is_anchored=True) == [([0, 1, 2, 3], [4, 5, 6]), ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])]


def test_every_session_after_the_first_training_is_tested_once_and_never_trained_on_before() -> None:
    found = windows(SESSIONS, train=3, test=2, is_anchored=False)
    assert [session for window in found for session in window.test] == SESSIONS[3:]  # the last test has one session
    assert all(window.train[-1].close < window.test[0].open for window in found)


def test_too_few_sessions_give_no_window() -> None:
    assert windows(SESSIONS, train=10, test=1, is_anchored=True) == []
    with pytest.raises(ValueError, match="at least one session"):
        windows(SESSIONS, train=0, test=1, is_anchored=True)


# --- Monte Carlo ------------------------------------------------------------------------------------------------------


def test_equal_trades_leave_nothing_to_chance() -> None:
    bands = resampled(dollars("-10.01 -10.01 -10.01"), initial_capital=Decimal(1000), paths=50, seed=1)
    assert set(bands.final_equity.values()) == {Decimal("969.97")}
    assert list(bands.max_drawdown.values()) == [pytest.approx(0.03003)] * 5
    assert (bands.paths, bands.trades, bands.loss, bands.ruin) == (50, 3, 1.0, 0.0)


def test_one_seed_gives_the_same_bands_and_another_one_others() -> None:
    pnls = dollars("120.5 -80 33.25 -41 7 -100 250 -12.75")
    first, again, other = (resampled(pnls, initial_capital=Decimal(1000), paths=400, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_two_even_trades_end_as_the_binomial_distribution_says() -> None:
    # Won or lost with equal chance, twice: a quarter ends at 800, half at 1 000, a quarter at 1 200. The drawdown is
    # none, 100 of 1 000 (lost, won), 100 of 1 100 (won, lost) or 200 of 1 000, each in a quarter of the histories.
    bands = resampled(dollars("100 -100"), initial_capital=Decimal(1000), paths=4000, seed=3)
    assert {p: str(value) for p, value in bands.final_equity.items() if p != 25 and p != 75} == {
        5: "800",
        50: "1000",
        95: "1200",
    }
    assert bands.loss == pytest.approx(0.25, abs=0.02)
    assert bands.max_drawdown[5] == 0
    assert bands.max_drawdown[50] in (pytest.approx(100 / 1100), pytest.approx(0.1))
    assert bands.max_drawdown[95] == pytest.approx(0.2)


def test_an_account_that_reaches_nothing_is_ruined() -> None:
    bands = resampled(dollars("-600"), initial_capital=Decimal(600), paths=10, seed=0)
    assert (bands.ruin, bands.max_drawdown[5]) == (1.0, 1.0)


def test_without_trades_there_is_nothing_to_resample() -> None:
    with pytest.raises(ValueError, match="at least one trade"):
        resampled([], initial_capital=Decimal(1000), paths=10, seed=0)
