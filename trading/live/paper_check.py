"""The way to Alpaca's paper account as a list of checks, each tried against the broker when somebody asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from orders.lifecycle import OrderType
from risk.config import Config, is_loopback
from trading.broker import BrokerError, NotAuthorized, OrderRequest, StreamState
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.place import alpaca_broker, alpaca_data
from trading.market import round_down

LONGEST_CHECK_SECONDS = 20.0
LOOKS = 30
LOOK_SECONDS = 0.25
DRIFT_THAT_WARNS = timedelta(seconds=2)
DRIFT_THAT_STOPS = timedelta(seconds=10)
FAR_AWAY = Decimal("0.5")  # of the last price: nothing fills a buy limit there
LOOK_BACK = timedelta(days=5)
FREE_AFTER = timedelta(minutes=16)  # without a subscription younger history is refused


class CheckFailed(Exception):
    """The check is not passed; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a check found; `is_done` makes its line green."""

    is_done: bool
    detail: str


async def run(step: str, config: Config) -> Outcome:
    """Carries out one of STEPS. Raises KeyError for any other."""
    work = STEPS[step]
    try:
        async with asyncio.timeout(LONGEST_CHECK_SECONDS):
            return Outcome(is_done=True, detail=await work(config))
    except CheckFailed as failure:
        return Outcome(is_done=False, detail=str(failure))
    except NotAuthorized as error:
        return Outcome(is_done=False, detail=f"Alpaca refuses the keys: {error}. Are they those of the paper account?")
    except BrokerError as error:
        return Outcome(is_done=False, detail=f"Alpaca does not answer as it should: {error}.")
    except TimeoutError:
        return Outcome(is_done=False, detail=f"No answer within {LONGEST_CHECK_SECONDS:g} s. Is the network up?")


# --- the checks, in their order ---------------------------------------------------------------------------------------


async def _keys(config: Config) -> str:
    async with _broker(config) as broker:
        account = await broker.get_account()
        place = "the paper account" if account.account_number.startswith("PA") else "account"
        return f"The keys open {place} {account.account_number}."


async def _clock(config: Config) -> str:
    async with _broker(config) as broker:
        before = datetime.now(UTC)
        told = await broker.get_clock()
        took = datetime.now(UTC) - before
    if is_loopback(urlsplit(config["broker.trading_url"]).hostname or ""):
        return f"The market on this machine keeps its own time: {told:%Y-%m-%d %H:%M:%S} UTC."
    drift = abs(told - (before + took / 2))
    if drift > DRIFT_THAT_STOPS:
        raise CheckFailed(f"This machine's clock is {drift.total_seconds():.1f} s off: set it, or no entries are made.")
    word = "but set the clock soon" if drift > DRIFT_THAT_WARNS else "which is fine"
    return f"The clocks differ by {drift.total_seconds():.2f} s, {word}."


async def _account(config: Config) -> str:
    async with _broker(config) as broker:
        account = await broker.get_account()
    if account.is_blocked:
        raise CheckFailed("Alpaca has blocked the account: see its dashboard.")
    if account.equity <= 0:
        raise CheckFailed("The account is empty: reset the paper account at Alpaca.")
    return f"Equity ${account.equity:,.2f}, buying power ${account.buying_power:,.2f}."


async def _feed(config: Config) -> str:
    symbol = config["watchlist"][0]
    async with _data(config) as data, _broker(config) as broker:
        now = await broker.get_clock()
        bars = (await data.get_historical_bars([symbol], start=now - LOOK_BACK, end=now - timedelta(minutes=16)))[
            symbol
        ]
    if not bars:
        raise CheckFailed(f"The feed {config['broker.feed']} has no bars of {symbol} in the last days.")
    return f"{len(bars):,} minutes of {symbol}, the last one at {bars[-1].close}."


async def _stream(config: Config) -> str:
    async with _broker(config) as broker, _data(config) as data:
        await _connected(broker.subscribe_trade_updates(), "trade updates")
        await _connected(data.subscribe_bars(config["watchlist"][:1]), "bars")
    return "Prices and order updates stream."


async def _order(config: Config) -> str:
    """One share, far below the market, so that it rests; then cancelled."""
    symbol = config["watchlist"][0]
    async with _broker(config) as broker, _data(config) as data:
        price = round_down((await data.get_latest_quote(symbol)).last * FAR_AWAY)
        sent = await broker.submit_order(
            OrderRequest(
                symbol=symbol,
                buys=True,
                order_type=OrderType.LIMIT,
                qty=Decimal(1),
                client_order_id=f"check-{uuid4()}",
                limit_price=price,
            )
        )
        await broker.cancel_order(sent.broker_order_id)
        for _ in range(LOOKS):
            state = await broker.get_order_status(sent.broker_order_id)
            if state.status == "canceled":
                return f"Asked for 1 {symbol} at {price}, and cancelled it: {state.filled_qty} filled."
            await asyncio.sleep(LOOK_SECONDS)
    raise CheckFailed(f"The order of 1 {symbol} at {price} is {state.status} and not cancelled: look at it at Alpaca.")


STEPS: Mapping[str, Callable[[Config], Awaitable[str]]] = {
    "keys": _keys,
    "clock": _clock,
    "account": _account,
    "feed": _feed,
    "stream": _stream,
    "order": _order,
}


# --- around them ------------------------------------------------------------------------------------------------------


def _require_paper(config: Config) -> None:
    if not (config["broker.api_key"] and config["broker.secret_key"]):
        raise CheckFailed("Make keys on Alpaca's paper page and set ALGO_BROKER__API_KEY and ALGO_BROKER__SECRET_KEY.")
    if not config["broker.paper"]:
        raise CheckFailed("These settings trade real money; this list is for ALGO_BROKER__PAPER=true.")


@asynccontextmanager
async def _broker(config: Config) -> AsyncIterator[AlpacaBroker]:
    _require_paper(config)
    broker = alpaca_broker(config)
    try:
        await broker.connect()
        yield broker
    finally:
        await broker.disconnect()


@asynccontextmanager
async def _data(config: Config) -> AsyncIterator[AlpacaData]:
    _require_paper(config)
    data = alpaca_data(config)
    try:
        await data.connect()
        yield data
    finally:
        await data.disconnect()


async def _connected(items: AsyncIterator[Any], name: str) -> None:
    """Returns when the stream is up. An account has one stream of each kind: a running engine may hold it."""
    try:
        async for item in items:
            if isinstance(item, StreamState):
                if item.connected:
                    return
                raise CheckFailed(f"The stream of {name} does not open: {item.detail}. Is an engine using these keys?")
    finally:
        await items.aclose()  # type: ignore[attr-defined]  # they are generators
    raise CheckFailed(f"The stream of {name} ended at once.")
