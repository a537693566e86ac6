"""What a result would have been on other paths inside the bars and at other costs: a range beside the number."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

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
