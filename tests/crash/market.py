"""The built-in market in a process of its own, playing a scripted day for engines that come and go."""

import asyncio
import os
import signal
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.crash import ledger
from tests.crash.days import Day
from tests.crash.link import EPOCH, MarketEnd, SharedClock
from trading.exchange import Exchange
from trading.market import MINUTE
from trading.simulator.accountfile import AccountFile
from trading.simulator.lockstep import Lockstep
from trading.simulator.market import Market
from trading.simulator.orders import BrokerOrder, utc_text

CAPITAL = Decimal(25_000)
ACCOUNT, CLOCK, LINK, ADDRESS, OVER, NAKED = "account.db", "clock", "link", "address", "over", "naked"
KEYS = ("the-key", "the-secret")
PATIENCE_SECONDS = 600
LOOK_AGAIN_SECONDS = 0.02


class ScriptedMarket(Market):
    """A market whose time others can read, and whose trade stream can be cut."""

    def __init__(self, *, clock: SharedClock, **options: Any) -> None:
        self._shared = clock
        self._now = EPOCH
        super().__init__(**options)

    @property
    def now(self) -> datetime:
        """Market time."""
        return self._now

    @now.setter
    def now(self, moment: datetime) -> None:
        self._now = moment
        self._shared.tell(moment)

    async def cut_trade_stream(self) -> None:
        """Whoever listens is thrown out; returns when somebody listens again."""
        await self._updates.close()
        while not self._updates.is_listening:  # noqa: ASYNC110 - the stream has no event for it
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def play(day: Day, folder: Path) -> None:
    """Plays the day to its end, then asks each engine to stop, until this process itself is stopped."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    _leave_account_at_start(day, folder)
    lockstep = Lockstep(timeout_seconds=PATIENCE_SECONDS)
    engine = MarketEnd(lockstep)
    market = ScriptedMarket(
        clock=SharedClock(folder / CLOCK),
        bars=day.source(),
        account_number="CRASH",
        exchange=Exchange(max_volume_share=Decimal(day.settings.get("backtest.max_volume_share", "0.01"))),
        speed=0,
        account_path=folder / ACCOUNT,
        keys=KEYS,
        lockstep=lockstep,
    )
    script = _Script(day, market, engine, lockstep, folder)
    lockstep.attach(next_due=engine.next_due, fire_timers=script.end_of_step, is_idle=engine.is_idle)
    await market.start()
    server = await engine.listen(folder / LINK)
    (folder / f"{ADDRESS}.new").write_text(market.urls["trading_url"])
    (folder / f"{ADDRESS}.new").rename(folder / ADDRESS)
    market.begin()
    running = asyncio.create_task(_to_the_end(market, engine, lockstep, folder))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    lockstep.detach()
    server.close()
    await market.stop()


async def _to_the_end(market: ScriptedMarket, engine: MarketEnd, lockstep: Lockstep, folder: Path) -> None:
    await market.run()
    while True:
        await lockstep.settled()
        # Another process asks for an order that may never have been sent: for half a minute by the wall clock.
        while await asyncio.to_thread(ledger.in_doubt):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_SECONDS * 10)
        (folder / OVER).touch()
        await _send_away(engine, lockstep)


async def _send_away(engine: MarketEnd, lockstep: Lockstep) -> None:
    """Asks the engine to stop, serves it until it has, and returns when there is another."""
    pid = engine.engine_pid
    with suppress(ProcessLookupError):  # it may have been killed a moment ago
        os.kill(pid, signal.SIGTERM)
    while engine.engine_pid == pid:
        await lockstep.settled()
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _leave_account_at_start(day: Day, folder: Path) -> None:
    """An account as a market leaves it that was stopped when the script begins."""
    file = AccountFile(folder / ACCOUNT)
    file.write(
        state={
            "account_id": "4b1d8a2e-0f57-4c36-8e0a-6f1f6f4a0c11",
            "account_number": "CRASH",
            "bars": day.name,
            "initial_capital": str(CAPITAL),
            "multiplier": 1,
            "created_at": utc_text(day.source().first),
            "now": utc_text(day.start),
            "last_equity": str(CAPITAL),
            "is_open": True,
            "restrictions": {},
        }
    )
    file.close()


class _Script:
    """What happens at the end of each minute, besides the engine's timers."""

    def __init__(self, day: Day, market: ScriptedMarket, engine: MarketEnd, lockstep: Lockstep, folder: Path) -> None:
        self._day = day
        self._market = market
        self._engine = engine
        self._lockstep = lockstep
        self._naked = folder / NAKED
        self._done: set[int] = set()

    async def end_of_step(self, at: datetime) -> None:
        """The engine's timers, then what the script says."""
        await self._engine.fire_timers(at)
        await self._lockstep.settled()
        self._note_naked_shares(at)
        minute = (at - self._day.start) // MINUTE - 1
        if at != self._day.start + (minute + 1) * MINUTE or minute in self._done:
            return
        self._done.add(minute)
        if minute in self._day.streams_lost:
            await self._market.cut_trade_stream()
            await self._lockstep.settled()
        if minute in self._day.stops:
            await _send_away(self._engine, self._lockstep)
            self._note_naked_shares(at)

    def _note_naked_shares(self, at: datetime) -> None:
        """Shares without exactly one stop at the end of a step, with an idle engine, go on record."""
        book = self._market.book
        for symbol, position in book.account.positions.items():
            orders = book.open_orders(symbol)
            if any(order.opens for order in orders):
                continue  # it is still being filled: the deadline for its protection runs
            stops = [order for order in orders if not order.opens]
            if sum((order.leaves for order in stops), Decimal(0)) != abs(position.qty) or len(stops) != 1:
                with self._naked.open("a") as file:
                    file.write(f"{at.isoformat()} {position.qty} {symbol} covered by {list(map(_in_words, stops))}\n")


def _in_words(order: BrokerOrder) -> str:
    return f"{order.side} {order.leaves} {order.order_type} {order.status}"


def run(day: Day, folder: Path) -> int:
    """As a process does it: its output goes to a file."""
    output = os.open(folder / "market.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    ledger.use(folder)
    asyncio.run(play(day, folder))
    return 0
