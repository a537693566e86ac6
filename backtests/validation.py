"""How far a backtest can be believed: walk-forward windows, resampled trades, and a Sharpe ratio that counts trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from math import e, sqrt
from statistics import NormalDist, variance

import numpy as np

from trading.market import Session

EULER_MASCHERONI = 0.5772156649015329
NORMAL = NormalDist()
MICRO = Decimal("0.000001")
MICROS_PER_DOLLAR = 1_000_000
PERCENTILES = (5, 25, 50, 75, 95)


# --- the Sharpe ratio of the best of many -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Daily returns in four figures. `sharpe` is not annualised; a normal distribution has skewness 0, kurtosis 3."""

    days: int
    sharpe: float
    skewness: float
    kurtosis: float


def moments(returns: Sequence[Decimal] | None) -> Moments | None:
    """The moments of daily returns; None under two days or without deviation.

    The Sharpe ratio has the sample deviation (ddof 1), skewness and kurtosis are the population's standardised moments.
    """
    if returns is None or len(returns) < 2 or min(returns) == max(returns):
        return None
    values = np.array([float(value) for value in returns])
    centred = values - values.mean()
    spread = np.mean(centred**2)
    return Moments(
        days=len(values),
        sharpe=float(values.mean() / values.std(ddof=1)),
        skewness=float(np.mean(centred**3) / spread**1.5),
        kurtosis=float(np.mean(centred**4) / spread**2),
    )


def deflated_sharpe_ratio(best: Moments, *, sharpe_ratios: Sequence[float], trials: int) -> float:
    """The probability that the best's true Sharpe ratio is above what luck alone gives the best of `trials`.

    D. H. Bailey and M. Lopez de Prado, "The Deflated Sharpe Ratio: Correcting for Selection Bias, Backtest Overfitting
    and Non-Normality", Journal of Portfolio Management 40 (5), 2014:
    DSR = Z[(SR - SR0) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2)], with T days, skewness g3, kurtosis g4 and SR0
    from `expected_best_sharpe`. All ratios are of one day. Variants of a grid resemble each other; counting each as a
    trial of its own is the strict side.
    """
    spread = variance(sharpe_ratios) if len(sharpe_ratios) > 1 else 0.0
    luck = expected_best_sharpe(spread, trials)
    # Not negative for any distribution: the kurtosis is at least the skewness squared plus 1.
    scale = max(1 - best.skewness * best.sharpe + (best.kurtosis - 1) / 4 * best.sharpe**2, 1e-12)
    return NORMAL.cdf((best.sharpe - luck) * sqrt(best.days - 1) / sqrt(scale))


def expected_best_sharpe(variance_of_trials: float, trials: int) -> float:
    """The Sharpe ratio to expect of the best of `trials` without any edge; 0 for one trial.

    SR0 = sqrt(V) ((1 - c) Z^-1[1 - 1/N] + c Z^-1[1 - 1/(N e)]), c the Euler-Mascheroni constant, V the variance of the
    trials' Sharpe ratios; source as above.
    """
    if trials < 2:
        return 0.0
    luck = (1 - EULER_MASCHERONI) * NORMAL.inv_cdf(1 - 1 / trials)
    return sqrt(variance_of_trials) * (luck + EULER_MASCHERONI * NORMAL.inv_cdf(1 - 1 / (trials * e)))


# --- walk-forward -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Sessions to choose the parameters on, and the sessions right after them to try the choice on."""

    train: tuple[Session, ...]
    test: tuple[Session, ...]


def windows(sessions: Sequence[Session], *, train: int, test: int, is_anchored: bool) -> list[Window]:
    """Windows of `train` and `test` sessions, each moved on by `test`; empty if the sessions do not suffice for one.

    Anchored, every training starts at the first session and grows. The last test may be shorter.

    Raises:
        ValueError: a length is below 1.
    """
    if train < 1 or test < 1:
        raise ValueError("training and test need at least one session each")
    return [
        Window(
            train=tuple(sessions[0 if is_anchored else start - train : start]),
            test=tuple(sessions[start : start + test]),
        )
        for start in range(train, len(sessions), test)
    ]


# --- Monte Carlo over trades ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """Where resampled histories end, by percentile (5 is a bad one, 95 a good one).

    `final_equity` is in dollars, exact to a millionth. `max_drawdown` is the fall from a peak as a fraction, on equity
    after every trade; its 95th percentile is the bad one. `loss` is the share of histories that end below the initial
    capital, `ruin` of those whose equity reached 0.
    """

    paths: int
    trades: int
    final_equity: dict[int, Decimal]
    max_drawdown: dict[int, float]
    loss: float
    ruin: float


def resampled(pnls: Sequence[Decimal], *, initial_capital: Decimal, paths: int, seed: int) -> Bands:
    """Draws as many trades as there were, with replacement, `paths` times; equal seeds give equal bands.

    The bootstrap of B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1), 1979. It
    takes trades for independent of each other, and keeps their sizes in dollars.

    Raises:
        ValueError: without a trade or a path.
    """
    if not pnls or paths < 1:
        raise ValueError("resampling needs at least one trade and one path")
    results = np.array([_micros(pnl) for pnl in pnls], dtype=np.int64)
    start = _micros(initial_capital)
    finals, drawdowns = np.empty(paths, dtype=np.int64), np.empty(paths)
    ruined = 0
    dice = np.random.Generator(np.random.PCG64(seed))
    for path in range(paths):
        drawn = results[dice.integers(0, len(results), len(results))]
        equity = np.concatenate(([start], start + np.cumsum(drawn)))
        peaks = np.maximum.accumulate(equity)
        finals[path] = equity[-1]
        drawdowns[path] = np.max((peaks - equity) / peaks)
        ruined += bool(equity.min() <= 0)
    finals.sort()
    drawdowns.sort()
    return Bands(
        paths=paths,
        trades=len(results),
        final_equity={p: Decimal(int(finals[_rank(p, paths)])) / MICROS_PER_DOLLAR for p in PERCENTILES},
        max_drawdown={p: float(drawdowns[_rank(p, paths)]) for p in PERCENTILES},
        loss=float(np.mean(finals < start)),
        ruin=ruined / paths,
    )


def _rank(percentile: int, count: int) -> int:
    """The place of a percentile among sorted values, by the nearest rank."""
    return max(0, -(-percentile * count // 100) - 1)


def _micros(dollars: Decimal) -> int:
    return int(dollars.quantize(MICRO, rounding=ROUND_HALF_EVEN) * MICROS_PER_DOLLAR)
