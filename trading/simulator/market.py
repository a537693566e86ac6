"""The built-in market: its time, its sessions, and the server that speaks for it.

Time moves in steps. At each one the bars of that minute are matched against the working orders, every execution is
told and answered before the next, and then the bars go out. With an engine attached, each step waits until it has
worked everything off (lockstep); alone, the market keeps time by the real clock.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web

from trading.exchange import Exchange
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.simulator.account import Account
from trading.simulator.account_rest import AccountApi
from trading.simulator.accountfile import AccountFile, AccountFileError
from trading.simulator.book import Book, Restrictions
from trading.simulator.data_rest import DataApi
from trading.simulator.faults import NO_FAULTS, Faults, Kind, On, Schedule
from trading.simulator.gate import Gate
from trading.simulator.history import BarSource, Halt, History, midnight
from trading.simulator.lockstep import Lockstep
from trading.simulator.orders import NEW_YORK, utc_text
from trading.simulator.pace import Pace
from trading.simulator.rest import TradingApi
from trading.simulator.streams import Keys, MarketData, TradeUpdates

log = structlog.get_logger("market")

DEFAULT_KEYS = ("simulator", "simulator")
ANSWER_GRACE_SECONDS = 0.05  # alone, the market waits so long after an execution for the client's answer
SMALLEST_CLOCK_STEP_SECONDS = 0.1  # real time; between steps a market on its own moves its clock this often
STOP_SECONDS = 1.0


class Market:
    """One account on one market.

    `speed` is market seconds per real second, 0 for as fast as the engine follows. `account_path` None keeps the
    account in memory; an existing file is taken up where it was left, unless `bars` end and are others or at their end
    now. `unix_time` is the clock that its rate limit goes by. Call `start`, let the engine connect, then `begin` and
    `run`; `ended` is set after the last bar.

    Raises AccountFileError.
    """

    def __init__(
        self,
        *,
        bars: BarSource,
        account_number: str,
        initial_capital: Decimal = Decimal(25_000),
        exchange: Exchange | None = None,
        multiplier: int = 1,
        speed: float = 1.0,
        account_path: Path | None = None,
        keys: Keys = DEFAULT_KEYS,
        lockstep: Lockstep | None = None,
        faults: Schedule = NO_FAULTS,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.bars = bars
        self.faults = Faults(faults)
        self.history = History(bars)
        self.exchange = exchange or Exchange()
        self.ended = asyncio.Event()
        self.symbols: dict[str, None] = {}  # in the order in which their bars are sent
        self.speed = speed
        self._pace = Pace(speed)
        self._lockstep = lockstep
        self._minutes_of: Session | None = None
        self._minutes: dict[str, dict[datetime, Bar]] = {}
        self._file = AccountFile(account_path)
        state = self._load_state() or {
            "account_id": str(uuid4()),
            "account_number": account_number,
            "bars": bars.description,
            "initial_capital": str(initial_capital),
            "multiplier": multiplier,
            "created_at": utc_text(bars.first),
            "now": utc_text(bars.first),
            "last_equity": str(initial_capital),
            "is_open": True,
            "restrictions": {},
        }
        self.account_id: str = state["account_id"]
        self.account_number: str = state["account_number"]
        self.created_at = datetime.fromisoformat(state["created_at"])
        self.now = datetime.fromisoformat(state["now"])
        self._session = self._running_session(was_open=state["is_open"])
        self._following = self._session or bars.next_session(self.now)
        account = Account(cash=Decimal(state["initial_capital"]), multiplier=state["multiplier"])
        self.book = Book(
            account_id=self.account_id,
            account=account,
            exchange=self.exchange,
            knows=self.add_symbol,
            day_end=self._following.close if self._following else self.now,
            faults=self.faults,
        )
        self.book.is_open = self._session is not None
        self.book.restrictions = Restrictions(**state["restrictions"])
        orders = self._file.orders()
        for symbol in (*bars.symbols, *(order.symbol for order in orders if order.is_open)):
            self.add_symbol(symbol)
        self.book.restore(orders, self._file.fills(), now=self.now)
        for symbol in account.positions:
            self.add_symbol(symbol)
        account.last_equity = Decimal(state["last_equity"])
        self._file.write(state=state)

        self._requests_per_minute = None if speed == 0 else round(200 * max(speed, 1))
        self._gate = Gate(
            keys=keys, requests_per_minute=self._requests_per_minute, faults=self.faults, unix_time=unix_time
        )
        self._updates = TradeUpdates(keys=keys, lockstep=lockstep, faults=self.faults)
        self._data = MarketData(keys=keys, lockstep=lockstep, faults=self.faults, on_symbols=self._add_symbols)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=STOP_SECONDS)
        self._address = ""
        self._begun = asyncio.Event()
        self._is_stepping = False
        self._telling = asyncio.Lock()
        self._tasks: set[asyncio.Task[bool]] = set()
        self._mended: list[tuple[datetime, Callable[[], None]]] = []
        if lockstep is not None:
            lockstep.serve(deliver=self._carry_out)

    # --- the server ---------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Opens the port (0: any free one) and returns the base URL. Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        taken = self._runner.addresses[0][1]
        self._address = f"{host}:{taken}"
        await self._carry_out()
        return f"http://{self._address}"

    async def stop(self) -> None:
        """Closes streams, port and file."""
        await self._updates.close()
        await self._data.close()
        await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        try:
            self.save()
        except AccountFileError as error:
            log.error("market.not_saved", reason=str(error))
        self._file.close()

    @property
    def urls(self) -> dict[str, str]:
        """What the settings `broker.*_url` are to be, by the settings' names."""
        return {
            "trading_url": f"http://{self._address}",
            "trading_stream_url": f"ws://{self._address}/stream",
            "data_url": f"http://{self._address}",
            "data_stream_url": f"ws://{self._address}/v2/iex",
        }

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._gate.every_reply])
        application.add_routes(TradingApi(self).routes())
        application.add_routes(AccountApi(self).routes())
        application.add_routes(DataApi(self).routes())
        application.add_routes(
            [
                web.get("/stream", self._updates.handle),
                web.get("/v2/iex", self._data.handle),
                web.get("/v2/sip", self._data.handle),
                web.get("/market/clock", self._clock),
            ]
        )
        return application

    async def _clock(self, request: web.Request) -> web.Response:
        """For an engine in another process, which follows this market's time."""
        return web.json_response({"now": utc_text(self.told_now), "speed": self.speed})

    # --- what the server asks -----------------------------------------------------------------------------------------

    @property
    def told_now(self) -> datetime:
        """The time as this market's clock tells it."""
        return self.now + timedelta(seconds=self.faults.clock_step_seconds)

    @property
    def next_open(self) -> datetime:
        """When the market opens next; its last opening when no session follows."""
        return (self.bars.next_session(self.now) or calendar.next_session(self.now)).open

    @property
    def next_close(self) -> datetime:
        """When the market closes next."""
        return (self._session or self._following or calendar.next_session(self.now)).close

    @property
    def day_start(self) -> datetime:
        """Midnight of the market's day in New York."""
        return midnight(self.now.astimezone(NEW_YORK).date())

    def previous_close(self, symbol: str) -> Decimal | None:
        """The close of the session before today."""
        return self.history.last_close_before(symbol, self.now.astimezone(NEW_YORK).date())

    def add_symbol(self, symbol: str) -> bool:
        """Trades the symbol from now on if this market knows it; False if it does not."""
        if symbol in self.symbols:
            return True
        if not self.bars.knows(symbol):
            return False
        self.symbols[symbol] = None
        latest = self.history.latest(symbol, now=self.now)
        if latest is not None:
            self.exchange.last_close[symbol] = latest.close
        return True

    def _add_symbols(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self.add_symbol(symbol)

    def save(self) -> None:
        """Writes down what has changed. Raises AccountFileError."""
        orders, fills = self.book.changes()
        state = {
            "now": utc_text(self.now),
            "last_equity": str(self.book.account.last_equity),
            "is_open": self.book.is_open,
            "restrictions": asdict(self.book.restrictions),
        }
        self._file.write(state=state, orders=orders, fills=fills)
        self.book.changes_kept()

    def carry_out_soon(self) -> None:
        """A request was taken: it is carried out once its sender is idle (lockstep), else right after the answer."""
        if self._is_stepping and self._lockstep is not None and self._lockstep.is_attached:
            self._lockstep.changed()
        else:
            task = asyncio.create_task(self._carry_out())
            self._tasks.add(task)
            task.add_done_callback(self._carried_out)

    def _carried_out(self, task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("market.request_failed", exc_info=error)

    async def _carry_out(self) -> bool:
        if not self.book.has_requests:
            return False
        self.book.route(self.now)
        await self._tell()
        return True

    async def _tell(self) -> None:
        """Writes down what happened and then tells the stream, in order."""
        async with self._telling:
            self.save()
            for update in self.book.take_updates():
                await self._updates.send(update)

    # --- halts --------------------------------------------------------------------------------------------------------

    async def halt(self, symbol: str, reason: str) -> None:
        """The exchange stops trading in a symbol: no bars, no executions, until `resume`."""
        self.book.halted.add(symbol)
        self.history.halts.setdefault(symbol, []).append(Halt(start=self.now))
        await self._data.send_status(symbol, halted=True, reason=reason, at=self.now)

    async def resume(self, symbol: str) -> None:
        """The exchange trades the symbol again."""
        self.book.halted.discard(symbol)
        for halt in self.history.halts.get(symbol, ()):
            halt.end = halt.end or self.now
        await self._data.send_status(symbol, halted=False, reason="", at=self.now)

    # --- time ---------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Lets time run: whoever wants to see the first bar is connected."""
        self._begun.set()

    async def run(self) -> None:
        """Plays the sessions until the bars end, or for ever."""
        await self._begun.wait()
        self._pace.anchor(self.now, asyncio.get_running_loop().time())
        self._is_stepping = True
        try:
            while (session := self._session or self._following) is not None:
                if self._session is None:
                    await self._pass_time(session.open, partial(self._open, session))
                await self._play(session)
                self._following = self.bars.next_session(session.open)
                if self._following is None:
                    break
                await self._close(session, self._following)
        finally:
            self._is_stepping = False
            self.carry_out_soon()  # what was asked for and waited for the next step
        # What is open now is closed by its owner at the last price, whole: the market stays open for that.
        self.exchange.lift_volume_limit()
        self._file.write(state={"is_over": True})
        self.ended.set()

    async def _open(self, session: Session) -> None:
        self._session = session
        self.book.open_session(self.now)
        await self._tell()
        await self._settled()
        await self._fire_timers()

    async def _play(self, session: Session) -> None:
        for minute in range((session.close - session.open) // MINUTE):
            at = session.open + (minute + 1) * MINUTE
            if at > self.now and any(self._bars_of(session, at - MINUTE)):
                await self._pass_time(at, partial(self._step, session))

    async def _step(self, session: Session) -> None:
        """One minute is over: its bars, symbol by symbol, then the engine's timers."""
        self._mend()
        self._fail_minute()
        self.save()  # from here on this minute is never matched again, whatever happens
        for bar in self._bars_of(session, self.now - MINUTE):
            for execution in self.exchange.match(bar):
                await self._data.flush()  # what came before it is known before it
                self.book.executed(execution, now=self.now)
                await self._tell()
                await self._answered()
            await self._data.send_bar(bar)
            await self._settled()
        await self._data.flush()
        await self._fire_timers()

    def _fail_minute(self) -> None:
        """What goes wrong from this minute on, for a while or for good."""
        fault = self.faults.strike(On.MINUTE)
        if fault is None:
            return
        until = self.now + timedelta(seconds=fault.seconds)
        match fault.kind:
            case Kind.CLOCK_STEP:
                self.faults.clock_step_seconds = fault.seconds
            case Kind.RATE_LIMIT:
                self._gate.limit(fault.number_a_minute)
                self._mended.append((until, lambda: self._gate.limit(self._requests_per_minute)))
            case Kind.THIN:
                self.exchange.limit_volume(fault.share)
                self._mended.append((until, self.exchange.lift_volume_limit))

    def _mend(self) -> None:
        for until, mend in [each for each in self._mended if each[0] <= self.now]:
            self._mended.remove((until, mend))
            mend()

    async def _close(self, session: Session, following: Session) -> None:
        if self.now < session.close:
            await self._pass_time(session.close, self._fire_timers)
        async with self._moving():
            self._session = None
            self.book.close_session(self.now, day_end=following.close)
            await self._tell()
            await self._settled()

    async def _pass_time(self, until: datetime, then: Callable[[], Awaitable[None]]) -> None:
        """Time goes on to `until` and `then` happens; timers of the engine that are due before fire at their time."""
        self._pace.keep_up(self.now, asyncio.get_running_loop().time())
        fired: datetime | None = None
        while True:
            await self._settled()
            due = self._timer_before(until, fired)
            target = until if due is None else max(due, self.now)
            if not await self._slept(target):
                continue
            async with self._moving():
                await self._settled()  # what came between two steps comes before this one
                if self._timer_before(until, fired) != due:
                    continue
                self.now = target
                if due is None:
                    return await then()
                fired = due
                await self._fire_timers()

    def _timer_before(self, until: datetime, fired: datetime | None) -> datetime | None:
        """When the engine's next timer is due; one that is still there after it was fired must not hold time up."""
        due = self._lockstep.next_due() if self._lockstep else None
        return due if due is not None and due < until and due != fired else None

    def _moving(self) -> AbstractAsyncContextManager[None]:
        """One step: an engine in lockstep does not interrupt it."""
        return self._lockstep.step() if self._lockstep is not None else nullcontext()

    async def _slept(self, target: datetime) -> bool:
        """Waits in real time until it is `target` in the market; False if the engine did something meanwhile."""
        loop = asyncio.get_running_loop()
        if self.speed == 0 or self._session is None:  # closed hours are skipped
            await asyncio.sleep(0)
            self._pace.anchor(target, loop.time())
            return True
        is_followed = self._lockstep is not None and self._lockstep.is_attached
        step = max(1 / self.speed, SMALLEST_CLOCK_STEP_SECONDS)
        while (left := self._pace.real_at(target) - loop.time()) > 0:
            if self._lockstep is not None and is_followed:
                # Faster than real time an engine in lockstep knows whole minutes only: its runs are reproducible.
                if await self._lockstep.wait_for_change(min(left, step) if self.speed <= 1 else left):
                    return False
            else:
                await asyncio.sleep(min(left, step))
            if self.speed <= 1 or not is_followed:
                self.now = max(self.now, min(self._pace.market_at(loop.time()), target))
        return True

    async def _fire_timers(self) -> None:
        if self._lockstep is not None:
            await self._lockstep.timers(self.now)

    async def _settled(self) -> None:
        """The engine has worked off everything, and what it asked for has been carried out."""
        if self._lockstep is not None:
            await self._lockstep.settled()

    async def _answered(self) -> None:
        """Whoever listens has had the chance to answer an execution."""
        if self._lockstep is not None and self._lockstep.is_attached:
            await self._lockstep.settled()
        elif self._updates.is_listening:
            await asyncio.sleep(ANSWER_GRACE_SECONDS)

    # --- bars and sessions --------------------------------------------------------------------------------------------

    def _bars_of(self, session: Session, timestamp: datetime) -> list[Bar]:
        """The bars of one minute, in the order of the symbols."""
        if self._minutes_of != session:
            self._minutes_of, self._minutes = session, {}
        for symbol in self.symbols:
            if symbol not in self._minutes:
                self._minutes[symbol] = {bar.timestamp: bar for bar in self.bars.session_bars(symbol, session)}
        bars = (self._minutes[symbol].get(timestamp) for symbol in self.symbols)
        return [bar for bar in bars if bar is not None and self.history.has_traded(bar)]

    def _running_session(self, *, was_open: bool) -> Session | None:
        """The session that `now` lies in; at its very close it runs until the market has closed it."""
        today = self.now.astimezone(NEW_YORK).date()
        for session in self.bars.sessions(today, today):
            if session.contains(self.now) or (was_open and self.now == session.close):
                return session
        return None

    def _load_state(self) -> dict[str, Any]:
        """The state in the file, nothing if a new account is to be opened."""
        state = self._file.state()
        if not state:
            return {}
        is_the_same = state["bars"] == self.bars.description
        if is_the_same and not state.get("is_over"):
            return state
        if self.bars.is_endless:
            self._file.close()
            raise AccountFileError(f"the account's file belongs to {state['bars']}, not to {self.bars.description}")
        self._file.clear()
        return {}
