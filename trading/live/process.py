"""The engine's process: lock, lease, market, pages, worker and engine, brought up in order, down in reverse."""

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings as django_settings

from orders.command import UserError
from risk import store as risk_store
from risk.config import Config, as_text
from trading import store
from trading.broker import BrokerError, NotAuthorized
from trading.live.broadcast import Broadcaster, account_mode, activity_line
from trading.live.calls import BrokerCalls, DataCalls
from trading.live.emergency import EmergencyJournal, journal_path
from trading.live.engine import IN_FLIGHT_SECONDS, Engine
from trading.live.history import History
from trading.live.ledger import Ledger, LedgerUnavailable
from trading.live.lock import EngineLock, LockFailed
from trading.live.notifier import Notifier, keep_summaries
from trading.live.operator import Operator, effective
from trading.live.place import Place, open_place
from trading.live.recording import Recorder, remove_older_than
from trading.live.sessions import Sessions
from trading.live.signals import stop_on_signals
from trading.live.supervisor import Supervisor
from trading.live.web import CannotServe, WebServer
from trading.live.worker import Worker
from trading.live.writer import write_left_over
from trading.messages import Halted
from trading.settings import trader_settings
from trading.strategy import UnknownStrategy
from trading.trader import Trader

log = structlog.get_logger("engine")

STREAMS_UP_SECONDS = 30.0
OBJECTS_BETWEEN_COLLECTIONS = 10_000
MOST_SYMBOLS_ASKED_FOR = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks of one run; None and "" leave it to the configuration."""

    provider: str = ""
    symbols: tuple[str, ...] = ()
    web: bool = True
    worker: bool = True
    speed: Decimal | None = None
    data: Path | None = None
    start_date: date | None = None
    end_date: date | None = None
    initial_capital: Decimal = Decimal(25_000)
    seed: int = 1
    stay: bool = False

    def as_texts(self) -> dict[str, str]:
        """The options as they are stored beside the run."""
        return {name: as_text(value) for name, value in asdict(self).items() if value not in (None, "", ())}


async def run_engine(options: Options) -> int:
    """Runs until somebody asks for the end; the exit status: 0 for a graceful stop, 1 for one that was forced on us.

    Raises:
        UserError: the engine cannot start; one line says why and what to do.
    """
    async with AsyncExitStack() as cleanup:
        process = EngineProcess(options, cleanup, on_started=settle_memory)
        stop_on_signals(process.stop)
        return await process.run()


def settle_memory() -> None:
    """What the start left behind stays to the end: the collector need not go through it again while an order waits.

    Of what comes after it looks at less at a time than while modules load: a millisecond or two instead of ten. Only
    for a process that runs one engine: what is there now is never collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an engine is put together from; a simulation puts its own market and its own pace in."""

    place: Callable[[Config, Options, AsyncExitStack], Awaitable[Place]] = open_place
    lock: Callable[[], EngineLock] = EngineLock
    ledger: Callable[[], Ledger] = Ledger
    calls: Callable[..., BrokerCalls] = BrokerCalls
    trader: Callable[..., Trader] = Trader
    engine: Callable[..., Engine] = Engine
    operator: Callable[..., Operator] = Operator
    notifier: Callable[[], Notifier] = Notifier


STANDARD_PARTS = Parts()


class EngineProcess:
    """One engine from its start to its end; `cleanup` takes apart what it has put up."""

    def __init__(
        self,
        options: Options,
        cleanup: AsyncExitStack,
        parts: Parts = STANDARD_PARTS,
        *,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._cleanup = cleanup
        self._parts = parts
        self._on_started = on_started
        self._ledger = parts.ledger()
        self._token = str(uuid4())
        self._engine_lock = parts.lock()
        self._stop_asked = ""
        self.engine: Engine | None = None

    async def run(self) -> int:
        """Runs until somebody asks for the end; see `run_engine`."""
        self._cleanup.callback(self._ledger.close)
        config = await self._config()
        await self._lock()
        port = await self._serve_pages(config) if self._options.web else None
        await self._ledger.run(
            store.take_lease,
            token=self._token,
            pid=os.getpid(),
            host=socket.gethostname(),
            port=port,
            real_at=datetime.now(UTC),
        )
        self._cleanup.push_async_callback(self._drop_lease)
        journal = await self._open_journal()
        place = await self._parts.place(config, self._options, self._cleanup)
        engine = await self._build(config, place, journal)
        return await self._trade(engine, place)

    async def take_over(self) -> Engine:
        """An engine that works, without streams, pages and pace, whoever had this database: for `manage.py flatten`.

        Raises:
            UserError: the broker does not let it be built. LedgerUnavailable.
        """
        self._cleanup.callback(self._ledger.close)
        config = await self._config()
        try:
            await asyncio.to_thread(self._engine_lock.acquire)
            self._cleanup.callback(self._engine_lock.release)
        except LockFailed as error:
            log.warning("lock.passed_over", reason=str(error))  # it hangs: without the lease it can write nothing more
        token, pid, host = self._token, os.getpid(), socket.gethostname()
        await self._ledger.run(store.seize_lease, token=token, pid=pid, host=host, real_at=datetime.now(UTC))
        self._cleanup.push_async_callback(self._drop_lease)
        journal = await self._open_journal()
        place = await self._parts.place(config, self._options, self._cleanup)
        engine = self.engine = await self._build(config, place, journal)
        supervisor = Supervisor(lambda reason: engine.stop(reason, failed=True))
        self._cleanup.push_async_callback(self._end_run, engine)
        self._cleanup.push_async_callback(engine.desk.close)
        self._cleanup.push_async_callback(supervisor.stop)
        supervisor.start("engine", engine.work)
        supervisor.start("ledger", engine.keep_ledger)
        supervisor.start("pulse", engine.keep_pulse)
        supervisor.start("timers", engine.keep_time)
        return engine

    # --- bringing up --------------------------------------------------------------------------------------------------

    async def _config(self) -> Config:
        overrides = await self._ledger.run(risk_store.overrides)
        return effective(django_settings.ALGO, overrides, self._fixed())

    def _fixed(self) -> dict[str, str]:
        """What the command line decided: the settings page cannot change it."""
        fixed = {"broker.provider": self._options.provider, "watchlist": as_text(self._options.symbols)}
        return {key: text for key, text in fixed.items() if text}

    async def _lock(self) -> None:
        try:
            await asyncio.to_thread(self._engine_lock.acquire)
        except LockFailed as error:
            raise UserError(str(error)) from error
        self._cleanup.callback(self._engine_lock.release)

    async def _open_journal(self) -> EmergencyJournal:
        """The emergency journal, after what an earlier engine left in it was written to the ledger."""
        path = journal_path()
        try:
            journal = await asyncio.to_thread(EmergencyJournal, path)
            self._cleanup.callback(journal.close)
            await self._ledger.run(write_left_over, journal)
        except OSError as error:
            raise UserError(
                f"The journal for emergencies cannot be made: {path}: {error.strerror or error}."
            ) from error
        return journal

    async def _drop_lease(self) -> None:
        try:
            await self._ledger.run(store.drop_lease, self._token)
        except LedgerUnavailable as error:
            log.error("lease.not_dropped", reason=str(error))  # it ends by itself, 15 s after the last heartbeat

    async def _serve_pages(self, config: Config) -> int:
        web = WebServer()
        try:
            await web.start(config["web.host"], config["web.port"])
        except CannotServe as error:
            raise UserError(str(error)) from error
        self._cleanup.push_async_callback(web.stop)
        host = f"[{config['web.host']}]" if ":" in config["web.host"] else config["web.host"]
        sys.stdout.write(f"Dashboard: http://{host}:{web.port}\n")
        sys.stdout.flush()
        return web.port

    async def _build(self, config: Config, place: Place, journal: EmergencyJournal) -> Engine:
        """Everything around the Trader, with the account's own history in it."""
        calls = self._parts.calls(place.broker, limiter=place.limiter)
        data_calls = DataCalls(place.data, limiter=place.data_limiter)
        try:
            await place.broker.connect()
            await place.data.connect()
            account = await calls.account()
        except NotAuthorized as error:
            raise UserError(f"The broker refuses the keys: {error}. See ALGO_BROKER__API_KEY.") from error
        except BrokerError as error:
            raise UserError(f"The broker cannot be reached: {error}") from error
        self._cleanup.push_async_callback(place.broker.disconnect)
        self._cleanup.push_async_callback(place.data.disconnect)
        mode = account_mode(provider=config["broker.provider"], paper=config["broker.paper"])
        account_id = f"{config['broker.provider']}:{account.account_number}"
        run_id = await self._start_run(config, account_id, mode)
        recorder = Recorder(django_settings.DATA_DIR, run_id)
        broadcaster = Broadcaster(clock=place.clock, account_mode=mode, run_id=run_id)
        symbols = await self._tradable(calls, config["watchlist"])
        try:
            settings = trader_settings(config)
        except UnknownStrategy as error:
            raise UserError(f"ALGO_STRATEGIES: {error}") from error
        trader = self._parts.trader(
            settings=settings,
            symbols=symbols,
            cash=account.cash,
            account_id=account_id,
            asks_broker=True,
        )
        recent = await self._ledger.run(store.activities, account_id, limit=50)
        history = History(data_calls, store=place.store, source=place.source)
        sessions = Sessions(data=place.data, data_calls=data_calls, calls=calls, history=history)
        broadcaster.attach(
            trader,
            [activity_line(row_id, record) for row_id, record in reversed(recent)],
            next_open=lambda: sessions.next_open,
        )
        return self._parts.engine(
            config=config,
            trader=trader,
            calls=calls,
            ledger=self._ledger,
            journal=journal,
            token=self._token,
            recorder=recorder,
            broadcaster=broadcaster,
            sessions=sessions,
            clock=place.clock,
            run_id=run_id,
            lockstep=place.lockstep,
            times_fills=place.times_fills,
        )

    async def _tradable(self, calls: BrokerCalls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """The symbols that the broker trades. Raises UserError if it trades none of them."""
        if len(symbols) > MOST_SYMBOLS_ASKED_FOR:
            return symbols
        try:
            known = tuple([symbol for symbol in symbols if await calls.is_tradable(symbol)])
        except BrokerError as error:
            raise UserError(f"The broker cannot be asked for its symbols: {error}") from error
        if unknown := [symbol for symbol in symbols if symbol not in known]:
            log.error("symbols.not_tradable", symbols=unknown)
        if not known:
            raise UserError(f"The broker trades none of {', '.join(symbols)}: see ALGO_WATCHLIST or --symbols.")
        return known

    async def _start_run(self, config: Config, account_id: str, mode: str) -> int:
        run_id = await self._ledger.run(
            store.start_run,
            account_id=account_id,
            provider=config["broker.provider"],
            account_mode=mode,
            strategies=config["strategies"],
            symbols=config["watchlist"],
            settings=config.as_texts(),
            settings_hash=config.fingerprint(),
            options=self._options.as_texts(),
            real_at=datetime.now(UTC),
        )
        await self._ledger.run(store.beat, self._token, run_id=run_id, account_id=account_id)
        return run_id

    # --- running ------------------------------------------------------------------------------------------------------

    async def _trade(self, engine: Engine, place: Place) -> int:
        self.engine = engine
        if self._stop_asked:
            engine.stop(self._stop_asked)
        operator = self._parts.operator(
            engine, base=django_settings.ALGO, fixed=self._fixed(), token=self._token, lock=self._engine_lock
        )
        supervisor = Supervisor(lambda reason: engine.stop(reason, failed=True))
        self._cleanup.push_async_callback(supervisor.stop)
        supervisor.start("engine", engine.work)
        supervisor.start("ledger", engine.keep_ledger)
        supervisor.start("pulse", engine.keep_pulse)
        supervisor.start("broadcast", engine.broadcaster.run, critical=False)
        supervisor.start("snapshots", engine.broadcaster.answer_snapshot_requests, critical=False)
        supervisor.start("recording", engine.keep_recording, critical=False)
        notifier = self._parts.notifier()
        engine.broadcaster.follow(notifier.activity)
        notifier.start()
        supervisor.start("summaries", partial(keep_summaries, engine), critical=False)
        try:
            await self._until_stopped(engine, self._restore(engine), grace_seconds=IN_FLIGHT_SECONDS)
            await self._until_stopped(engine, self._start(engine, operator, place, supervisor))
        except BrokerError as error:
            engine.stop(f"the start failed: {error}", failed=True)
        if not engine.recovery.compared_at:
            engine.fail("ledger and broker were not compared")
        await engine.stop_wanted.wait()
        log.info("engine.stopping", reason=engine.stop_reason)
        async with engine.between_steps():
            await supervisor.stop("market", "bars")
        await engine.wind_down(flatten=operator.flatten_on_stop)
        # What would be decided from here on would be in the ledger, and what led to it in no recording.
        await supervisor.stop("timers")
        await engine.broadcaster.say_goodbye()
        await engine.recorder.flush()
        await asyncio.to_thread(notifier.stop)
        await engine.desk.close()
        await engine.abandon()
        await supervisor.stop()
        return await self._end_run(engine)

    async def _end_run(self, engine: Engine) -> int:
        """Writes down how it ended; the exit status."""
        try:
            is_written = await engine.writer.try_again()
        except (store.LeaseLost, *store.DOES_NOT_FIT) as error:
            log.error("ledger.refuses", reason=str(error))
            is_written = False
        has_failed = engine.stop_failed or not is_written
        outcome = "failed" if has_failed else "stopped"
        if is_written:
            try:
                await self._ledger.run(
                    store.end_run, engine.run_id, outcome=outcome, reason=engine.stop_reason, real_at=datetime.now(UTC)
                )
            except LedgerUnavailable as error:
                has_failed = True
                log.error("run.end_not_written", reason=str(error))
        else:
            waiting = len(engine.writer.waiting)
            log.critical("ledger.left_behind", batches=waiting, note="the next start writes them from the journal")
        log.info("engine.stopped", reason=engine.stop_reason, outcome="failed" if has_failed else "stopped")
        return 1 if has_failed else 0

    async def _restore(self, engine: Engine) -> None:
        """Ledger and broker: what a dead engine left behind is known and protected before anything else is done."""
        if await self._ledger.run(risk_store.is_halted, engine.trader.account_id):
            await engine.tell(Halted(now=engine.clock(), reason="halted before the restart"))
        await engine.recovery.restore()

    async def _start(self, engine: Engine, operator: Operator, place: Place, supervisor: Supervisor) -> None:
        """History, then the streams: in this order nothing is missed."""
        await engine.watch.check_clock()
        running = await engine.sessions.look_ahead(engine.clock())
        if running is not None:
            await engine.sessions.begin(engine, running)
        else:
            await engine.sessions.warm_up(engine, engine.trader.managed_symbols())
        await operator.apply_settings()
        supervisor.start("trade updates", engine.follow_trade_updates)
        supervisor.start("bars", engine.follow_bars)
        supervisor.start("operator", operator.run)
        supervisor.start("watch", engine.watch.run)
        try:
            async with asyncio.timeout(STREAMS_UP_SECONDS):
                await engine.trade_stream_up.wait()
                await engine.bar_stream_up.wait()
                await engine.landed()
        except TimeoutError:
            # After a crash the broker may take the old connection for alive, up to 90 s. Positions are protected.
            log.warning("streams.not_up", bars=engine.bar_stream_up.is_set(), trades=engine.trade_stream_up.is_set())
        if place.begin is not None:
            supervisor.start("market", partial(place.begin, engine))
        else:
            supervisor.start("timers", engine.keep_time)
        if place.keep_clock is not None:
            supervisor.start("clock", place.keep_clock, critical=False)
        if self._options.worker:
            worker = Worker()
            supervisor.start("worker", worker.run, critical=False)
        await self._ledger.run(store.beat, self._token, state="running")
        self._on_started()
        try:
            await asyncio.to_thread(remove_older_than, engine.config["recording.retention_days"])
        except OSError as error:
            log.warning("recording.not_removed", reason=str(error))

    async def _until_stopped(
        self, engine: Engine, work: Coroutine[Any, Any, None], *, grace_seconds: float = 0.0
    ) -> None:
        """Runs `work` to its end, or until somebody wants the engine to stop, and so long after that."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(engine.stop_wanted.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done() and grace_seconds:
            await asyncio.wait({working}, timeout=grace_seconds)
        if not working.done():
            working.cancel()
        with suppress(asyncio.CancelledError):
            await working

    def stop(self, reason: str) -> None:
        """Asks for a graceful end, at any time."""
        self._stop_asked = reason
        if self.engine is not None:
            self.engine.stop(reason)
