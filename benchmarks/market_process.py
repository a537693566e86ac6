"""A built-in market of the benchmark's in a process of its own, which tells when bars left it and orders arrived."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date, datetime
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.book import Update
from trading.simulator.faults import NO_FAULTS, Fault, On, Schedule
from trading.simulator.market import Market
from trading.simulator.streams import Connection as Client

KEYS = ("the-key", "the-secret")
DAY, DAY_BEFORE = date(2024, 7, 5), date(2024, 7, 3)  # a half day, long enough for an average of 200 minutes


class MadeBars(ABC):
    """Bars by a formula: a day that is played, and the day before for history."""

    is_endless = False
    description = "made by a formula"
    symbols: tuple[str, ...]

    def __init__(self) -> None:
        self._sessions = calendar.sessions(DAY_BEFORE, DAY)
        self.first = self._sessions[1].open

    def knows(self, symbol: str) -> bool:
        """Whether the market trades it."""
        return symbol in self.symbols

    def sessions(self, start: date, end: date) -> list[Session]:
        """Those of the two that lie between."""
        return [session for session in self._sessions if start <= session.date <= end]

    def next_session(self, after: datetime) -> Session | None:
        """The day that is played."""
        return next((session for session in self._sessions[1:] if session.open > after), None)

    @abstractmethod
    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        """The bars of one of the two days."""


class TimedMarket(Market):
    """Tells of each minute that was sent, and of each order request that arrived, by the wall clock in seconds.

    `("begun", first frame)` and, once all of it was sent, `("minute", start, first frame, last frame)`, each time just
    before the frame was packed and sent, `("order", seconds since the latest frame)`, `("fill", symbol, when)` just
    before a fill is sent, and `("fault", occasion, when)` for each fault that struck.
    """

    def __init__(self, told: Connection, **options: Any) -> None:
        self._told = told
        self._frames: list[float] = []
        self._latest_frame = 0.0
        super().__init__(**options)
        self._send = self._data._send
        self._data._send = self._send_timed  # type: ignore[method-assign]
        self._send_update = self._updates.send
        self._updates.send = self._note_fill  # type: ignore[method-assign]
        self._strike = self.faults.strike
        self.faults.strike = self._note_strike  # type: ignore[method-assign]

    def _note_strike(self, on: On) -> Fault | None:
        fault = self._strike(on)
        if fault is not None:
            self._told.send(("fault", on, time.time()))
        return fault

    async def _note_fill(self, update: Update) -> None:
        if update.event in ("fill", "partial_fill"):
            self._told.send(("fill", update.order["symbol"], time.time()))
        await self._send_update(update)

    def _application(self) -> web.Application:
        application = super()._application()
        application.middlewares.insert(0, self._note_request)
        return application

    @web.middleware
    async def _note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and request.path == "/v2/orders":
            self._told.send(("order", time.time() - self._latest_frame))
        return await handler(request)

    async def _send_timed(self, connection: Client, message: Any) -> None:
        self._latest_frame = time.time()
        if not self._frames:
            self._told.send(("begun", self._latest_frame))
        self._frames.append(self._latest_frame)
        await self._send(connection, message)

    async def _step(self, session: Session) -> None:
        self._frames.clear()
        await super()._step(session)
        if self._frames:
            self._told.send(("minute", self.now - MINUTE, self._frames[0], self._frames[-1]))


def play(bars: MadeBars, speed: float, told: Connection, *, faults: Schedule = NO_FAULTS) -> None:
    """The market's process; the first thing that it tells are its URLs."""

    async def run() -> None:
        market = TimedMarket(told, bars=bars, account_number="LOAD", keys=KEYS, speed=speed, faults=faults)
        await market.start()
        told.send(market.urls)
        market.begin()
        await market.run()
        await asyncio.Event().wait()

    asyncio.run(run())
