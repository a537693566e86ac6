"""A sweep: one backtest for every combination of a grid of settings, cut into chunks that workers share."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backtests.request import BacktestRequest, BadRequest, make_request
from backtests.validation import Moments, deflated_sharpe_ratio
from risk.config import ConfigError, as_text, parse

MOST_POINTS = 20_000
MOST_POINTS_PER_CHUNK = 25
CHUNKS_WANTED = 16  # enough for the workers of several machines to share

Grid = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a sweep is asked to do: the settings that all points share, and the grid that tells them apart."""

    base: BacktestRequest
    grid: Grid

    @property
    def points(self) -> int:
        """How many variants are tried."""
        return number_of_points(self.grid)

    def params(self, number: int) -> dict[str, str]:
        """The grid's values at a point, counted from 0."""
        return point_params(self.grid, number)

    def request(self, number: int) -> BacktestRequest:
        """The backtest at a point."""
        base = self.base
        return make_request(
            strategy=base.strategy,
            symbols=base.symbols,
            start_date=base.start_date.isoformat(),
            end_date=base.end_date.isoformat(),
            initial_capital=str(base.initial_capital),
            params={**base.params, **self.params(number)},
            config=base.config,
            data=base.data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PointResult:
    """What one point came to: `metrics` as in the JSON of the `backtest` command, or the `error` that prevented it.

    `moments` describe its daily returns; None where fewer than two days, or no deviation, leave no Sharpe ratio.
    """

    number: int
    params: Mapping[str, str]
    metrics: Mapping[str, Any] | None
    moments: Moments | None
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The best of a sweep's results by one figure, and how far it can be believed.

    `variants` were tried, `measured` of them have a Sharpe ratio. `deflated_sharpe` is the probability that the best's
    Sharpe ratio is above what the best of so many variants without any edge would show; None if there is none.
    """

    best: PointResult | None
    variants: int
    measured: int
    deflated_sharpe: float | None


def make_sweep(base: BacktestRequest, grid: Grid) -> Sweep:
    """The sweep, every point of which is a backtest that can be asked for.

    Raises:
        BadRequest: for the first key or combination that is wrong, or when there are too many points.
    """
    if (points := number_of_points(grid)) > MOST_POINTS:
        raise BadRequest(f"a grid of {points:,} points is too large: {MOST_POINTS:,} are the most")
    sweep = Sweep(base=base, grid=grid)
    for number in range(points):
        sweep.request(number)
    return sweep


def number_of_points(grid: Grid) -> int:
    """How many combinations a grid has."""
    points = 1
    for choices in grid.values():
        points *= len(choices)
    return points


def point_params(grid: Grid, number: int) -> dict[str, str]:
    """The values at a point, counted from 0; the last key changes first."""
    values: dict[str, str] = {}
    for key, choices in reversed(list(grid.items())):
        number, place = divmod(number, len(choices))
        values[key] = choices[place]
    return {key: values[key] for key in grid}


def parse_grid(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The grid of texts such as `velez.sma_fast=10,20,30`; values are brought to one form, so 2.0 and 2.00 are one.

    Raises:
        BadRequest: for the first text that is wrong.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not values.strip():
            raise BadRequest(f"--grid {text!r} is not written as KEY=VALUE,VALUE,...")
        if key in grid:
            raise BadRequest(f"--grid names {key} twice")
        try:
            choices = tuple(_in_one_form(key, value) for value in values.split(","))
        except ConfigError as error:
            raise BadRequest(str(error)) from None
        if len(set(choices)) < len(choices):
            raise BadRequest(f"{key} has the same value twice: {values}")
        grid[key] = choices
    if not grid:
        raise BadRequest("a sweep needs at least one --grid KEY=VALUE,VALUE,...")
    return grid


def chunks(points: int) -> list[range]:
    """The points in chunks: as many as workers can share, none so long that a killed worker costs much."""
    size = max(1, min(MOST_POINTS_PER_CHUNK, points // CHUNKS_WANTED))
    return [range(first, min(first + size, points)) for first in range(0, points, size)]


def verdict(results: Sequence[PointResult], *, variants: int, figure: str = "sharpe_ratio") -> Verdict:
    """The best by a figure of the metrics, the first of equals; the deflated Sharpe ratio counts all `variants`."""
    ranked = ranking(results, figure)
    best = ranked[0] if ranked else None
    measured = [each.moments.sharpe for each in results if each.moments is not None]
    deflated = None
    if best is not None and best.moments is not None:
        deflated = deflated_sharpe_ratio(best.moments, sharpe_ratios=measured, trials=variants)
    return Verdict(best=best, variants=variants, measured=len(measured), deflated_sharpe=deflated)


def ranking(results: Iterable[PointResult], figure: str) -> list[PointResult]:
    """The results that have the figure, best first; a drawdown is the better the smaller it is."""
    sign = 1.0 if figure == "max_drawdown" else -1.0
    found = [(value, each) for each in results if (value := figure_of(each, figure)) is not None]
    return [each for _, each in sorted(found, key=lambda pair: (sign * pair[0], pair[1].number))]


def figure_of(result: PointResult, figure: str) -> float | None:
    """A figure of the metrics as a number; None where it is undefined or the point failed."""
    value = None if result.metrics is None else result.metrics.get(figure)
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A figure over two keys of the grid; a cell is the best result over all other keys, None without a result."""

    x_key: str
    y_key: str
    x_values: tuple[str, ...]
    y_values: tuple[str, ...]
    cells: tuple[tuple[PointResult | None, ...], ...]


def heat_map(results: Sequence[PointResult], grid: Grid, *, x_key: str, y_key: str, figure: str) -> HeatMap:
    """The map, one row for every value of `y_key`; with the same key twice it is one row."""
    y_values = grid[y_key] if y_key != x_key else ("",)
    best: dict[tuple[str, str], PointResult] = {}
    for each in ranking(results, figure):
        best.setdefault((each.params[y_key] if y_key != x_key else "", each.params[x_key]), each)
    return HeatMap(
        x_key=x_key,
        y_key=y_key,
        x_values=grid[x_key],
        y_values=y_values,
        cells=tuple(tuple(best.get((y, x)) for x in grid[x_key]) for y in y_values),
    )


def missing(part: range, done: Iterable[int]) -> list[int]:
    """The points of a chunk that have no result yet."""
    there = set(done)
    return list(itertools.filterfalse(there.__contains__, part))


def _in_one_form(key: str, text: str) -> str:
    value = as_text(parse(key, text))
    return value.rstrip("0").rstrip(".") if "." in value else value
