"""One-minute bars to measure with: every symbol-year follows from its seed, so that nobody has to download anything.

They look like a liquid stock's: busy and lively at the open and the close, calm at noon, fat tails, volatility that
comes in spells, jumps overnight, stretches of trend between stretches without one, cents, and a few minutes in which
nobody traded. A year of 2023, with its two half days, has 97 110 of them.
"""

from datetime import date

import numpy as np

from trading.columns import PRICE_UNITS, BarColumns, Integers, session_times
from trading.live import calendar

FIRST_DATE, LAST_DATE = date(2023, 1, 3), date(2023, 12, 29)
SILENT_MINUTES = 30
TICKS_A_MINUTE = 16
MINUTE_VOLATILITY = 0.0006
OVERNIGHT_VOLATILITY = 0.011
TAIL_FREEDOM = 4  # degrees of Student's t: the fewer, the fatter the tails
SPELL_MINUTES = 240
TREND_MINUTES = 90
TREND_DRIFT = 0.00006
SHARES_A_MINUTE = 40_000
CENT = PRICE_UNITS // 100
LEAST_CENTS = 500


def symbol_year(symbol: str, seed: int) -> BarColumns:
    """The bars of one symbol in the year."""
    chance = np.random.default_rng(seed)
    sessions = calendar.sessions(FIRST_DATE, LAST_DATE)
    opens, closes = session_times(sessions)
    lengths = (closes - opens) // 60
    timestamps = np.concatenate([np.arange(first, end, 60) for first, end in zip(opens, closes, strict=True)])
    day = np.repeat(np.arange(len(sessions)), lengths)
    minutes, through = len(day), (timestamps - opens[day]) / (closes - opens)[day]

    liveliness = (0.6 + 1.6 * (2 * through - 1) ** 4 + 0.5 * np.exp(-12 * through)) * _spells(chance, minutes)
    tails = chance.standard_t(TAIL_FREEDOM, (minutes, TICKS_A_MINUTE)) / np.sqrt(TAIL_FREEDOM / (TAIL_FREEDOM - 2))
    steps = tails * (MINUTE_VOLATILITY / np.sqrt(TICKS_A_MINUTE) * liveliness)[:, None]
    steps += (_stretches(chance, minutes) * TREND_DRIFT * liveliness / TICKS_A_MINUTE)[:, None]
    first_minutes = np.r_[0, np.cumsum(lengths)[:-1]]
    steps[first_minutes, 0] += chance.normal(0, OVERNIGHT_VOLATILITY, len(sessions))
    walk = np.cumsum(steps.ravel())
    # A year wanders far: the walk is held to its starting level as by a rubber band, a little each session.
    walk -= np.repeat(_pull(walk.reshape(minutes, -1)[:, -1], lengths), TICKS_A_MINUTE)
    level = chance.uniform(4_000, 40_000)
    prices = np.maximum(np.rint(level * np.exp(walk)).astype(np.int64), LEAST_CENTS).reshape(minutes, -1) * CENT

    volume = np.maximum(chance.lognormal(np.log(SHARES_A_MINUTE * liveliness), 0.5), 100).astype(np.int64)
    is_traded = np.ones(minutes, dtype=bool)
    is_traded[chance.choice(minutes, SILENT_MINUTES, replace=False)] = False
    return BarColumns(
        symbol=symbol,
        timestamps=timestamps,
        open=prices[:, 0],
        high=prices.max(axis=1),
        low=prices.min(axis=1),
        close=prices[:, -1],
        volume=volume,
    ).part(is_traded)


def _spells(chance: np.random.Generator, minutes: int) -> np.ndarray:
    """Factors around 1 that stay high or low for a while."""
    knots = chance.normal(0, 0.35, minutes // SPELL_MINUTES + 2)
    return np.exp(np.interp(np.arange(minutes) / SPELL_MINUTES, np.arange(len(knots)), knots))


def _stretches(chance: np.random.Generator, minutes: int) -> Integers:
    """-1, 0 or 1 for each minute: down, nowhere, up, for an hour and a half on average."""
    ends = np.cumsum(chance.exponential(TREND_MINUTES, 4 * minutes // TREND_MINUTES).astype(np.int64) + 1)
    kinds = chance.integers(-1, 2, len(ends) + 1)
    return kinds[np.searchsorted(ends, np.arange(minutes), side="right")]


def _pull(walk: np.ndarray, lengths: Integers) -> np.ndarray:
    """What is taken off at each minute so that the sessions' closes return to the start by and by."""
    taken, pulls = 0.0, []
    for close in walk[np.cumsum(lengths) - 1]:
        pulls.append(taken)
        taken += 0.03 * (close - taken)
    return np.repeat(pulls, lengths)
