"""What a result would have been on other paths inside the bars and at other costs: a range beside the number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from backtests.desk import Result
from trading.exchange import PathRule
from trading.market import CENT

SLIPPAGES = tuple(ticks * CENT for ticks in (0, 1, 3))
MOST_SCENARIOS = len(PathRule) * len(SLIPPAGES)


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


def scenarios(
    run: Callable[[PathRule, Decimal], Result],
    *,
    initial_capital: Decimal,
    slippage_per_share: Decimal,
    result: Result,
) -> Iterator[Scenario]:
    """Every path at 0, 1 and 3 ticks of slippage, the cheapest fills first and of each the neutral path.

    `result` is that of the run itself, on the neutral path at its own slippage. Nothing is run again of which it is
    known what comes out.
    """
    for slippage in SLIPPAGES:
        neutral = result if slippage == slippage_per_share else run(PathRule.NEUTRAL, slippage)
        for path_rule in (PathRule.NEUTRAL, PathRule.PESSIMISTIC, PathRule.OPTIMISTIC):
            is_known = path_rule is PathRule.NEUTRAL or not neutral.path_mattered
            found = neutral if is_known else run(path_rule, slippage)
            yield Scenario(
                path_rule=path_rule,
                slippage_per_share=slippage,
                final_equity=found.final_equity,
                total_return=float(found.final_equity / initial_capital - 1),
                max_drawdown=float(found.max_drawdown),
                total_trades=len(found.trades),
            )
