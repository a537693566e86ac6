"""Watches what does not report its own failure: mute streams, a clock that is off, a machine that slept."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from trading.broker import BrokerError, NotAuthorized, StreamState
from trading.market import Bar
from trading.messages import SymbolBlocked

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

LOOK_SECONDS = 1.0
LONGEST_GAP_SECONDS = 30.0  # of our own loop: a laptop slept
MUTE_AFTER = timedelta(minutes=2)
HISTORY_LAG = timedelta(seconds=30)  # a bar this old has had the time to come over the stream
MOST_SYMBOLS_ASKED = 30
UNTOLD_SECONDS = 5.0  # news this old has had the time to come over the trade update stream
QUESTION_SECONDS = 5.0  # while there is something to lose, the broker is asked what a silent stream did not tell
BUSY_COMPARE = timedelta(minutes=1)
QUIET_COMPARE = timedelta(minutes=5)
LOCKSTEP_COMPARE = timedelta(minutes=10)  # there a minute may last a few milliseconds
CLOCK_SECONDS = 60.0
CLOCK_AGAIN_SECONDS = 10.0
CLOCK_WARNING = timedelta(seconds=2)
CLOCK_LIMIT = timedelta(seconds=10)
LONGEST_REFUSAL_SECONDS = 180.0  # a dead connection holds its place for up to 90
LARGEST_JUMP = 30  # percent, from one session's last close to the next one's first open

CLOCK, JUMP = "clock", "jump"


class Watch:
    """Looks about once a second (`run`); with a market in lockstep, once a minute of that market.

    `drift` is how far the broker's clock is from ours, None before it was read.
    """

    def __init__(self, engine: "Engine") -> None:
        self.drift: timedelta | None = None
        self._engine = engine
        self._next_clock = 0.0
        self._compared_for: datetime | None = None
        self._bars_asked_at: datetime | None = None
        self._next_question = 0.0
        self._refused_since: dict[str, float] = {}
        self._looked_at_jump: dict[str, datetime] = {}

    async def run(self) -> None:
        """Looks at everything about once a second, for ever."""
        before = time.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.time()
            if now - before > LONGEST_GAP_SECONDS:
                await self.woke_up(now - before)
            before = now
            if self._engine.lockstep is None:
                await self.look()

    async def look(self) -> None:
        """One look at streams, account and clock."""
        loop_time = asyncio.get_running_loop().time()
        await self._look_at_bars()
        await self._look_at_updates(loop_time)
        self._compare_now_and_then()
        self._look_at_refusals(loop_time)
        if loop_time >= self._next_clock:
            await self.check_clock()

    async def woke_up(self, seconds: float) -> None:
        """Nothing ran here for so long: whatever was connected is taken to be lost."""
        log.warning("engine.slept", seconds=round(seconds, 1))
        reason = f"nothing ran here for {seconds:.0f} s"
        engine = self._engine
        await engine.sessions.data.reconnect_bars(reason)
        await engine.calls.broker.reconnect_trade_updates(reason)
        engine.recovery.ask(whole_day=True)
        engine.ask_history(engine.sessions.fill_gap(engine))
        await self.check_clock()

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _look_at_bars(self) -> None:
        """Mute: no message at all for two minutes of a session while history has newer bars."""
        engine, now = self._engine, self._engine.clock()
        session = engine.sessions.current
        if session is None or not session.open <= now < session.close or not engine.bar_stream_up.is_set():
            return
        since = max(session.open, engine.heard_bars_at or session.open, self._bars_asked_at or session.open)
        if now - since < MUTE_AFTER:
            return
        self._bars_asked_at = now
        history = await engine.sessions.bars_between(self._symbols_to_ask(), since - MUTE_AFTER, now - HISTORY_LAG)
        if any(self._is_missing(bar) for bars in history.values() for bar in bars):
            reason = f"no message for {_seconds(now - since)} s, while history has newer bars"
            await engine.sessions.data.reconnect_bars(reason)

    def _symbols_to_ask(self) -> list[str]:
        trader = self._engine.trader
        symbols = [*trader.portfolio.positions, *trader.managed_symbols()]
        return list(dict.fromkeys(symbols))[:MOST_SYMBOLS_ASKED]

    def _is_missing(self, bar: Bar) -> bool:
        book = self._engine.trader.books.get(bar.symbol)
        return book is not None and (book.latest_bar_at is None or bar.timestamp > book.latest_bar_at)

    async def _look_at_updates(self, loop_time: float) -> None:
        """Mute: the broker was asked and had news, and the stream still says nothing of it."""
        engine, untold_at = self._engine, self._engine.untold_at
        if untold_at is not None and loop_time - untold_at > UNTOLD_SECONDS:
            engine.untold_at = None
            if engine.trade_stream_up.is_set() and engine.heard_updates_at < untold_at:
                await engine.calls.broker.reconnect_trade_updates("it did not tell what the broker tells when asked")
        if engine.lockstep is not None or not self._is_busy() or loop_time < self._next_question:
            return
        self._next_question = loop_time + QUESTION_SECONDS
        if not engine.trade_stream_up.is_set():
            engine.recovery.ask()
        elif loop_time - engine.heard_updates_at > QUESTION_SECONDS:
            await engine.recovery.look_for_fills()

    def _is_busy(self) -> bool:
        trader = self._engine.trader
        return bool(trader.portfolio.positions) or any(not order.is_terminal for order in trader.orders.values())

    def stream_changed(self, name: str, state: StreamState) -> None:
        """Told of every up and down, to know for how long our place has been refused."""
        if state.connected or not state.is_refused:
            self._refused_since.pop(name, None)
        else:
            self._refused_since.setdefault(name, asyncio.get_running_loop().time())

    def _look_at_refusals(self, loop_time: float) -> None:
        for name, since in self._refused_since.items():
            if name == "trade updates" and loop_time - since > LONGEST_REFUSAL_SECONDS:
                self._engine.stop(
                    f"the broker has refused the stream of {name} for {loop_time - since:.0f} s: "
                    "another engine or program holds it",
                    failed=True,
                )

    # --- account, clock, prices ---------------------------------------------------------------------------------------

    def _compare_now_and_then(self) -> None:
        """A message can get lost on a stream that looks well: during a session ledger and broker are compared."""
        engine, now = self._engine, self._engine.clock()
        session = engine.sessions.current
        if session is None or not session.open <= now < session.close:
            return
        every = BUSY_COMPARE if self._is_busy() else QUIET_COMPARE
        if engine.lockstep is not None:
            every = LOCKSTEP_COMPARE
        if self._compared_for is None or now - self._compared_for >= every:
            self._compared_for = now
            engine.recovery.ask()

    async def check_clock(self) -> None:
        """Compares the broker's clock with ours; far off, nothing is entered until it is right again."""
        engine, loop = self._engine, asyncio.get_running_loop()
        self._next_clock = loop.time() + CLOCK_SECONDS
        before = engine.clock()
        try:
            theirs = await engine.calls.clock()
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("clock.unread", reason=str(error))
            return
        self.drift = drift_of(theirs, asked_at=before, answered_at=engine.clock())
        reason = ""
        if abs(self.drift) > CLOCK_LIMIT:
            reason = f"the clock here and the broker's are {_seconds(abs(self.drift))} s apart"
        if abs(self.drift) > CLOCK_WARNING:
            self._next_clock = loop.time() + CLOCK_AGAIN_SECONDS
            log.warning("clock.drift", seconds=self.drift.total_seconds())
        engine.broadcaster.clock_drift(self.drift)
        await engine.block_entries(reason, cause=CLOCK)

    def look_at_jump(self, bar: Bar) -> None:
        """A session's first bar far from the last close may be a split: the symbol takes no entries that day."""
        engine, session = self._engine, self._engine.sessions.current
        if (
            session is None
            or not session.contains(bar.timestamp)
            or self._looked_at_jump.get(bar.symbol) == session.open
        ):
            return
        self._looked_at_jump[bar.symbol] = session.open
        last = engine.trader.last_prices.get(bar.symbol)
        jumped = last is not None and abs(bar.open - last) * 100 > LARGEST_JUMP * last
        reason = f"it opened at {bar.open} after {last} (a split?)" if jumped else ""
        if jumped or JUMP in engine.trader.blocks_of(bar.symbol):
            engine.post(
                SymbolBlocked(now=engine.clock(), symbol=bar.symbol, reason=reason, cause=JUMP, is_alarm=jumped)
            )


def drift_of(theirs: datetime, *, asked_at: datetime, answered_at: datetime) -> timedelta:
    """How far a clock that was read is ahead of ours, which showed `asked_at` before and `answered_at` after.

    Anything between the two is no difference: the answer was under way.
    """
    if theirs > answered_at:
        return theirs - answered_at
    return min(theirs - asked_at, timedelta(0))


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f}"
