"""Walk-forward: choose the parameters on past sessions, try the choice on the sessions right after them, move on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from backtests.outcome import Outcome, exact, metrics_document
from backtests.request import BacktestRequest
from backtests.sweep import PointResult, Sweep, figure_of, ranking
from backtests.validation import Window
from trading.market import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One window: the choice made on its training, None if no variant had the figure, and what the choice came to.

    `trained` is the figure of the choice in training; `outcome` is None without a choice, or when nothing is
    left to trade with: the account then rests.
    """

    window: Window
    chosen: PointResult | None
    trained: float | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForward:
    """All windows in order. Each test begins with the equity at which the one before ended."""

    steps: tuple[Step, ...]
    initial_capital: Decimal
    final_equity: Decimal

    @property
    def total_return(self) -> float:
        """Of all tests together, as a fraction: what somebody who chose like this would have made."""
        return float(self.final_equity / self.initial_capital - 1)


def walk(
    sweep: Sweep,
    windows: Sequence[Window],
    *,
    figure: str,
    train: Callable[[Sweep], list[PointResult]],
    test: Callable[[BacktestRequest], Outcome],
) -> WalkForward:
    """Works off the windows: `train` runs every point of a sweep, `test` one backtest; `figure` is chosen by."""
    equity = sweep.base.initial_capital
    steps = []
    for window in windows:
        training = replace(sweep, base=_between(sweep.base, window.train, sweep.base.initial_capital))
        ranked = ranking(train(training), figure)
        chosen = ranked[0] if ranked else None
        outcome = None
        if chosen is not None and equity > 0:
            trial = replace(sweep, base=_between(sweep.base, window.test, equity))
            outcome = test(trial.request(chosen.number))
            equity = outcome.metrics.final_equity
        trained = None if chosen is None else figure_of(chosen, figure)
        steps.append(Step(window=window, chosen=chosen, trained=trained, outcome=outcome))
    return WalkForward(steps=tuple(steps), initial_capital=sweep.base.initial_capital, final_equity=equity)


def document(sweep: Sweep, found: WalkForward, *, figure: str, is_anchored: bool) -> dict[str, Any]:
    """What a walk-forward came to, as JSON: money as exact text, ratios as numbers."""
    return {
        "strategy": sweep.base.strategy,
        "symbols": list(sweep.base.symbols),
        "grid": {key: list(values) for key, values in sweep.grid.items()},
        "variants": sweep.points,
        "by": figure,
        "anchored": is_anchored,
        "initial_capital": exact(found.initial_capital),
        "final_equity": exact(found.final_equity),
        "total_return": found.total_return,
        "windows": [_window_document(step) for step in found.steps],
    }


def _window_document(step: Step) -> dict[str, Any]:
    window = step.window
    return {
        "train": [window.train[0].date.isoformat(), window.train[-1].date.isoformat()],
        "test": [window.test[0].date.isoformat(), window.test[-1].date.isoformat()],
        "params": dict(step.chosen.params) if step.chosen else None,
        "trained": step.trained,
        "metrics": metrics_document(step.outcome.metrics) if step.outcome else None,
    }


def _between(base: BacktestRequest, sessions: Sequence[Session], capital: Decimal) -> BacktestRequest:
    return replace(base, start_date=sessions[0].date, end_date=sessions[-1].date, initial_capital=capital)
