"""Where the engine trades: Alpaca, a market elsewhere that speaks its protocol, or the built-in one in this process."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
import urllib3
from django.conf import settings as django_settings

from orders.command import UserError
from risk.config import Config, is_loopback
from trading.broker import BrokerAdapter, DataProvider
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.calls import RateLimiter
from trading.simulator.lockstep import Lockstep

if TYPE_CHECKING:
    from trading.live import engine
    from trading.live.barstore import BarStore
    from trading.live.engine import Engine
    from trading.live.process import Options

log = structlog.get_logger("engine")

BUILT_IN_KEYS = ("built-in", "market")
BUILT_IN_REQUESTS_PER_MINUTE = 60_000
CLOCK_TIMEOUT_SECONDS = 3.0
CLOCK_READ_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A broker account, its market data and its clock.

    `keep_clock` keeps a clock right that is not ours; `begin` runs a market that waits for this engine. `times_fills`:
    it tells the moment of a fill, where a built-in market tells the minute of the bar. `store` may hold sessions that
    were fetched from `source`, this place.
    """

    broker: BrokerAdapter
    data: DataProvider
    clock: Callable[[], datetime]
    limiter: RateLimiter
    data_limiter: RateLimiter
    keep_clock: Callable[[], Coroutine[Any, Any, None]] | None = None
    lockstep: "engine.Lockstep | None" = None
    times_fills: bool = True
    begin: "Callable[[Engine], Coroutine[Any, Any, None]] | None" = None
    store: "BarStore | None" = None
    source: str = ""


async def open_place(config: Config, options: "Options", cleanup: AsyncExitStack) -> Place:
    """The place the configuration names. Raises UserError when it cannot be opened."""
    if config["broker.provider"] == "simulator":
        return await _built_in(config, options, cleanup)
    clock = await asyncio.to_thread(clock_of, config["broker.trading_url"])
    return Place(
        broker=alpaca_broker(config),
        data=alpaca_data(config),
        clock=clock,
        limiter=RateLimiter(),
        data_limiter=RateLimiter(reserved=0),  # counted apart by the broker
        keep_clock=clock.follow if isinstance(clock, FollowedClock) else None,
        times_fills=not isinstance(clock, FollowedClock),
        store=_bar_store(),
        source=data_source(config),
    )


def _bar_store() -> "BarStore | None":
    """The local bar store, if there is one: what reads it takes 40 MB."""
    folder = django_settings.DATA_DIR / "bars"
    if not folder.is_dir():
        return None
    from trading.live.barstore import BarStore

    return BarStore(folder)


def alpaca_broker(config: Config) -> AlpacaBroker:
    """The account that keys, mode and URLs of the configuration name."""
    return AlpacaBroker(
        config["broker.api_key"],
        config["broker.secret_key"],
        paper=config["broker.paper"],
        trading_url=config["broker.trading_url"],
        trading_stream_url=config["broker.trading_stream_url"],
    )


def alpaca_data(config: Config) -> AlpacaData:
    """The market data that keys, feed and URLs of the configuration name."""
    return AlpacaData(
        config["broker.api_key"],
        config["broker.secret_key"],
        feed=config["broker.feed"],
        data_url=config["broker.data_url"],
        data_stream_url=config["broker.data_stream_url"],
    )


def data_source(config: Config) -> str:
    """Where bars come from, in a word that tells feeds and markets apart: the bar store keeps it with each session."""
    host = urlsplit(config["broker.data_url"]).netloc
    return f"{config['broker.feed']} {host}" if host else str(config["broker.feed"])


def wall_clock() -> datetime:
    """Market time at Alpaca is real time."""
    return datetime.now(UTC)


class FollowedClock:
    """The clock of a built-in market in another process: read about every second, extrapolated at its speed between.

    That market jumps over the hours in which it is closed; a reading later, so do we. Time never goes back.
    """

    def __init__(self, trading_url: str) -> None:
        self._address = f"{trading_url.rstrip('/')}/market/clock"
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._reading: tuple[float, datetime, float] | None = None

    def read(self) -> bool:
        """Asks the market; False if it has no clock of its own. Raises urllib3's HTTPError, ValueError."""
        answer = urllib3.request("GET", self._address, timeout=CLOCK_TIMEOUT_SECONDS, retries=False)
        has_clock = answer.status == HTTPStatus.OK
        if has_clock:
            told = answer.json()
            self._reading = monotonic(), datetime.fromisoformat(told["now"]), float(told["speed"])
        return has_clock

    def __call__(self) -> datetime:
        """Market time."""
        if self._reading is None:
            raise RuntimeError("the market's clock was never read")
        read_at, told, speed = self._reading
        self._latest = max(self._latest, told + timedelta(seconds=(monotonic() - read_at) * speed))
        return self._latest

    async def follow(self) -> None:
        """Reads the clock again and again, for ever."""
        while True:
            await asyncio.sleep(CLOCK_READ_SECONDS)
            try:
                await asyncio.to_thread(self.read)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                log.warning("clock.unread", reason=str(error))


def clock_of(trading_url: str) -> Callable[[], datetime]:
    """The clock of the market at that address: a built-in market elsewhere has one of its own and tells it.

    Raises UserError when no market answers on this machine's port.
    """
    if not trading_url or not is_loopback(urlsplit(trading_url).hostname or ""):
        return wall_clock
    clock = FollowedClock(trading_url)
    try:
        return clock if clock.read() else wall_clock  # a proxy to the real one has none
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise UserError(
            f"No market answers at {trading_url}: start it with `manage.py runmarket`. ({error})"
        ) from error


async def _built_in(config: Config, options: "Options", cleanup: AsyncExitStack) -> Place:
    """Starts the market in this process; it waits for `begin` and then for the engine at every step."""
    from trading.simulator.opening import market_bars, open_market

    lockstep = Lockstep()
    is_replay = options.data is not None
    bars = await asyncio.to_thread(
        market_bars,
        options.data,
        symbols=config["watchlist"],
        start_date=options.start_date,
        end_date=options.end_date,
        seed=options.seed,
    )
    market = open_market(
        config,
        bars=bars,
        account_number=f"REPLAY-{uuid4()}" if is_replay else f"SIM-{options.seed}",
        # A replay begins with its capital each time; nothing of it outlives the process.
        account_path=None if is_replay else django_settings.DATA_DIR / "market" / f"synthetic-{options.seed}.db",
        initial_capital=options.initial_capital,
        speed=options.speed,
        keys=BUILT_IN_KEYS,
        lockstep=lockstep,
    )
    await market.start()
    cleanup.push_async_callback(market.stop)
    urls = market.urls

    async def begin(engine: "Engine") -> None:
        lockstep.attach(next_due=engine.next_due, fire_timers=engine.fire_timers, is_idle=engine.is_idle)
        market.begin()
        await market.run()
        if not options.stay:
            await engine.end_data()
        await asyncio.Event().wait()  # until the engine, stopping, cancels this task

    return Place(
        broker=AlpacaBroker(
            *BUILT_IN_KEYS, trading_url=urls["trading_url"], trading_stream_url=urls["trading_stream_url"]
        ),
        data=AlpacaData(*BUILT_IN_KEYS, data_url=urls["data_url"], data_stream_url=urls["data_stream_url"]),
        clock=lambda: market.now,
        limiter=RateLimiter(BUILT_IN_REQUESTS_PER_MINUTE),
        data_limiter=RateLimiter(BUILT_IN_REQUESTS_PER_MINUTE, reserved=0),
        lockstep=lockstep,
        times_fills=False,
        begin=begin,
    )
