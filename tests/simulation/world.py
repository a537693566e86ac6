"""One story played: the real engine and the built-in market in one process, on virtual time, with a watch on both."""

import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from channels.layers import channel_layers
from django.conf import settings as django_settings
from django.test import override_settings

from orders.command import UserError
from risk.config import Config
from tests import databases
from tests.simulation.invariants import Violation, Watch
from tests.simulation.stories import QUIET_MINUTES, SETTINGS, Story, Stretch
from tests.simulation.virtual_time import LIFE, Life, NothingWillHappen, VirtualLoop
from trading import store
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.calls import RateLimiter
from trading.live.engine import Engine
from trading.live.operator import Operator
from trading.live.place import Place
from trading.live.process import EngineProcess, Options, Parts
from trading.simulator.faults import Fault, Kind
from trading.simulator.market import Market

KEYS = ("simulation", "market")
PING_SECONDS = 20.0  # half as many pings as usual, answered as soon
RESTART_SECONDS = 10.0  # an engine that has stopped is started again by whoever runs it
SECOND_START_SECONDS = 1.0
LAST_SECONDS = 60.0  # so long a graceful stop may take


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a story ended: `violation` is None if every invariant held. `happened` tells it in order.

    `at_the_broker` is every order and execution there, in order, with its time.
    """

    story: Story
    violation: str | None
    happened: list[str]
    at_the_broker: list[str]
    naked_seconds: list[float]
    naked_and_served_seconds: list[float]
    retry_seconds: list[tuple[str, float]]
    struck: list[Fault]
    crashes: int
    orders: int
    cpu_seconds: float


def play(story: Story, *, template: Path | str, folder: Path | None = None, parts: Parts | None = None) -> Outcome:
    """Plays a story on a copy of the migrated database `template`: a SQLite file, or the name of a PostgreSQL one."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        databases.copied(template, Path(name)) as url,
        databases.default_database(url, keep=True),
        override_settings(DATA_DIR=Path(name), ALGO=_config(story)),
    ):
        loop = VirtualLoop(str(story.seed))
        try:
            return _World(story, loop, parts or SIMULATED, url).play()
        finally:
            loop.close()


def _config(story: Story) -> Config:
    keys = {"broker.provider": "alpaca", "broker.api_key": KEYS[0], "broker.secret_key": KEYS[1]}
    config: Config = django_settings.ALGO
    # Where orders are filled in parts, entries live long enough for a second part.
    is_thin = any(fault.kind is Kind.THIN for fault in story.schedule.faults)
    chosen = {"watchlist": ",".join(story.symbols), "velez.buy_stop_expiry_candles": "3" if is_thin else "1"}
    return config.with_overrides({**SETTINGS, **keys, **chosen})


class PacedEngine(Engine):
    """Looks at the clock as often as the market moves it."""

    longest_sleep_seconds = 1.0

    def read_meters(self) -> str:
        """Nobody asks a simulated engine for its figures, and to write them out takes a tenth of a story."""
        return ""

    async def keep_pulse(self) -> None:
        """Virtual time never stands still. The real one may, while somebody has suspended the simulation."""
        await asyncio.Event().wait()


class PacedOperator(Operator):
    """Looks for requests less often: a look takes longer here than a second does."""

    poll_seconds = 40.0


SIMULATED = Parts(engine=PacedEngine, operator=PacedOperator)


class _World:
    def __init__(self, story: Story, loop: VirtualLoop, parts: Parts, url: str) -> None:
        self._story = story
        self._loop = loop
        self._happened: list[str] = []
        self._market = Market(
            bars=Stretch(story),
            account_number="PA-SIMULATION",
            speed=1.0,
            keys=KEYS,
            faults=story.schedule,
            unix_time=loop.time,
        )
        self._parts = replace(parts, place=self._place)
        self._watch = Watch(self._market, url, clock=loop.time, say=self._say)
        self._life: Life | None = None
        self._process: EngineProcess | None = None
        self._crashes = list(story.crashes)
        self._pieces_left: int | None = None
        self._killed = asyncio.Event()
        self._is_ending = False
        self._problem: BaseException | None = None
        self._failed = loop.create_future()
        loop.held = lambda: self._market.faults.held
        loop.on_step = self._step
        loop.set_exception_handler(self._unhandled)

    def play(self) -> Outcome:
        started = time.process_time()
        channel_layers.backends.clear()  # they belong to the loop of the story before
        random.seed(self._story.seed)  # what jitter is drawn from
        structlog.configure(processors=[self._hear], cache_logger_on_first_use=False)
        asyncio.set_event_loop(self._loop)
        logging.disable(logging.CRITICAL)
        violation = None
        try:
            self._loop.run_until_complete(self._run())
        except Violation as found:
            violation = str(found)
        except NothingWillHappen as stuck:
            violation = f"I6 the engine hangs: {stuck}"
        finally:
            logging.disable(logging.NOTSET)
            asyncio.set_event_loop(None)
            self._watch.close()
        return Outcome(
            story=self._story,
            violation=violation,
            happened=self._happened,
            at_the_broker=[line for line in self._happened if " broker " in line],
            naked_seconds=self._watch.naked_seconds,
            naked_and_served_seconds=self._watch.naked_and_served_seconds,
            retry_seconds=self._watch.retry_seconds,
            struck=self._market.faults.struck,
            crashes=len(self._story.crashes) - len(self._crashes),
            orders=len(self._market.book.orders),
            cpu_seconds=time.process_time() - started,
        )

    # --- the run ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._market.start()
        self._market.begin()
        playing = asyncio.create_task(self._market.run())
        engines = asyncio.create_task(self._keep_an_engine())
        wishes = asyncio.create_task(self._wish())
        try:
            await self._until(self._story.minutes * 60.0, engines, wishes)
            wishes.cancel()
            self._market.faults.end()
            self._say("sim", "from here on nothing goes wrong")
            await self._until(self._story.minutes * 60.0 + QUIET_MINUTES * 60.0, engines, wishes)
            await asyncio.to_thread(self._watch.check_at_rest)
            self._is_ending = True
            if self._process is not None:
                self._process.stop("the story is over")
            await asyncio.wait_for(engines, LAST_SECONDS)
            self._raise_problem()
            await asyncio.to_thread(self._watch.check_after_stop)
        except TimeoutError:
            raise Violation("I6 the engine does not stop") from None
        finally:
            if self._life is not None and not self._life.is_over:
                self._loop.kill(self._life)
            for task in (playing, engines, wishes):
                task.cancel()
            await asyncio.gather(playing, engines, wishes, return_exceptions=True)
            await self._market.stop()

    async def _until(self, seconds: float, *tasks: asyncio.Task[Any]) -> None:
        while self._loop.time() < seconds:
            waiting = {self._failed, *(task for task in tasks if not task.done())}
            left_seconds = seconds - self._loop.time()
            await asyncio.wait(waiting, timeout=left_seconds, return_when=asyncio.FIRST_COMPLETED)
            self._raise_problem()
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    async def _keep_an_engine(self) -> None:
        """Starts an engine, and another one whenever the last has ended."""
        while True:
            self._killed.clear()
            self._life = Life()
            self._watch.engine_starts()
            running = self._loop.begin(self._life, self._engine())
            killed = asyncio.create_task(self._killed.wait())
            await asyncio.wait({running, killed}, return_when=asyncio.FIRST_COMPLETED)
            killed.cancel()
            if self._is_ending:
                return
            self._watch.engine_ends()
            if not self._killed.is_set():
                running.result()
                await asyncio.sleep(RESTART_SECONDS)
            else:
                crash = self._crashes.pop(0)
                await asyncio.sleep(crash.down_seconds)

    async def _engine(self) -> None:
        async with AsyncExitStack() as cleanup:
            process = self._process = EngineProcess(Options(web=False, worker=False), cleanup, self._parts)
            try:
                await process.run()
            except UserError as error:
                self._say("engine", f"cannot start: {error}")
                return
        engine = process.engine
        reason = engine.stop_reason if engine is not None else ""
        self._say("engine", f"stopped: {reason}")
        if ("could not be handled" in reason and "LeaseLost" not in reason) or "failed unexpectedly" in reason:
            raise Violation(f"I6 {reason}")

    async def _wish(self) -> None:
        for wish in self._story.wishes:
            await asyncio.sleep(max(wish.after_seconds - self._loop.time(), 0))
            self._say("operator", wish.kind)
            if wish.kind == "second engine":
                await self._second_engine()
                continue
            with suppress(store.NoLiveEngine):
                await asyncio.to_thread(store.ask, wish.kind, {}, by="operator")

    async def _second_engine(self) -> None:
        """Somebody starts another engine on the same database: it must not get as far as trading."""
        first, first_life = self._process.engine if self._process is not None else None, self._life
        if first is None or first.stop_wanted.is_set() or first_life is None or first_life.is_over:
            return  # nobody is there to be in its way
        life, others = Life(), list[EngineProcess]()

        async def start() -> None:
            async with AsyncExitStack() as cleanup:
                others.append(EngineProcess(Options(web=False, worker=False), cleanup, self._parts))
                with suppress(UserError):
                    await others[0].run()

        task = self._loop.begin(life, start())
        await asyncio.wait({task}, timeout=SECOND_START_SECONDS)
        self._loop.kill(life)
        others[0]._engine_lock.release()  # the system does, when a process ends
        if others[0].engine is not None and not first_life.is_over:  # else it was killed in this very moment
            raise Violation("I2 two engines run on one database")

    async def _place(self, config: Config, options: Options, cleanup: AsyncExitStack) -> Place:
        urls = self._market.urls
        timing = Timing(ping_seconds=PING_SECONDS, unix_time=self._loop.time)
        return Place(
            broker=AlpacaBroker(
                *KEYS,
                trading_url=urls["trading_url"],
                trading_stream_url=urls["trading_stream_url"],
                timing=timing,
            ),
            data=AlpacaData(*KEYS, data_url=urls["data_url"], data_stream_url=urls["data_stream_url"], timing=timing),
            clock=lambda: self._market.now,
            limiter=RateLimiter(),
            data_limiter=RateLimiter(reserved=0),
            times_fills=False,
        )

    # --- between any two pieces of work -------------------------------------------------------------------------------

    def _step(self) -> None:
        try:
            self._watch.look()
        except Violation as found:
            self._fail(found)
        self._crash_if_due()

    def _crash_if_due(self) -> None:
        if not self._crashes or self._life is None or self._life.is_over:
            return
        if self._pieces_left is None:
            if self._loop.time() >= self._crashes[0].after_seconds:
                self._pieces_left = self._crashes[0].pieces
            return
        self._pieces_left -= 1
        if self._pieces_left < 0:
            self._pieces_left = None
            self._say("sim", "the engine is killed")
            self._loop.kill(self._life)
            if self._process is not None:
                self._process._engine_lock.release()  # the system does, when a process ends
            self._loop.call_soon(self._killed.set)

    def _fail(self, problem: BaseException) -> None:
        if self._problem is None:
            self._problem = problem
            self._failed.set_result(None)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            return  # a connection that a fault has cut
        self._fail(Violation(f"I6 unhandled: {context.get('message')} {error!r}"))

    # --- the story as it happened -------------------------------------------------------------------------------------

    def _say(self, who: str, what: str) -> None:
        self._happened.append(f"{self._loop.time():8.1f} {self._market.now:%H:%M:%S} {who:8} {what}")

    def _hear(self, logger: Any, level: str, record: Mapping[str, Any]) -> Any:
        """Takes down what engine and market log."""
        if level != "debug":
            life = LIFE.get()
            words = {k: v for k, v in record.items() if k not in ("event", "exc_info", "correlation_id")}
            error = record.get("exc_info")
            tail = f" {error!r}" if isinstance(error, BaseException) else ""
            details = " ".join(f"{name}={value}" for name, value in words.items())
            self._say("engine" if life else "market", f"{level}: {record['event']} {details}{tail}"[:240])
            if record["event"] == "task.error":
                self._watch.unhandled(error)
        raise structlog.DropEvent
