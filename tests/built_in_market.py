"""A built-in market whose bars a test writes down and whose time it moves, minute by minute."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from trading.exchange import Exchange
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.faults import NO_FAULTS, Schedule
from trading.simulator.lockstep import Lockstep
from trading.simulator.market import Market

FIRST_DAY = date(2024, 3, 4)
KEYS = ("the-key", "the-secret")


def script(prices: str, symbol: str = "AAPL", *, day: date = FIRST_DAY, volume: int = 10_000) -> list[Bar]:
    """Minutes from the open on: `open high low close` each, or one price for all four, or `-`; with `|` between."""
    session = calendar.session_on(day)
    assert session is not None
    bars = []
    for number, text in enumerate(prices.split("|")):
        words = [Decimal(word) for word in text.split() if word != "-"]
        if words:
            opened, high, low, close = words * 4 if len(words) == 1 else words
            stamp = session.open + number * MINUTE
            bars.append(
                Bar(symbol=symbol, timestamp=stamp, open=opened, high=high, low=low, close=close, volume=volume)
            )
    return bars


class ScriptedBars:
    """The source of a market that plays what the test wrote down, from the open of its first played day."""

    is_endless = False

    def __init__(self, *bars: Sequence[Bar], first_day: date = FIRST_DAY, description: str = "a test's bars") -> None:
        self.description = description
        self._bars = [bar for those in bars for bar in those]
        self.symbols = tuple(dict.fromkeys(bar.symbol for bar in self._bars))
        dates = sorted({bar.timestamp.date() for bar in self._bars})
        self._sessions = calendar.sessions(dates[0], dates[-1])
        self._first_day = first_day
        self.first = next(session.open for session in self._sessions if session.date == first_day)

    def knows(self, symbol: str) -> bool:
        return symbol in self.symbols

    def sessions(self, start: date, end: date) -> list[Session]:
        return [session for session in self._sessions if start <= session.date <= end]

    def next_session(self, after: datetime) -> Session | None:
        return next((s for s in self._sessions if s.open > after and s.date >= self._first_day), None)

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        return [bar for bar in self._bars if bar.symbol == symbol and session.contains(bar.timestamp)]


class Conductor:
    """Opens a market, and stands where the engine would: a minute passes only when the test says so."""

    def __init__(
        self,
        *bars: Sequence[Bar],
        source: Any = None,
        exchange: Exchange | None = None,
        capital: str = "25000",
        multiplier: int = 1,
        path: Path | None = None,
        patience_seconds: float = 30,
        faults: Schedule = NO_FAULTS,
    ) -> None:
        self.lockstep = Lockstep(timeout_seconds=patience_seconds)
        self.market = Market(
            bars=source or ScriptedBars(*bars),
            account_number="TEST",
            initial_capital=Decimal(capital),
            exchange=exchange,
            multiplier=multiplier,
            speed=0,
            account_path=path,
            keys=KEYS,
            lockstep=self.lockstep,
            faults=faults,
        )
        self._may_go_on = asyncio.Event()
        self._arrived = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._is_free = False

    async def __aenter__(self) -> "Conductor":
        await self.market.start()
        self.lockstep.attach(next_due=lambda: None, fire_timers=self._end_of_step, is_idle=lambda: True)
        self._running = asyncio.create_task(self.market.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lockstep.detach()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self.market.stop()

    async def minute(self, count: int = 1) -> None:
        """The next minutes (or an opening) happen, and everything that follows from them."""
        self.market.begin()
        for _ in range(count):
            self._arrived.clear()
            self._may_go_on.set()
            await self._arrived.wait()
            await self.lockstep.settled()

    async def to_the_end(self) -> None:
        """Everything that is left happens."""
        self.market.begin()
        self._is_free = True
        self._may_go_on.set()
        await self.market.ended.wait()

    async def settled(self) -> None:
        """What was asked for is carried out, and told."""
        await self.lockstep.settled()

    async def _end_of_step(self, now: datetime) -> None:
        """Stands for the engine's timers, which come last in every step."""
        self._may_go_on.clear()
        self._arrived.set()
        if not self._is_free:
            await self._may_go_on.wait()


def at(text: str, day: date = FIRST_DAY) -> datetime:
    """A UTC time of the first day, `14:30`."""
    hour, minute = text.split(":")
    return datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=UTC)
