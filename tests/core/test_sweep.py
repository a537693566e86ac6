"""A grid of settings: its points, how they are shared, and which of their results is the best."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from backtests.request import BacktestRequest, BadRequest, make_request
from backtests.sweep import (
    PointResult,
    Sweep,
    chunks,
    heat_map,
    make_sweep,
    missing,
    parse_grid,
    ranking,
    verdict,
)
from backtests.validation import Moments
from risk.config import resolve

CONFIG = resolve([])


def base(**params: object) -> BacktestRequest:
    return make_request(
        strategy="velez",
        symbols=["AAPL"],
        start_date="2024-03-11",
        end_date="2024-03-12",
        initial_capital="25000",
        params=params,
        config=CONFIG,
    )


def sweep(*grid: str) -> Sweep:
    return make_sweep(base(), parse_grid(grid))


def result(
    number: int, params: Mapping[str, str], sharpe: float | None = None, error: str = "", **metrics: Any
) -> PointResult:
    """A result; the Sharpe ratio is a day's."""
    found = None if sharpe is None else Moments(days=20, sharpe=sharpe, skewness=0, kurtosis=3)
    figures = None if error else {"sharpe_ratio": None if sharpe is None else sharpe * 252**0.5, **metrics}
    return PointResult(number=number, params=params, metrics=figures, moments=found, error=error)


# --- points -----------------------------------------------------------------------------------------------------------


def test_every_combination_is_a_point_and_the_last_key_changes_first() -> None:
    found = sweep("velez.sma_fast=10,20", "velez.sma_slow=100,150,200")
    assert found.points == 6
    assert [tuple(found.params(number).values()) for number in range(6)] == [
        ("10", "100"), ("10", "150"), ("10", "200"), ("20", "100"), ("20", "150"), ("20", "200"),
    ]  # fmt: skip


def test_a_point_is_the_backtest_with_its_settings_and_the_shared_ones() -> None:
    grid = parse_grid(["velez.sma_fast=10,20", "backtest.slippage_per_share=0,0.02"])
    request = make_sweep(base(**{"velez.sma_slow": "150"}), grid).request(3)
    config = request.config
    assert (config["velez.sma_fast"], config["velez.sma_slow"]) == (20, 150)
    assert config["backtest.slippage_per_share"] == Decimal("0.02")
    assert (request.symbols, request.initial_capital) == (("AAPL",), Decimal(25000))


def test_a_number_has_one_form() -> None:
    assert parse_grid([" velez.tightness_threshold_pct = 2.00, 1.5 ,3"]) == {
        "velez.tightness_threshold_pct": ("2", "1.5", "3")
    }


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([], "needs at least one --grid"),
        (["velez.sma_fast"], "is not written as KEY=VALUE,VALUE"),
        (["velez.sma_fast="], "is not written as KEY=VALUE,VALUE"),
        (["velez.sma_fast=10,ten"], "ALGO_VELEZ__SMA_FAST='ten' is not allowed"),
        (["velez.sma_fast=10,4"], "must be a whole number from 5 to 50"),
        (["velez.sma_fsat=10"], "is not a setting"),
        (["velez.sma_fast=10,20", "velez.sma_fast=30"], "names velez.sma_fast twice"),
        (["velez.stop_buffer_min=0.02,0.020"], "has the same value twice"),
        (["web.port=8001,8002"], "web.port has no effect on a backtest of velez"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_anything_runs(grid: list[str], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        sweep(*grid)


def test_a_grid_too_large_to_finish_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"a grid of 42,320 points is too large: 20,000 are the most"):
        make_sweep(
            base(),
            {
                "velez.sma_fast": tuple(map(str, range(5, 51))),
                "velez.sma_slow": tuple(map(str, range(100, 192))),
                "velez.doji_threshold_pct": tuple(map(str, range(10))),
            },
        )


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [1, 15, 16, 17, 100, 500, 20_000])
def test_every_point_is_in_one_chunk(points: int) -> None:
    parts = chunks(points)
    assert [number for part in parts for number in part] == list(range(points))
    assert max(map(len, parts)) <= 25


def test_five_hundred_points_are_shared_in_chunks_that_are_cheap_to_lose() -> None:
    assert len(chunks(500)) == 20


def test_only_what_has_no_result_is_done_again() -> None:
    assert missing(range(10, 15), [10, 11, 14, 99]) == [12, 13]


# --- the best ---------------------------------------------------------------------------------------------------------

RESULTS = [
    result(0, {"a": "1", "b": "1"}, 0.10, max_drawdown=0.2),
    result(1, {"a": "1", "b": "2"}, 0.30, max_drawdown=0.3),
    result(2, {"a": "2", "b": "1"}, None, max_drawdown=0.0),
    result(3, {"a": "2", "b": "2"}, error="no bars"),
    result(4, {"a": "2", "b": "3"}, 0.30, max_drawdown=0.1),
]


def numbers(figure: str) -> list[int]:
    return [each.number for each in ranking(RESULTS, figure)]


def test_the_best_comes_first_and_what_has_no_figure_not_at_all() -> None:
    assert numbers("sharpe_ratio") == [1, 4, 0]


def test_the_smallest_drawdown_is_the_best() -> None:
    assert numbers("max_drawdown") == [2, 4, 0, 1]


def test_the_verdict_counts_every_variant_that_was_tried() -> None:
    found = verdict(RESULTS, variants=5)
    assert found.best is RESULTS[1]
    assert (found.variants, found.measured) == (5, 3)
    alone = verdict(RESULTS[1:2], variants=1)
    assert found.deflated_sharpe is not None
    assert alone.deflated_sharpe is not None
    assert found.deflated_sharpe < alone.deflated_sharpe


def test_a_sweep_without_a_result_has_no_best() -> None:
    found = verdict([RESULTS[3]], variants=1)
    assert (found.best, found.deflated_sharpe) == (None, None)


def test_a_heat_map_shows_the_best_over_the_other_keys() -> None:
    grid = {"a": ("1", "2"), "b": ("1", "2", "3")}
    found = heat_map(RESULTS, grid, x_key="b", y_key="a", figure="sharpe_ratio")
    assert [[each and each.number for each in row] for row in found.cells] == [[0, 1, None], [None, None, 4]]
    row = heat_map(RESULTS, grid, x_key="a", y_key="a", figure="sharpe_ratio")
    assert [[each and each.number for each in cells] for cells in row.cells] == [[1, 4]]
