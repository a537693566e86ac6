"""The two streams over real sockets: what they yield, what they report, how they come back and how they stop."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from tests.live.alpaca_peer import (
    Peer,
    authorize,
    bar_message,
    confirm,
    greet,
    log_in,
    order_message,
    receive_msgpack,
    send_json,
    send_msgpack,
    stay,
)
from trading.broker import CorrectedBar, StreamState, TradeUpdate, TradingStatus
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing
from trading.market import Bar

FAST = Timing(first_retry_seconds=0.05, longest_retry_seconds=0.2)
IMPATIENT = replace(FAST, handshake_seconds=0.4)
NINE_45 = "2026-08-12T13:45:00+00:00"


@pytest.fixture
async def broker(peer: Peer) -> AsyncIterator[AlpacaBroker]:
    broker = AlpacaBroker(
        "key", "secret", trading_url=peer.url, trading_stream_url=peer.trading_stream_url, timing=FAST
    )
    yield broker
    await broker.disconnect()


@pytest.fixture
async def impatient_broker(peer: Peer) -> AsyncIterator[AlpacaBroker]:
    broker = AlpacaBroker("key", "secret", trading_stream_url=peer.trading_stream_url, timing=IMPATIENT)
    yield broker
    await broker.disconnect()


@pytest.fixture
async def data(peer: Peer) -> AsyncIterator[AlpacaData]:
    data = AlpacaData("key", "secret", data_stream_url=peer.data_stream_url, timing=FAST)
    yield data
    await data.disconnect()


@pytest.fixture
async def impatient_data(peer: Peer) -> AsyncIterator[AlpacaData]:
    data = AlpacaData("key", "secret", data_stream_url=peer.data_stream_url, timing=IMPATIENT)
    yield data
    await data.disconnect()


class Reader:
    """Reads a stream in a task of its own, as the engine does, and keeps what came."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self.items = items
        self.got: list[Any] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for item in self.items:
            self.got.append(item)

    async def until(self, enough: Callable[[list[Any]], Any], *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not enough(self.got):
            assert time.monotonic() < deadline, f"still waiting after {self.got}"
            assert not self.task.done(), self.task
            await asyncio.sleep(0.005)

    def states(self) -> list[bool]:
        return [item.connected for item in self.got if isinstance(item, StreamState)]

    def details(self) -> str:
        return " | ".join(item.detail for item in self.got if isinstance(item, StreamState))

    def bars(self) -> list[str]:
        return [f"{bar.symbol} {bar.close.normalize()}" for bar in self.got if isinstance(bar, Bar)]

    def events(self) -> list[str]:
        return [update.event for update in self.got if isinstance(update, TradeUpdate)]


def update(event: str, **more: Any) -> dict[str, Any]:
    order = order_message(status=more.pop("status", "new"), filled_qty=more.pop("filled_qty", "0"))
    return {"stream": "trade_updates", "data": {"event": event, "timestamp": NINE_45, "order": order, **more}}


def fill(number: int, event: str = "partial_fill") -> dict[str, Any]:
    return update(event, execution_id=f"exec-{number}", price="299.99", qty="1", position_qty=str(number))


# --- trade updates ----------------------------------------------------------------------------------------------------


async def test_updates_come_after_the_subscription_is_confirmed(peer: Peer, broker: AlpacaBroker) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        await send_json(socket, update("new"))
        await send_json(socket, {**fill(1), "extra": 1})
        await socket.send_str(json.dumps(update("moon_landing", status="unheard_of")))
        await stay(socket)

    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: len(got) == 4)
    assert reader.got[0] == StreamState(connected=True)
    assert reader.events() == ["new", "partial_fill", "moon_landing"]
    execution = reader.got[2]
    assert (execution.execution_id, execution.execution_qty, execution.execution_price) == (
        "exec-1", 1, Decimal("299.99"),
    )  # fmt: skip
    assert execution.timestamp == datetime(2026, 8, 12, 13, 45, tzinfo=UTC)
    assert reader.got[1].execution_id is None
    assert reader.got[3].order.broker_status == "unheard_of"


async def test_an_update_that_cannot_be_read_is_reported_and_the_next_ones_come(
    peer: Peer, broker: AlpacaBroker
) -> None:
    bad: list[Any] = [
        {"stream": "trade_updates", "data": None},
        {"stream": "trade_updates", "data": {"event": "new"}},
        update("new", order={"id": "x"}),
        ["no object"],
        3,
    ]

    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        for number, message in enumerate(bad):
            await send_json(socket, message)
            await send_json(socket, fill(number))
        await socket.send_bytes(b"\xff{{{")
        await send_json(socket, fill(5))
        await stay(socket)

    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: len(reader.events()) == 6)
    assert [item.execution_id for item in reader.got if isinstance(item, TradeUpdate)] == [
        f"exec-{number}" for number in range(6)
    ]
    assert reader.states() == [True] * 7  # the connection, and six losses on a connection that went on
    assert peer.connections == 1


async def test_no_update_is_dropped_however_late_it_is_read(peer: Peer, broker: AlpacaBroker) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        for number in range(12_000):
            await send_json(socket, fill(number))
        await stay(socket)

    peer.stream = script
    items = broker.subscribe_trade_updates()
    assert await anext(items) == StreamState(connected=True)
    await asyncio.sleep(1)  # a reader that is busy with something else
    for number in range(12_000):
        item = await anext(items)
        assert isinstance(item, TradeUpdate)
        assert item.execution_id == f"exec-{number}"


async def test_a_drop_is_reported_and_the_stream_comes_back(peer: Peer, broker: AlpacaBroker) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        await send_json(socket, fill(peer.connections))
        if peer.connections == 1:
            transport = socket.get_extra_info("transport")
            await asyncio.sleep(0.05)
            transport.abort()  # no close frame: the line is cut
        elif peer.connections == 2:
            await socket.close(code=1012, message=b"service restart")
        else:
            await stay(socket)

    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: len(reader.events()) == 3)
    assert reader.states() == [True, False, True, False, True]
    assert "connection lost" in reader.details()
    waits = [item.retry_seconds for item in reader.got if isinstance(item, StreamState) and not item.connected]
    assert all(wait is not None and 0 < wait <= FAST.longest_retry_seconds for wait in waits)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}}, "authenticate"),
        ({"surprise": 1}, "cannot connect"),
        (None, "no answer to the handshake"),
    ],
)
async def test_a_login_that_fails_says_why_and_is_tried_again(
    peer: Peer, impatient_broker: AlpacaBroker, reply: Any, words: str
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if peer.connections == 3:
            await authorize(socket)
        elif reply is not None:
            await socket.receive_json()
            await send_json(socket, reply)
        await stay(socket)

    peer.stream = script
    reader = Reader(impatient_broker.subscribe_trade_updates())
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, False, True]
    assert words in reader.details()


async def test_a_second_connection_is_refused_with_429_until_the_slot_is_free(peer: Peer, broker: AlpacaBroker) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        await stay(socket)

    peer.upgrade_refusals = [429, 429, 503]
    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, False, False, True]
    assert "429" in reader.details()
    assert "503" in reader.details()
    refused = [item.is_refused for item in reader.got if isinstance(item, StreamState) and not item.connected]
    assert refused == [True, True, False]  # what is not a refusal says nothing about another connection


async def test_nobody_listening_is_reported_and_tried_again() -> None:
    broker = AlpacaBroker("key", "secret", trading_stream_url="ws://127.0.0.1:9/stream", timing=FAST)
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: len(got) == 3)
    assert reader.states() == [False, False, False]
    assert "cannot connect" in reader.details()
    await broker.disconnect()


async def test_a_server_that_confirms_no_subscription_is_left_and_tried_again(
    peer: Peer, impatient_broker: AlpacaBroker
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if peer.connections == 2:
            await authorize(socket)
        else:
            await socket.receive_json()
            await send_json(socket, {"stream": "authorization", "data": {"status": "authorized"}})
        await stay(socket)

    peer.stream = script
    reader = Reader(impatient_broker.subscribe_trade_updates())
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, True]


async def test_an_error_of_the_server_ends_the_connection(peer: Peer, broker: AlpacaBroker) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        if peer.connections == 1:
            await send_json(socket, {"action": "error", "data": {"error_message": "internal server error"}})
        await stay(socket)

    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: len(got) == 3)
    assert reader.states() == [True, False, True]
    assert "internal server error" in reader.details()


# --- bars -------------------------------------------------------------------------------------------------------------


async def test_bars_and_halts_in_our_words(peer: Peer, data: AlpacaData) -> None:
    def status(code: str, words: str) -> dict[str, Any]:
        at = datetime.fromisoformat(NINE_45)
        return {"T": "s", "S": "F", "sc": code, "sm": words, "rc": "M", "rm": "volatility", "t": at, "z": "C"}

    async def script(socket: web.WebSocketResponse) -> None:
        assert await greet(socket) == ["AAPL", "F"]
        await send_msgpack(
            socket,
            bar_message("AAPL", NINE_45, "300.1 300.2 0.1 300.12345", volume=1250),
            bar_message("F", NINE_45, "12 12 12 12"),
        )
        await send_msgpack(socket, status("H", "Trading Halt"), status("Q", "Quoting"), status("T", "Trading"))
        await send_msgpack(socket, {"T": "u", "S": "AAPL"}, {"T": "brand_new"}, bar_message("F", NINE_45))
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["AAPL", "F"]))
    await reader.until(lambda got: len(got) == 6)
    assert reader.got[0] == StreamState(connected=True)
    assert reader.got[1] == Bar(
        symbol="AAPL", timestamp=datetime(2026, 8, 12, 13, 45, tzinfo=UTC), open=Decimal("300.1"),
        high=Decimal("300.2"), low=Decimal("0.1"), close=Decimal("300.1234"), volume=1250,
    )  # fmt: skip
    halted, resumed = (item for item in reader.got if isinstance(item, TradingStatus))
    assert (halted.symbol, halted.halted, halted.reason) == ("F", True, "Trading Halt: volatility")
    assert not resumed.halted
    assert reader.bars() == ["AAPL 300.1234", "F 12", "F 10.5"] or reader.bars() == [
        "AAPL 300.1234",
        "F 12.0",
        "F 10.5",
    ]


async def test_a_corrected_bar_is_told_as_such_and_one_that_cannot_be_read_does_no_harm(
    peer: Peer, data: AlpacaData
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await send_msgpack(socket, {**bar_message("F", NINE_45, "12 13 11 12.5"), "T": "u"})
        await send_msgpack(socket, {"T": "u", "S": "F"}, bar_message("F", NINE_45))
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: len(got) == 3)
    assert reader.states() == [True]
    (corrected,) = [item.bar for item in reader.got if isinstance(item, CorrectedBar)]
    assert (corrected.symbol, corrected.close) == ("F", Decimal("12.5"))
    assert reader.bars() == ["F 10.5"]


async def test_a_connection_that_is_given_up_is_replaced_and_the_reason_told(
    peer: Peer, data: AlpacaData, broker: AlpacaBroker
) -> None:
    async def bars(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await stay(socket)

    async def updates(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        await stay(socket)

    for script, items, reconnect in (
        (bars, data.subscribe_bars(["F"]), data.reconnect_bars),
        (updates, broker.subscribe_trade_updates(), broker.reconnect_trade_updates),
    ):
        peer.stream = script
        await reconnect("there is none yet")
        reader = Reader(items)
        await reader.until(lambda got: len(got) == 1)
        await reconnect("it was mute")
        await reader.until(lambda got: len(got) == 3)
        assert reader.states() == [True, False, True]
        assert reader.got[1].detail == "it was mute"


async def test_a_stream_that_is_given_up_while_bars_come_in_has_lost_no_message(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        for _ in range(500):
            await send_msgpack(socket, *[bar_message("F", NINE_45)] * 20)
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: reader.bars())
    await data.reconnect_bars("it was mute")
    await reader.until(lambda got: reader.states() == [True, False, True])
    assert "could not be read" not in reader.details()


async def test_a_bad_bar_costs_neither_its_frame_nor_the_stream(peer: Peer, data: AlpacaData) -> None:
    good = bar_message("F", NINE_45)
    bad = [{**good, "t": "soon"}, {**good, "o": "ten"}, {**good, "c": float("nan")}, {"T": "b", "S": "F"}]

    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        for message in bad:
            await send_msgpack(socket, message, good)
        await socket.send_bytes(b"\xc1 no MessagePack")
        await socket.send_str("text")
        await send_msgpack(socket, good)
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: len(reader.bars()) == 5)
    assert reader.states() == [True] * 7
    assert "could not be read" in reader.details()
    assert peer.connections == 1


async def test_unread_bars_are_bounded_the_oldest_go_and_the_loss_is_reported(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        for _ in range(100):
            frame = [bar_message("F", NINE_45, f"{n} {n} {n} {n}") for n in range(sent[0], sent[0] + 501)]
            sent[0] += 501
            await send_msgpack(socket, *frame)
        await stay(socket)

    sent = [1]
    peer.stream = script
    items = data.subscribe_bars(["F"])
    states = [await anext(items)]
    deadline = time.monotonic() + 20
    while data.dropped_bars < 100:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert data.dropped_bars == 100
    closes: list[Decimal] = []
    while len(closes) < 50_000:
        item = await anext(items)
        if isinstance(item, Bar):
            closes.append(item.close)
        else:
            states.append(item)
    assert closes == [Decimal(n) for n in range(101, 50_101)]
    missed = (("F", datetime.fromisoformat(NINE_45)),)  # to be fetched from history
    connected = StreamState(connected=True)
    loss = StreamState(connected=True, detail="100 bars were dropped unread", missed=missed)
    assert states in ([connected, loss], [loss, connected])


async def test_symbols_change_while_the_stream_runs_and_survive_a_drop(peer: Peer, data: AlpacaData) -> None:
    wishes: list[Any] = []

    async def script(socket: web.WebSocketResponse) -> None:
        wishes.append(await greet(socket))
        if len(wishes) > 1:
            return await stay(socket)
        wishes.extend([await receive_msgpack(socket) for _ in range(4)])
        await confirm(socket, ["AMD", "TSLA"])
        await send_msgpack(socket, bar_message("TSLA", NINE_45))
        await asyncio.sleep(0.05)
        socket.get_extra_info("transport").abort()
        return None

    peer.stream = script
    reader = Reader(data.subscribe_bars(["AAPL", "AMD"]))
    await reader.until(lambda got: len(got) == 1)
    await asyncio.wait_for(data.change_symbols(["AMD", "TSLA"]), 1)
    await reader.until(lambda got: reader.states() == [True, False, True])
    assert reader.bars() == ["TSLA 10.5"]
    first, no_bars, no_corrections, no_statuses, more, second = wishes
    assert first == ["AAPL", "AMD"]
    assert no_bars == {"action": "unsubscribe", "bars": ["AAPL"]}
    assert no_corrections == {"action": "unsubscribe", "updatedBars": ["AAPL"]}
    assert no_statuses == {"action": "unsubscribe", "statuses": ["AAPL"]}
    assert sorted(more["bars"]) == ["AMD", "TSLA"]
    assert second == ["AMD", "TSLA"]


async def test_a_bar_that_was_under_way_when_its_symbol_was_removed_still_comes(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await send_msgpack(socket, bar_message("AAPL", NINE_45))
        for _ in range(3):
            await receive_msgpack(socket)
        await send_msgpack(socket, bar_message("AAPL", NINE_45))  # sent before the wish was read
        await confirm(socket, ["AMD"])
        await stay(socket)

    peer.stream = script
    await data.change_symbols(["AAPL"])  # nobody reads yet
    reader = Reader(data.subscribe_bars(["AAPL", "AMD"]))
    await reader.until(lambda got: len(reader.bars()) == 1)
    await data.change_symbols(["AMD"])
    await reader.until(lambda got: len(reader.bars()) == 2)
    assert reader.bars() == ["AAPL 10.5", "AAPL 10.5"]
    assert reader.states() == [True]


async def test_without_symbols_nothing_is_connected_until_there_are_some(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars([]))
    await reader.until(lambda got: got)
    await asyncio.sleep(0.1)
    assert reader.got == [StreamState(connected=False, detail="no symbols to watch")]
    assert peer.connections == 0
    await data.change_symbols(["F"])
    await reader.until(lambda got: True in reader.states())
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("code", "words"), [(402, "auth failed"), (406, "connection limit exceeded"), (409, "insufficient subscription")]
)
async def test_a_refused_login_says_why_and_is_tried_again(peer: Peer, data: AlpacaData, code: int, words: str) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if peer.connections == 3:
            await greet(socket)
        else:
            await send_msgpack(socket, {"T": "success", "msg": "connected"})
            await receive_msgpack(socket)
            await send_msgpack(socket, {"T": "error", "code": code, "msg": words})
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, False, True]
    assert words in reader.details()


async def test_a_refused_subscription_is_no_connection(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if peer.connections == 2:
            await greet(socket)
        else:
            await log_in(socket)
            await receive_msgpack(socket)
            await send_msgpack(socket, {"T": "error", "code": 405, "msg": "symbol limit exceeded"})
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, True]
    assert "405 symbol limit exceeded" in reader.details()


async def test_an_error_on_a_running_stream_is_reported_and_the_bars_go_on(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await send_msgpack(socket, {"T": "error", "code": 405, "msg": "symbol limit exceeded"})
        await send_msgpack(socket, bar_message("F", NINE_45))
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: reader.bars())
    assert reader.states() == [True, True]
    assert "405" in reader.details()
    assert peer.connections == 1


async def silent(socket: web.WebSocketResponse) -> None:
    """Accepts the connection and never says a word."""
    await stay(socket)


async def text_greeting(socket: web.WebSocketResponse) -> None:
    """Speaks JSON, which the client cannot read."""
    await socket.send_str('[{"T":"success","msg":"connected"}]')
    await stay(socket)


@pytest.mark.parametrize("first", [silent, text_greeting])
async def test_a_server_that_does_not_speak_the_protocol_is_left_and_tried_again(
    peer: Peer, impatient_data: AlpacaData, first: Callable[[web.WebSocketResponse], Awaitable[None]]
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if peer.connections == 1:
            await first(socket)
        else:
            await greet(socket)
            await stay(socket)

    peer.stream = script
    reader = Reader(impatient_data.subscribe_bars(["F"]))
    await reader.until(lambda got: True in reader.states())
    assert reader.states() == [False, True]


async def test_a_server_that_accepts_the_line_but_not_the_upgrade_is_left() -> None:
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()  # to the end: the client has closed the line
        writer.close()
        ended.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    data = AlpacaData("key", "secret", data_stream_url=f"ws://{host}:{port}/v2/iex", timing=IMPATIENT)
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: got)
    assert reader.states() == [False]
    await asyncio.wait_for(ended.wait(), 1)
    await data.disconnect()
    server.close()


async def test_a_line_on_which_no_pong_comes_is_lost(peer: Peer) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await stay(socket)

    peer.answers_pings = False
    peer.stream = script
    timing = Timing(ping_seconds=0.1, pong_seconds=0.2, first_retry_seconds=0.05)
    data = AlpacaData("key", "secret", data_stream_url=peer.data_stream_url, timing=timing)
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: reader.states() == [True, False, True])
    assert "keepalive" in reader.details()
    await data.disconnect()


async def test_large_frames_are_read(peer: Peer, data: AlpacaData) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await send_msgpack(socket, {"T": "padding", "text": "x" * 3_000_000}, bar_message("F", NINE_45))
        await stay(socket)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: reader.bars())
    assert reader.states() == [True]


# --- the end ----------------------------------------------------------------------------------------------------------


async def polite(socket: web.WebSocketResponse) -> None:
    await greet(socket)
    await stay(socket)


async def deaf(socket: web.WebSocketResponse) -> None:
    """Subscribed, then never reads again: it answers no close frame."""
    await greet(socket)
    await asyncio.sleep(30)


@pytest.mark.parametrize("script", [polite, deaf, silent])
async def test_stopping_takes_less_than_a_second_and_ends_the_reading(
    peer: Peer, data: AlpacaData, script: Callable[[web.WebSocketResponse], Awaitable[None]]
) -> None:
    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    if script is not silent:
        await reader.until(lambda got: got)
    else:
        await asyncio.sleep(0.1)
    started = time.monotonic()
    await data.disconnect()
    await reader.task
    assert time.monotonic() - started < 1
    connections = peer.connections
    await asyncio.sleep(0.3)
    assert peer.connections == connections


async def test_the_server_sees_a_proper_goodbye(peer: Peer, data: AlpacaData) -> None:
    codes: list[int | None] = []

    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await stay(socket)
        codes.append(socket.close_code)

    peer.stream = script
    reader = Reader(data.subscribe_bars(["F"]))
    await reader.until(lambda got: got)
    await data.disconnect()
    await asyncio.sleep(0.05)
    assert codes == [1000]


async def test_a_cancelled_reader_leaves_no_connection(peer: Peer, broker: AlpacaBroker) -> None:
    ended = asyncio.Event()

    async def script(socket: web.WebSocketResponse) -> None:
        await authorize(socket)
        await stay(socket)
        ended.set()

    peer.stream = script
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: got)
    reader.task.cancel()
    with suppress(asyncio.CancelledError):
        await reader.task
    async with asyncio.timeout(20):
        assert await ended.wait()


async def test_reading_anew_ends_the_stream_read_before(peer: Peer, broker: AlpacaBroker) -> None:
    open_now = 0

    async def script(socket: web.WebSocketResponse) -> None:
        nonlocal open_now
        open_now += 1
        await authorize(socket)
        await stay(socket)
        open_now -= 1

    peer.stream = script
    first = Reader(broker.subscribe_trade_updates())
    await first.until(lambda got: got)
    second = Reader(broker.subscribe_trade_updates())
    await second.until(lambda got: got)
    await asyncio.wait_for(first.task, 1)
    assert open_now == 1
    assert not second.task.done()


async def test_stopping_while_waiting_for_the_next_attempt(peer: Peer) -> None:
    slow = Timing(first_retry_seconds=20)
    broker = AlpacaBroker("key", "secret", trading_stream_url="ws://127.0.0.1:9/stream", timing=slow)
    reader = Reader(broker.subscribe_trade_updates())
    await reader.until(lambda got: got)
    started = time.monotonic()
    await broker.disconnect()
    await reader.task
    assert time.monotonic() - started < 0.5


async def test_no_task_and_no_socket_is_left_behind(peer: Peer, impatient_data: AlpacaData) -> None:
    before = asyncio.all_tasks()

    async def script(socket: web.WebSocketResponse) -> None:
        await stay(socket)  # every handshake ends by its deadline

    peer.stream = script
    reader = Reader(impatient_data.subscribe_bars(["F"]))
    await reader.until(lambda got: len(got) == 3)
    await impatient_data.disconnect()
    await reader.task
    await asyncio.sleep(0.1)
    left = {task for task in asyncio.all_tasks() - before if not task.done() and "aiohttp" not in repr(task)}
    assert left == set()
