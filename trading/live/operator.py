"""What people ask of the engine: requests and settings are rows, picked up here several times a second."""

import asyncio
import logging
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import structlog
from django.db import Error as DatabaseError

from orders.lifecycle import Side
from risk import store as risk_store
from risk.config import Config, ConfigError
from trading import store
from trading.holdings import not_flat, proof
from trading.live.desk import HALTED_FROM_OUTSIDE
from trading.live.flatten import close_everything
from trading.live.ledger import LedgerUnavailable
from trading.live.lock import AnotherEngine, EngineLock, LockFailed
from trading.market import round_down, round_up
from trading.messages import (
    CloseRequested,
    Event,
    Halted,
    Resumed,
    SettingsChanged,
    StopMoveRequested,
    WatchlistChanged,
)
from trading.settings import trader_settings

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

POLL_SECONDS = 0.25
SLOW_POLL_SECONDS = 2.0  # while the ledger cannot be read
BEAT_SECONDS = 3.0


class BadRequest(Exception):
    """The request cannot be carried out as it stands."""


class Operator:
    """Holds the engine's lease, carries out requests that name it, and applies changed settings.

    `base` is the configuration without the overrides of the settings page; `fixed` are settings of this run that the
    page cannot change, such as symbols given on the command line.
    """

    poll_seconds = POLL_SECONDS

    def __init__(
        self, engine: "Engine", *, base: Config, fixed: Mapping[str, str], token: str, lock: EngineLock
    ) -> None:
        self._engine = engine
        self._base = base
        self._fixed = fixed
        self._token = token
        self._lock = lock
        self._overrides: dict[str, str] | None = None
        self._flattening: set[asyncio.Task[None]] = set()
        self.flatten_on_stop = False

    async def run(self) -> None:
        """Looks for requests and settings, and keeps the lease alive, for ever."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        while True:
            try:
                if loop.time() >= next_beat:
                    next_beat = loop.time() + BEAT_SECONDS
                    meters = await asyncio.to_thread(self._engine.read_meters)  # takes milliseconds to write out
                    await self._engine.ledger.run(store.beat, self._token, meters=meters)
                    await asyncio.to_thread(self._keep_lock)
                for request in await self._engine.ledger.run(store.claim_requests, self._token):
                    await self._carry_out(request)
                await self._look_for_halt()
                await self.apply_settings()
            except (store.LeaseLost, AnotherEngine) as error:
                if isinstance(error, store.LeaseLost):
                    self._engine.writer.lease_is_lost(error)
                self._engine.stop(str(error), failed=True)
            except LedgerUnavailable as error:
                self._engine.writer.lost(str(error))  # which says so, once, and tries again
            except (DatabaseError, LockFailed) as error:
                log.error("operator.database", reason=str(error))
            await asyncio.sleep(SLOW_POLL_SECONDS if self._engine.writer.problem else self.poll_seconds)

    async def _look_for_halt(self) -> None:
        """Somebody may have halted the account without us: `manage.py flatten`, while this engine hung."""
        engine = self._engine
        if not engine.trader.halted and await engine.ledger.run(risk_store.is_halted, engine.trader.account_id):
            async with engine.between_steps():
                await engine.tell(Halted(now=engine.clock(), reason=HALTED_FROM_OUTSIDE))

    def _keep_lock(self) -> None:
        """Takes the lock again if it was lost with its connection. Raises AnotherEngine if somebody else has it now."""
        if not self._lock.is_held():
            log.warning("lock.lost")
            self._lock.acquire()

    async def _carry_out(self, request: Any) -> None:
        log.info("request", kind=request.kind, by=request.requested_by, payload=request.payload)
        if request.kind == "flatten":
            task = asyncio.create_task(self._flatten(request))  # takes its time, and others may ask meanwhile
            self._flattening.add(task)
            task.add_done_callback(self._flattening.discard)
            return
        problem = ""
        try:
            async with self._engine.between_steps():
                await self._do(request.kind, request.payload, by=request.requested_by)
        except BadRequest as error:
            problem = str(error)
        await self._engine.ledger.run(store.finish_request, request.id, error=problem)

    async def _flatten(self, request: Any) -> None:
        """Done is what the broker shows, not what was sent: the result tells what was there before and what is now."""
        before, after = await close_everything(self._engine, reason=f"flattened by {request.requested_by}")
        result, problem = "\n".join(proof(before, after)), "" if after.is_flat else not_flat(after)
        await self._engine.ledger.run(store.finish_request, request.id, result=result, error=problem)

    async def _do(self, kind: str, payload: Mapping[str, Any], *, by: str) -> None:
        engine = self._engine
        now = engine.clock()
        event: Event
        match kind:
            case "shutdown":
                self.flatten_on_stop = bool(payload.get("flatten"))
                engine.stop(f"asked to by {by}")
                return
            case "halt":
                event = Halted(now=now, reason=f"halted by {by}")
            case "resume":
                event = Resumed(now=now)
            case "close":
                event = CloseRequested(now=now, symbol=self._held_symbol(payload))
            case "move_stop":
                symbol = self._held_symbol(payload)
                event = StopMoveRequested(now=now, symbol=symbol, stop_price=self._better_stop(symbol, payload))
            case _:
                raise BadRequest(f"there is no request {kind!r}")
        await engine.tell(event)

    def _held_symbol(self, payload: Mapping[str, Any]) -> str:
        symbol = str(payload.get("symbol", ""))
        if symbol not in self._engine.trader.portfolio.positions:
            raise BadRequest(f"there is no position in {symbol!r}")
        return symbol

    def _better_stop(self, symbol: str, payload: Mapping[str, Any]) -> Decimal:
        """The stop price asked for, as long as it gives back less than the present one and is not reached already."""
        trader = self._engine.trader
        position = trader.portfolio.positions[symbol]
        price = _price(payload.get("stop_price"))
        is_long = position.side is Side.LONG
        price = round_down(price) if is_long else round_up(price)
        stop, last = trader.stop_of(symbol), trader.last_prices.get(symbol)
        if stop is not None and stop.stop_price is not None and (price <= stop.stop_price) == is_long:
            raise BadRequest(f"the stop of {symbol} is at {stop.stop_price} and only ever moves towards the price")
        if last is not None and (price >= last) == is_long:
            raise BadRequest(f"the last price of {symbol} is {last}, beyond that stop: close the position instead")
        return price

    # --- settings -----------------------------------------------------------------------------------------------------

    async def apply_settings(self) -> None:
        """Makes the settings page's values those of the engine, if they changed."""
        overrides = await self._engine.ledger.run(risk_store.overrides)
        if overrides == self._overrides:
            return
        is_first_look = self._overrides is None
        self._overrides = overrides
        config = effective(self._base, overrides, self._fixed)
        if is_first_look and config.fingerprint() == self._engine.config.fingerprint():
            return
        await self._apply(config)

    async def _apply(self, config: Config) -> None:
        engine = self._engine
        logging.getLogger().setLevel(config["log_level"])
        async with engine.between_steps():
            before, engine.config = engine.config, config
            await engine.tell(SettingsChanged(now=engine.clock(), settings=trader_settings(config)))
            known = set(engine.trader.managed_symbols())
            if config["watchlist"] != before["watchlist"]:
                await engine.tell(WatchlistChanged(now=engine.clock(), symbols=config["watchlist"]))
        if config["watchlist"] != before["watchlist"]:
            await engine.sessions.data.change_symbols(engine.trader.managed_symbols())
            if added := [symbol for symbol in engine.trader.managed_symbols() if symbol not in known]:
                await engine.sessions.warm_up(engine, added)


def effective(base: Config, overrides: Mapping[str, str], fixed: Mapping[str, str]) -> Config:
    """The configuration under the overrides; an override that no longer fits its bounds is left out and reported."""
    config = base
    for key, text in overrides.items():
        try:
            config = config.with_overrides({key: text})
        except ConfigError as error:
            log.error("settings.override_ignored", key=key, reason=str(error))
    return config.with_overrides(fixed) if fixed else config


def _price(value: Any) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise BadRequest(f"{value!r} is not a price") from None
    if not price.is_finite() or price <= 0:
        raise BadRequest(f"{value!r} is not a price")
    return price
