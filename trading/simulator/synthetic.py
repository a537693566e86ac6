"""An endless synthetic market: every session of every symbol follows from the seed, the symbol and the date alone.

Prices move through phases - trend, pullback, compression - around a level that wanders slowly with the date, so that a
session can be made without the ones before it. Chance is Python's own generator, whose numbers are the same on every
version; floats only shape the noise, prices are whole cents from the start.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from trading.live import calendar
from trading.live.barfiles import SYMBOL
from trading.market import MINUTE, Bar, Session

DEFAULT_SYMBOLS = ("AAPL", "TSLA", "AMD", "NVDA", "META")
FIRST_DATE = date(2025, 3, 4)  # a full session like any other
LAST_DATE = calendar.LAST_DATE - timedelta(days=31)  # so that every session has a next one
FIRST_TIME = time(10, 0, tzinfo=ZoneInfo("America/New_York"))
HISTORY_SESSIONS = 64
KEPT_SESSIONS = 48

TICKS_A_MINUTE = 8
DAYS_OF_WANDERING = (11.0, 29.0, 83.0)  # periods of the slow waves of the level, in sessions
SHARE_OF_WANDERING = (0.012, 0.03, 0.06)
OVERNIGHT_NOISE = 0.004
MINUTE_VOLATILITY = 0.0006
TREND_DRIFT, TREND_NOISE, QUIET_NOISE = 0.38, 0.75, 0.5  # in units of the minute's volatility


@dataclass(frozen=True, slots=True, kw_only=True)
class _Character:
    """What a symbol is like: the price around which it wanders, shares in a quiet minute, liveliness (1 is usual)."""

    cents: int
    volume: int
    liveliness: float


CHARACTERS = {
    "AAPL": _Character(cents=19_000, volume=120_000, liveliness=0.8),
    "TSLA": _Character(cents=25_000, volume=180_000, liveliness=1.5),
    "AMD": _Character(cents=16_000, volume=90_000, liveliness=1.3),
    "NVDA": _Character(cents=12_000, volume=250_000, liveliness=1.3),
    "META": _Character(cents=48_000, volume=40_000, liveliness=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phase:
    """A stretch of minutes: `drift` and `noise` are in units of the minute's volatility."""

    minutes: int
    drift: float
    noise: float


class SyntheticBars:
    """Any symbol a ticker can name, without end; the given ones are what is traded from the start."""

    is_endless = True

    def __init__(self, *, seed: int, symbols: Sequence[str] = DEFAULT_SYMBOLS) -> None:
        self.description = f"synthetic {seed}"
        self.symbols = tuple(symbols)
        self.first = datetime.combine(FIRST_DATE, FIRST_TIME)
        self._seed = seed
        self._made: OrderedDict[tuple[str, date], tuple[Bar, ...]] = OrderedDict()
        self._first_date = calendar.previous_sessions(FIRST_DATE, HISTORY_SESSIONS)[0].date

    def knows(self, symbol: str) -> bool:
        """Whether the symbol is traded here."""
        return SYMBOL.fullmatch(symbol) is not None

    def sessions(self, start: date, end: date) -> list[Session]:
        """The sessions from `start` to `end`, both included."""
        first, last = max(start, self._first_date), min(end, LAST_DATE)
        return calendar.sessions(first, last) if first <= last else []

    def next_session(self, after: datetime) -> Session | None:
        """The first session that opens later than `after`."""
        session = calendar.next_session(after)
        return session if session.date <= LAST_DATE else None

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """All minutes of one session."""
        key = symbol, session.date
        if key in self._made:
            self._made.move_to_end(key)
        else:
            self._made[key] = tuple(_make(self._seed, symbol, session))
            if len(self._made) > KEPT_SESSIONS:
                self._made.popitem(last=False)
        return self._made[key]


def _make(seed: int, symbol: str, session: Session) -> Iterator[Bar]:
    chance = random.Random(f"{seed}/{symbol}/{session.date}")
    character = _character(seed, symbol)
    minutes = (session.close - session.open) // MINUTE
    start, end = (_level(seed, symbol, session.date, edge) for edge in ("open", "close"))
    path = _path(chance, log_start=math.log(start), log_end=math.log(end), minutes=minutes, scale=character.liveliness)
    for minute in range(minutes):
        ticks = path[minute * TICKS_A_MINUTE : (minute + 1) * TICKS_A_MINUTE + 1]
        cents = [max(round(math.exp(tick)), 1) for tick in ticks]
        move = abs(ticks[-1] - ticks[0]) / (MINUTE_VOLATILITY * character.liveliness)
        volume = character.volume * _u_shape(minute, minutes) * (0.6 + 0.4 * move) * chance.lognormvariate(0, 0.35)
        yield Bar(
            symbol=symbol,
            timestamp=session.open + minute * MINUTE,
            open=_dollars(cents[0]),
            high=_dollars(max(cents)),
            low=_dollars(min(cents)),
            close=_dollars(cents[-1]),
            volume=max(int(volume), 100),
        )


def _phases(chance: random.Random, minutes: int) -> Iterator[_Phase]:
    """A day's story: trends with pullbacks, and stretches in which little happens."""
    direction = 1.0 if chance.random() < 0.55 else -1.0
    left = minutes
    while left > 0:
        if chance.random() < 0.25:
            story = [_Phase(minutes=chance.randint(10, 25), drift=0.0, noise=QUIET_NOISE)]
            direction = -direction if chance.random() < 0.4 else direction
        else:
            story = []
            for _ in range(chance.randint(1, 3)):
                story.append(_Phase(minutes=chance.randint(10, 24), drift=direction * TREND_DRIFT, noise=TREND_NOISE))
                story.append(_Phase(minutes=chance.randint(4, 8), drift=-direction * TREND_DRIFT, noise=TREND_NOISE))
            direction = -direction if chance.random() < 0.45 else direction
        for phase in story:
            if left > 0:
                yield _Phase(minutes=min(phase.minutes, left), drift=phase.drift, noise=phase.noise)
                left -= phase.minutes


def _path(chance: random.Random, *, log_start: float, log_end: float, minutes: int, scale: float) -> list[float]:
    """Logarithms of the price in cents, tick by tick, bent so that the day ends where the next one is near."""
    path = [0.0]
    minute = 0
    for phase in _phases(chance, minutes):
        for _ in range(phase.minutes):
            volatility = MINUTE_VOLATILITY * scale * math.sqrt(_u_shape(minute, minutes))
            drift = phase.drift * volatility / TICKS_A_MINUTE
            noise = phase.noise * volatility / math.sqrt(TICKS_A_MINUTE)
            for _ in range(TICKS_A_MINUTE):
                path.append(path[-1] + drift + chance.gauss(0, noise))
            minute += 1
    bend = (log_end - log_start - path[-1]) / (len(path) - 1)
    return [log_start + value + bend * index for index, value in enumerate(path)]


def _u_shape(minute: int, minutes: int) -> float:
    """How much busier than its middle a session is: at the open, and again towards the close."""
    return 0.75 + 2.0 * math.exp(-minute / 25) + 1.0 * math.exp(-(minutes - 1 - minute) / 20)


def _level(seed: int, symbol: str, day: date, edge: str) -> float:
    """The price in cents near which a session opens or closes: slow waves, and some noise of that very moment."""
    moment = (day - FIRST_DATE).days * 252 / 365 + (0.3 if edge == "close" else 0.0)
    waves = sum(
        share * math.sin(2 * math.pi * (moment / period + _fixed_chance(seed, symbol, str(period))))
        for share, period in zip(SHARE_OF_WANDERING, DAYS_OF_WANDERING, strict=True)
    )
    noise = random.Random(f"{seed}/{symbol}/{day}/{edge}").gauss(0, OVERNIGHT_NOISE)
    return _character(seed, symbol).cents * math.exp(waves + noise)


@lru_cache(maxsize=256)
def _character(seed: int, symbol: str) -> _Character:
    return CHARACTERS.get(symbol) or _Character(
        cents=round(2_000 * 20 ** _fixed_chance(seed, symbol, "price")),
        volume=round(20_000 + 100_000 * _fixed_chance(seed, symbol, "volume")),
        liveliness=0.7 + 0.8 * _fixed_chance(seed, symbol, "liveliness"),
    )


@lru_cache(maxsize=4096)
def _fixed_chance(seed: int, symbol: str, name: str) -> float:
    """A number between 0 and 1 that belongs to the symbol for good."""
    return random.Random(f"{seed}/{symbol}/{name}").random()


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
