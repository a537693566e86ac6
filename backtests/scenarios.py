"""What a result would have been on other paths inside the bars and at other costs: a range beside the number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from backtests.desk import Result
from trading.exchange import PathRule
from trading.market import CENT

SLIPPAGES = tuple(ticks * CENT for ticks in (0, 1, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The same run under one rule for the path inside a bar and one slippage, in dollars a share.

    `total_return` and `max_drawdown` are fractions.
    """

    path_rule: PathRule
    slippage_per_share: Decimal
    final_equity: Decimal
    total_return: float
    max_drawdown: float
    total_trades: int


def most_runs(slippage_per_share: Decimal) -> int:
    """How many further runs the range takes at most, besides the run itself at that slippage."""
    return len(PathRule) * len(SLIPPAGES) - (slippage_per_share in SLIPPAGES)


def scenarios(
    run: Callable[[PathRule, Decimal], Result],
    *,
    initial_capital: Decimal,
    slippage_per_share: Decimal,
    result: Result,
) -> list[Scenario]:
    """Every path at 0, 1 and 3 ticks of slippage, the worst first.

    `result` is that of the run itself, on the neutral path at its own slippage. Nothing is run again of which it is
    known what comes out.
    """
    found: dict[tuple[PathRule, Decimal], Result] = {}
    for slippage in SLIPPAGES:
        neutral = result if slippage == slippage_per_share else run(PathRule.NEUTRAL, slippage)
        for path_rule in PathRule:
            is_known = path_rule is PathRule.NEUTRAL or not neutral.path_mattered
            found[path_rule, slippage] = neutral if is_known else run(path_rule, slippage)
    return [
        Scenario(
            path_rule=path_rule,
            slippage_per_share=slippage,
            final_equity=(each := found[path_rule, slippage]).final_equity,
            total_return=float(each.final_equity / initial_capital - 1),
            max_drawdown=float(each.max_drawdown),
            total_trades=len(each.trades),
        )
        for path_rule in PathRule
        for slippage in reversed(SLIPPAGES)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One scenario in its table; `is_result` marks the one that is the run itself. `drawdown` is below 0."""

    scenario: Scenario
    drawdown: float
    is_result: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From the lowest to the highest return, where the run's own lies (a fraction of the way), and all by path."""

    low: float
    high: float
    place: float
    paths: Sequence[tuple[PathRule, Sequence[Cell]]]


def range_of(those: Sequence[Scenario], *, total_return: float, slippage_per_share: Decimal) -> Range | None:
    """The range of a run with that return at that slippage; None without scenarios."""
    if not those:
        return None
    returns = [total_return, *(each.total_return for each in those)]
    low, high = min(returns), max(returns)
    return Range(
        low=low,
        high=high,
        place=(total_return - low) / (high - low) if high > low else 0.5,
        paths=[
            (
                path_rule,
                [
                    Cell(
                        scenario=each,
                        drawdown=-each.max_drawdown,
                        is_result=path_rule is PathRule.NEUTRAL and each.slippage_per_share == slippage_per_share,
                    )
                    for each in sorted(some, key=lambda each: each.slippage_per_share)
                ],
            )
            for path_rule, some in groupby(those, key=lambda each: each.path_rule)
        ],
    )
