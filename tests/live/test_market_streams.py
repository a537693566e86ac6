"""The two WebSockets of the built-in market: alpaca-py's streams, and every word of the protocol they do not use."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import aiohttp
import msgpack
import pytest
from aiohttp import web
from alpaca.data.live.stock import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import MarketOrderRequest, StopOrderRequest
from alpaca.trading.stream import TradingStream

from tests.built_in_market import KEYS, Conductor, ScriptedBars, script
from trading.exchange import Exchange
from trading.simulator import streams
from trading.simulator.faults import NO_FAULTS, Fault, Faults, Kind, On, Schedule
from trading.simulator.market import Market

BUY, SELL = OrderSide.BUY, OrderSide.SELL
DAY, GTC = TimeInForce.DAY, TimeInForce.GTC
PRICES = "100|100|101 103 101 102|102 102 98 99|99"


class Streams:
    """alpaca-py's two streams, which tell the lockstep what they have worked off. `answer` hears every update."""

    def __init__(self, conductor: Conductor, symbols: tuple[str, ...] = ("AAPL",)) -> None:
        self.answer: Callable[[Any], None] = lambda update: None
        urls = conductor.market.urls
        self._lockstep = conductor.lockstep
        self.updates: list[Any] = []
        self.bars: list[Any] = []
        self.statuses: list[Any] = []
        self._trading = TradingStream(*KEYS, url_override=urls["trading_stream_url"])
        self._data = StockDataStream(*KEYS, url_override=urls["data_stream_url"])
        self._trading.subscribe_trade_updates(self._on_update)
        self._data.subscribe_bars(self._on_bar, *symbols)
        self._data.subscribe_trading_statuses(self._on_status, *symbols)
        self._tasks = [asyncio.create_task(stream._run_forever()) for stream in (self._trading, self._data)]

    async def stop(self) -> None:
        for stream in (self._trading, self._data):
            await stream.stop_ws()
            await stream.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _on_update(self, update: Any) -> None:
        self.updates.append(update)
        self.answer(update)
        self._lockstep.worked_off(streams.UPDATE)

    async def _on_bar(self, bar: Any) -> None:
        self.bars.append(bar)
        self._lockstep.worked_off(streams.BAR)

    async def _on_status(self, status: Any) -> None:
        self.statuses.append(status)


async def until(happened: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while not happened():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def followed(*bars: Any, symbols: tuple[str, ...] = ("AAPL",)) -> AsyncIterator[tuple[Conductor, Streams]]:
    async with Conductor(*bars, exchange=Exchange(slippage_per_share=Decimal(0))) as conductor:
        client = Streams(conductor, symbols)
        market = conductor.market
        await until(
            lambda: market._updates.is_listening and market._data.client and market._data.client.channels["statuses"]
        )
        try:
            yield conductor, client
        finally:
            await client.stop()


async def submit(conductor: Conductor, request: Any) -> Any:
    client = TradingClient(*KEYS, url_override=conductor.market.urls["trading_url"])
    order = await asyncio.to_thread(client.submit_order, request)
    await conductor.settled()
    return order


async def test_bars_come_when_their_minute_is_over() -> None:
    async with followed(script(PRICES), script(PRICES, "TSLA")) as (conductor, client):
        await conductor.minute(3)
        assert [bar.symbol for bar in client.bars] == ["AAPL"] * 3
        bar = client.bars[-1]
        assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (101, 103, 101, 102, 10000)
        assert bar.timestamp == datetime(2024, 3, 4, 14, 32, tzinfo=UTC)
        assert conductor.market.now == datetime(2024, 3, 4, 14, 33, tzinfo=UTC)


async def test_a_star_brings_every_symbol_in_the_markets_order() -> None:
    async with followed(script(PRICES), script(PRICES, "TSLA"), symbols=("*",)) as (conductor, client):
        await conductor.minute(2)
        assert [bar.symbol for bar in client.bars] == ["AAPL", "TSLA"] * 2


async def test_an_orders_life_is_told_with_each_execution() -> None:
    async with followed(script(PRICES)) as (conductor, client):
        await conductor.minute()
        await submit(conductor, StopOrderRequest(symbol="AAPL", qty=10, side=BUY, time_in_force=DAY, stop_price=102))
        assert [update.event for update in client.updates] == ["new"]
        await conductor.minute(2)
        fill = client.updates[-1]
        assert (fill.event, fill.qty, fill.price, fill.position_qty) == ("fill", 10, 102, 10)
        assert (fill.order.status, fill.order.filled_avg_price) == ("filled", "102")
        assert fill.timestamp == fill.order.filled_at == datetime(2024, 3, 4, 14, 32, tzinfo=UTC)
        assert fill.execution_id is not None


async def test_a_stop_sent_in_answer_to_a_fill_can_fill_in_the_same_bar() -> None:
    async with followed(script("100|100|101 103 98 99|99")) as (conductor, client):
        answers: list[asyncio.Task[Any]] = []
        trading = TradingClient(*KEYS, url_override=conductor.market.urls["trading_url"])

        def protect(update: Any) -> None:
            if (update.event, update.order.side) == ("fill", "buy"):
                stop = StopOrderRequest(symbol="AAPL", qty=10, side=SELL, time_in_force=GTC, stop_price=99.5)
                answers.append(asyncio.create_task(asyncio.to_thread(trading.submit_order, stop)))
                answers[-1].add_done_callback(lambda task: conductor.lockstep.changed())

        client.answer = protect
        conductor.lockstep.attach(
            next_due=lambda: None,
            fire_timers=conductor._end_of_step,
            is_idle=lambda: all(task.done() for task in answers),
        )
        await submit(conductor, StopOrderRequest(symbol="AAPL", qty=10, side=BUY, time_in_force=DAY, stop_price=102))
        await conductor.minute(3)
        # 101 -> 98 -> 103 -> 99: the entry fills on the way up, the stop on the way to the close
        assert [(update.event, update.order.side) for update in client.updates] == [
            ("new", "buy"), ("fill", "buy"), ("new", "sell"), ("fill", "sell"),
        ]  # fmt: skip
        assert client.updates[-1].price == 99.5
        assert len(client.bars) == 3


async def test_a_halt_is_told_and_nothing_trades_until_it_ends() -> None:
    async with followed(script(PRICES)) as (conductor, client):
        await conductor.minute()
        await conductor.market.halt("AAPL", "news pending")
        await submit(conductor, MarketOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=DAY))
        await conductor.market.resume("AAPL")
        await until(lambda: len(client.statuses) == 2)
        assert [(status.status_code, status.reason_message) for status in client.statuses] == [
            ("H", "news pending"), ("T", ""),
        ]  # fmt: skip
        assert [update.event for update in client.updates] == ["new"]
        await conductor.minute()
        assert [update.event for update in client.updates] == ["new", "fill"]


async def test_a_halted_minute_has_no_bar_in_the_stream_nor_in_history() -> None:
    async with followed(script("100|101|102|103"), script("50|51|52|53", "TSLA")) as (conductor, client):
        await conductor.minute()
        await conductor.market.halt("AAPL", "")
        await conductor.minute(2)
        await conductor.market.resume("AAPL")
        await conductor.minute()
        assert [bar.close for bar in client.bars] == [100, 103]
        market = conductor.market
        found = market.history.bars("AAPL", start=market.bars.first, end=market.now, now=market.now)
        assert [bar.close for bar in found] == [100, 103]


# --- the protocol, word by word ---------------------------------------------------------------------------------------


class Raw:
    """A WebSocket without alpaca-py around it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, message: Any) -> None:
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> Any:
        frame = await self.socket.receive(timeout=3)
        if frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return json.loads(frame.data)
        assert frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
        return "closed"

    async def ask(self, message: Any) -> Any:
        await self.say(message)
        return await self.hear()


@asynccontextmanager
async def raw(url: str, **headers: str) -> AsyncIterator[Raw]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        yield Raw(socket)


def is_listening(market: Conductor) -> bool:
    return market.market._updates.is_listening


AUTH = {"action": "auth", "key": KEYS[0], "secret": KEYS[1]}
WRONG = {"action": "auth", "key": KEYS[0], "secret": "wrong"}


def error(code: int, message: str) -> list[dict[str, Any]]:
    return [{"T": "error", "code": code, "msg": message}]


@pytest.fixture
async def market() -> AsyncIterator[Conductor]:
    async with Conductor(script("100|101")) as conductor:
        yield conductor


async def test_market_data_login_and_subscriptions(market: Conductor) -> None:
    url = market.market.urls["data_stream_url"]
    async with raw(url) as socket:
        assert await socket.hear() == [{"T": "success", "msg": "connected"}]
        assert await socket.ask({"action": "subscribe", "bars": ["AAPL"]}) == error(401, "not authenticated")
        assert await socket.ask(AUTH) == [{"T": "success", "msg": "authenticated"}]
        assert await socket.ask(AUTH) == error(403, "already authenticated")
        empty: dict[str, Any] = {name: [] for name in streams.CHANNELS}
        assert await socket.ask({"action": "subscribe", "bars": ["TSLA", "AAPL"]}) == [
            {"T": "subscription", **empty, "bars": ["AAPL", "TSLA"]}
        ]
        assert await socket.ask({"action": "subscribe", "trades": ["AAPL"]}) == [
            {"T": "subscription", **empty, "bars": ["AAPL", "TSLA"]}
            | {name: ["AAPL"] for name in ("trades", "corrections", "cancelErrors")}
        ]
        assert (await socket.ask({"action": "unsubscribe", "trades": ["AAPL"], "bars": ["TSLA"]}))[0]["bars"] == [
            "AAPL"
        ]
        assert await socket.ask({"action": "subscribe", "news": ["AAPL"]}) == error(
            410, "invalid subscribe action for this feed"
        )
        for nonsense in ("no json", "[]", {"action": "dance"}, {"action": "subscribe", "bars": ["not a symbol"]}):
            assert await socket.ask(nonsense) == error(400, "invalid syntax")
        market.market.begin()
        assert await socket.hear() == [
            {"T": "b", "S": "AAPL", "o": 100.0, "h": 100.0, "l": 100.0, "c": 100.0, "v": 10000, "n": 100, "vw": 100.0}
            | {"t": "2024-03-04T14:30:00Z"}
        ]


async def test_wrong_keys_on_market_data(market: Conductor) -> None:
    async with raw(market.market.urls["data_stream_url"]) as socket:
        await socket.hear()
        assert await socket.ask(WRONG) == error(402, "auth failed")
        assert await socket.hear() == "closed"


async def test_one_market_data_connection_at_a_time(market: Conductor) -> None:
    url = market.market.urls["data_stream_url"]
    async with raw(url) as first:
        await first.hear()
        await first.ask(AUTH)
        async with raw(url.replace("iex", "sip")) as second:
            await second.hear()
            assert await second.ask(AUTH) == error(406, "connection limit exceeded")
            assert await second.hear() == "closed"
    await until(lambda: market.market._data.client is None)
    async with raw(url) as third:
        await third.hear()
        assert await third.ask(AUTH) == [{"T": "success", "msg": "authenticated"}]


@asynccontextmanager
async def alone(*bars: Any, faults: Schedule = NO_FAULTS) -> AsyncIterator[Market]:
    """A market that waits for nobody, as fast as it can."""
    market = Market(bars=ScriptedBars(*bars), account_number="TEST", speed=0, keys=KEYS, faults=faults)
    await market.start()
    running = asyncio.create_task(market.run())
    try:
        yield market
    finally:
        running.cancel()
        await asyncio.wait({running})
        await market.stop()


async def frames(market: Market, count: int) -> list[list[str]]:
    """The symbols of the bars in each of the next frames."""
    async with raw(market.urls["data_stream_url"]) as client:
        await client.hear()
        await client.ask(AUTH)
        await client.ask({"action": "subscribe", "bars": ["*"]})
        market.begin()
        return [[bar["S"] for bar in await client.hear()] for _ in range(count)]


async def test_the_bars_of_a_minute_share_a_frame_as_the_providers_do() -> None:
    bars = (script("100|101", symbol) for symbol in ("AAPL", "MSFT", "TSLA"))
    async with alone(*bars) as market:
        assert await frames(market, 2) == [["AAPL", "MSFT", "TSLA"]] * 2


async def test_a_frame_holds_no_more_than_so_many_bars() -> None:
    names = [f"{first}{second}{third}" for first in "ABCDEF" for second in "ABCDEFGHIJ" for third in "ABCDEFGHIJ"]
    async with alone(*(script("100", name) for name in names)) as market:
        assert [len(frame) for frame in await frames(market, 2)] == [streams.BARS_A_FRAME, 600 - streams.BARS_A_FRAME]


async def test_a_bar_that_a_fault_strikes_travels_alone() -> None:
    bars = (script("100|101", symbol) for symbol in ("AAPL", "MSFT", "TSLA"))
    twice = Schedule(faults=(Fault(on=On.BAR, kind=Kind.DUPLICATE, number=2),))
    async with alone(*bars, faults=twice) as market:
        assert await frames(market, 5) == [["AAPL"], ["MSFT"], ["MSFT"], ["TSLA"], ["AAPL", "MSFT", "TSLA"]]


async def test_messagepack_is_spoken_only_when_asked_for(market: Conductor) -> None:
    header = {"Content-Type": "application/msgpack"}
    async with raw(market.market.urls["data_stream_url"], **header) as socket:
        greeting = await socket.socket.receive(timeout=3)
        assert greeting.type is aiohttp.WSMsgType.BINARY
        assert msgpack.unpackb(greeting.data) == [{"T": "success", "msg": "connected"}]
        for message in (AUTH, {"action": "subscribe", "bars": ["AAPL"]}):
            await socket.socket.send_bytes(msgpack.packb(message))
            await socket.socket.receive(timeout=3)
        market.market.begin()
        (bar,) = msgpack.unpackb((await socket.socket.receive(timeout=3)).data)
        assert bar["t"] == msgpack.Timestamp.from_datetime(datetime(2024, 3, 4, 14, 30, tzinfo=UTC))


async def test_a_silent_client_is_sent_away() -> None:
    data = streams.MarketData(
        keys=KEYS, lockstep=None, faults=Faults(), on_symbols=lambda symbols: None, authentication_seconds=0.05
    )
    application = web.Application()
    application.add_routes([web.get("/v2/iex", data.handle)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with raw(f"ws://127.0.0.1:{runner.addresses[0][1]}/v2/iex") as socket:
            await socket.hear()
            assert await socket.hear() == error(404, "auth timeout")
            assert await socket.hear() == "closed"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "login",
    [
        {"action": "authenticate", "data": {"key_id": KEYS[0], "secret_key": KEYS[1]}},
        {"action": "auth", "key": KEYS[0], "secret": KEYS[1]},
    ],
)
async def test_trade_updates_login_in_both_spellings(market: Conductor, login: dict[str, Any]) -> None:
    async with raw(market.market.urls["trading_stream_url"]) as socket:
        answer = {"stream": "authorization", "data": {"status": "authorized", "action": login["action"]}}
        assert await socket.ask(login) == answer
        listen = {"action": "listen", "data": {"streams": ["trade_updates"]}}
        assert await socket.ask(listen) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        assert is_listening(market)
        assert (await socket.ask({"action": "listen", "data": {"streams": []}}))["data"] == {"streams": []}
        assert not is_listening(market)
        assert (await socket.ask({"action": "dance"}))["action"] == "error"


@pytest.mark.parametrize(
    "message",
    [
        {"action": "authenticate", "data": {"key_id": KEYS[0], "secret_key": "wrong"}},
        {"action": "listen", "data": {"streams": ["trade_updates"]}},
        "no json",
    ],
)
async def test_who_does_not_log_in_hears_nothing(market: Conductor, message: Any) -> None:
    async with raw(market.market.urls["trading_stream_url"]) as socket:
        answer = await socket.ask(message)
        assert (answer["stream"], answer["data"]["status"]) == ("authorization", "unauthorized")
        assert await socket.hear() == "closed"


async def test_one_trade_update_connection_at_a_time(market: Conductor) -> None:
    url = market.market.urls["trading_stream_url"]
    async with raw(url) as first:
        await first.ask(AUTH)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with raw(url):
                pass
        assert caught.value.status == HTTPStatus.TOO_MANY_REQUESTS
    await until(lambda: market.market._updates.client is None)
    async with raw(url) as third:
        assert (await third.ask(AUTH))["data"]["status"] == "authorized"


async def test_updates_are_json_in_binary_frames(market: Conductor) -> None:
    async with raw(market.market.urls["trading_stream_url"]) as socket:
        await socket.ask(AUTH)
        await socket.ask({"action": "listen", "data": {"streams": ["trade_updates"]}})
        market.lockstep.detach()
        await submit(market, StopOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, stop_price=102))
        frame = await socket.socket.receive(timeout=3)
        assert frame.type is aiohttp.WSMsgType.BINARY
        update = json.loads(frame.data)
        assert (update["stream"], update["data"]["event"], update["data"]["order"]["stop_price"]) == (
            "trade_updates", "new", "102",
        )  # fmt: skip
