"""What happens in one simulated run, all of it drawn from a seed before it begins."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.faults import Schedule, schedule_of

# They trade as much as the bounds allow: small averages, every candle of a minute, both ways, no pause after losses.
SETTINGS: Mapping[str, str] = {
    "velez.sma_fast": "5",
    "velez.sma_slow": "100",
    "velez.candle_interval_minutes": "1",
    "velez.tightness_threshold_pct": "5.0",
    "velez.strong_candle_body_pct": "30",
    "velez.max_run_candles": "2",
    "velez.allow_short": "true",
    "risk.consecutive_loss_pause": "10",
    "risk.max_daily_loss_pct": "0.10",
}
SYMBOLS = ("AAPL", "TSLA", "AMD")
QUIET_MINUTES = 4  # at the end nothing goes wrong any more, and no bars come
DIFFERENT_DAYS = 16
DAY = date(2025, 3, 4)
START_CENTS = {"AAPL": 19_000, "TSLA": 6_400, "AMD": 2_600}
OPENING, MIDDAY, CLOSING = "opening", "midday", "closing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """The engine is killed `pieces` pieces of work after so many seconds, and started again after `down_seconds`."""

    after_seconds: float
    pieces: int
    down_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An operator asks for something: halt, resume, flatten, shutdown; or starts a second engine."""

    after_seconds: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One run: which part of the day, with what faults, crashes and wishes."""

    seed: int
    symbols: tuple[str, ...]
    part_of_day: str
    minutes: int
    schedule: Schedule
    crashes: tuple[Crash, ...] = ()
    wishes: tuple[Wish, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.minutes} minutes around {self.part_of_day}, {', '.join(self.symbols)}"]
        lines += [f"fault   {fault}" for fault in self.schedule.faults]
        lines += [
            f"crash   after {crash.after_seconds:g} s and {crash.pieces} steps, down for {crash.down_seconds:g} s"
            for crash in self.crashes
        ]
        lines += [f"wish    after {wish.after_seconds:.0f} s: {wish.kind}" for wish in self.wishes]
        return "\n".join(lines)


def story_of(seed: int) -> Story:
    """The story of a seed."""
    chance = random.Random(f"story/{seed}")
    minutes = chance.randint(10, 22)
    seconds = minutes * 60.0
    crashes = [
        Crash(
            after_seconds=round(chance.uniform(30, seconds), 1),
            pieces=chance.randint(0, 40),
            down_seconds=chance.choice((0.5, 5.0, 30.0, 90.0)),
        )
        for _ in range(chance.choices((0, 1, 2), weights=(4, 4, 1))[0])
    ]
    wishes = []
    if chance.random() < 0.3:
        halted_after = chance.uniform(60, seconds)
        wishes.append(Wish(after_seconds=halted_after, kind="halt"))
        wishes.append(Wish(after_seconds=halted_after + chance.uniform(60, 300), kind="resume"))
    if chance.random() < 0.25:
        wishes.append(Wish(after_seconds=chance.uniform(60, seconds), kind=chance.choice(("flatten", "shutdown"))))
    if chance.random() < 0.15:
        wishes.append(Wish(after_seconds=chance.uniform(30, seconds), kind="second engine"))
    return Story(
        seed=seed,
        symbols=tuple(sorted(chance.sample(SYMBOLS, chance.randint(1, 3)))),
        part_of_day=chance.choices((OPENING, MIDDAY, CLOSING), weights=(2, 5, 2))[0],
        minutes=minutes,
        schedule=schedule_of(seed, minutes=minutes),
        crashes=tuple(sorted(crashes, key=lambda crash: crash.after_seconds)),
        wishes=tuple(sorted(wishes, key=lambda wish: wish.after_seconds)),
    )


class Stretch:
    """A short stretch of one restless day, and the day before (a `BarSource`); after it nothing is traded any more.

    Prices run up and down every few minutes, in strong candles with a pullback now and then.
    """

    is_endless = True

    def __init__(self, story: Story) -> None:
        self.symbols = story.symbols
        self.description = f"stretch {story.seed}"
        self._seed = story.seed % DIFFERENT_DAYS
        (session,) = calendar.sessions(DAY, DAY)
        length = timedelta(minutes=story.minutes)
        self.first: datetime = {
            OPENING: session.open - MINUTE,
            MIDDAY: session.open + timedelta(minutes=60),
            CLOSING: session.close - length - MINUTE,
        }[story.part_of_day]
        self._end = self.first + length

    def knows(self, symbol: str) -> bool:
        """Whether the symbol is traded here."""
        return symbol in self.symbols

    def sessions(self, start: date, end: date) -> list[Session]:
        """The day before, and all that follow: they have no bars."""
        first = max(start, calendar.previous_sessions(DAY, 1)[0].date)
        return calendar.sessions(first, end) if first <= end else []

    def next_session(self, after: datetime) -> Session | None:
        """The first session that opens later than `after`."""
        return calendar.next_session(after)

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """The minutes of a session up to the end of the stretch."""
        if session.date > DAY:
            return ()
        return [bar for bar in _restless(self._seed, symbol, session) if bar.delivered_at <= self._end]


@lru_cache(maxsize=DIFFERENT_DAYS * len(SYMBOLS) * 2)
def _restless(seed: int, symbol: str, session: Session) -> tuple[Bar, ...]:
    chance = random.Random(f"bars/{seed}/{symbol}/{session.date}")
    price, left, drift = START_CENTS[symbol], 0, 1
    bars = []
    for number in range((session.close - session.open) // MINUTE):
        if left == 0:
            left = chance.randint(2, 4)
            # Back towards where it began, more often than not: the averages stay close to each other.
            drift = -1 if chance.random() < 0.5 + (price - START_CENTS[symbol]) / START_CENTS[symbol] * 60 else 1
        left -= 1
        body = round(price * chance.uniform(0.0004, 0.002)) * (drift if chance.random() < 0.8 else -drift)
        wick = max(abs(body) // 3, 1)
        opened, closed = price, price + body
        bars.append(
            Bar(
                symbol=symbol,
                timestamp=session.open + number * MINUTE,
                open=_dollars(opened),
                high=_dollars(max(opened, closed) + chance.randint(0, wick)),
                low=_dollars(min(opened, closed) - chance.randint(0, wick)),
                close=_dollars(closed),
                volume=chance.randint(50_000, 150_000),
            )
        )
        price = closed
    return tuple(bars)


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
