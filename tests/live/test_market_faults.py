"""Each fault of the built-in market, as a client sees it: real sockets, on virtual time."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
import requests
from django.core.management import CommandError, call_command

from tests.built_in_market import KEYS, Conductor, script
from tests.simulation.virtual_time import VirtualLoop
from trading.exchange import Exchange
from trading.simulator.faults import BadSchedule, Fault, Faults, Kind, On, Schedule, read_schedule, schedule_of
from trading.simulator.streams import BAR, UPDATE

PRICES = "100|100|101 103 101 102|102 102 98 99|99|99|99|99"
A_DAY_SECONDS = 86_400
HEADERS = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}
STOP = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "stop", "time_in_force": "day", "stop_price": "120"}
MARKET = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}


class Desk:
    """A client of a market with faults: blocking requests on threads, and the two streams as they come."""

    def __init__(self, conductor: Conductor, loop: VirtualLoop) -> None:
        self.conductor = conductor
        self.loop = loop
        self.market = conductor.market
        loop.held = lambda: self.market.faults.held

    async def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """The answer. Raises requests.ConnectionError."""
        url = f"{self.market.urls['trading_url']}{path}"
        answer = await asyncio.to_thread(requests.request, method, url, headers=HEADERS, timeout=30, **options)
        await self.conductor.settled()
        return answer

    async def submit(self, order: dict[str, str] = STOP) -> requests.Response:
        return await self.ask("POST", "/v2/orders", json=order)

    async def updates(self, session: aiohttp.ClientSession) -> "Stream":
        socket = await session.ws_connect(self.market.urls["trading_stream_url"], autoping=False)
        await socket.send_json({"action": "auth", "key": KEYS[0], "secret": KEYS[1]})
        await socket.receive()
        await socket.send_json({"action": "listen", "data": {"streams": ["trade_updates"]}})
        await socket.receive()
        return Stream(socket, self.conductor, UPDATE)

    async def bars(self, session: aiohttp.ClientSession) -> "Stream":
        kind = {"Content-Type": "application/msgpack"}
        socket = await session.ws_connect(self.market.urls["data_stream_url"], headers=kind, autoping=False)
        await socket.receive()
        await socket.send_bytes(msgpack.packb({"action": "auth", "key": KEYS[0], "secret": KEYS[1]}))
        await socket.receive()
        both = {"bars": ["AAPL"], "updatedBars": ["AAPL"]}
        await socket.send_bytes(msgpack.packb({"action": "subscribe", **both}))
        await socket.receive()
        return Stream(socket, self.conductor, BAR)


class Stream:
    """What comes over one stream, told to the lockstep as worked off."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, conductor: Conductor, kind: str) -> None:
        self.socket = socket
        self.heard: list[Any] = []
        self.pongs = 0
        self.is_over = False
        self._conductor = conductor
        self._kind = kind
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            frame = await self.socket.receive()
            if frame.type is aiohttp.WSMsgType.PONG:
                self.pongs += 1
            elif frame.type is aiohttp.WSMsgType.PING:
                await self.socket.pong(frame.data)
            elif frame.type is aiohttp.WSMsgType.BINARY:
                self.heard.append(json.loads(frame.data) if self._kind == UPDATE else msgpack.unpackb(frame.data)[0])
                self._conductor.lockstep.worked_off(self._kind)
            else:
                self.is_over = True
                return

    @property
    def events(self) -> list[str]:
        return [message["data"]["event"] for message in self.heard]

    async def ping(self) -> bool:
        """Whether a ping is answered within 20 seconds."""
        before = self.pongs
        await self.socket.ping()
        await asyncio.sleep(20)
        return self.pongs > before


def play(test: Callable[[Desk], Coroutine[Any, Any, None]], *faults: Fault, prices: str = PRICES) -> None:
    """Runs the test on virtual time with a market in which these faults strike."""
    loop = VirtualLoop("test")

    async def run() -> None:
        options: dict[str, Any] = {
            "exchange": Exchange(slippage_per_share=Decimal(0)),
            "patience_seconds": A_DAY_SECONDS,
        }
        async with Conductor(script(prices), faults=Schedule(faults=faults), **options) as conductor:
            await conductor.minute(2)
            await test(Desk(conductor, loop))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("kind", [Kind.LOST, Kind.RESET, Kind.HANG])
def test_a_request_may_be_carried_out_or_not_and_its_answer_be_lost(kind: Kind, done: bool) -> None:
    async def test(desk: Desk) -> None:
        before = desk.loop.time()
        with pytest.raises(requests.ConnectionError):
            await desk.submit()
        assert desk.loop.time() - before == pytest.approx(60 if kind is Kind.HANG else 0)
        assert len(desk.market.book.orders) == int(done)
        assert (await desk.submit()).ok

    play(test, Fault(on=On.SUBMIT, kind=kind, number=1, done=done, seconds=60 if kind is Kind.HANG else 0))


@pytest.mark.parametrize("done", [False, True])
def test_a_server_error_says_nothing_about_what_was_done(done: bool) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.submit()).status_code == HTTPStatus.GATEWAY_TIMEOUT
        assert (await desk.submit()).status_code == HTTPStatus.GATEWAY_TIMEOUT
        assert len(desk.market.book.orders) == (2 if done else 0)
        assert (await desk.submit()).ok

    play(test, Fault(on=On.SUBMIT, kind=Kind.ERROR, number=1, times=2, done=done, status=504))


@pytest.mark.parametrize("done", [False, True])
def test_an_answer_may_take_its_time_before_or_after_it_is_true(done: bool) -> None:
    async def test(desk: Desk) -> None:
        asking = asyncio.create_task(desk.submit())
        await asyncio.sleep(3)
        assert len(desk.market.book.orders) == int(done)
        assert (await asking).ok
        assert desk.loop.time() >= 5

    play(test, Fault(on=On.SUBMIT, kind=Kind.LATENCY, number=1, done=done, seconds=5))


@pytest.mark.parametrize(("done", "header"), [(True, "Retry-After"), (False, "X-RateLimit-Reset")])
def test_a_rate_limit_says_how_long_it_lasts(done: bool, header: str) -> None:
    async def test(desk: Desk) -> None:
        answer = await desk.submit()
        assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert int(answer.headers[header]) >= 7
        assert not desk.market.book.orders

    play(test, Fault(on=On.SUBMIT, kind=Kind.RATE_LIMITED, number=1, done=done, seconds=7))


def test_faults_strike_their_own_kind_of_request_only() -> None:
    async def test(desk: Desk) -> None:
        order = (await desk.submit()).json()["id"]
        assert (await desk.ask("GET", f"/v2/orders/{order}")).ok
        assert (await desk.ask("GET", f"/v2/orders/{order}")).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert (await desk.ask("DELETE", f"/v2/orders/{order}")).ok

    play(test, Fault(on=On.LOOK_UP, kind=Kind.ERROR, number=2))


def test_a_limit_of_requests_a_minute_for_a_while() -> None:
    async def test(desk: Desk) -> None:
        await desk.conductor.minute()
        statuses = [(await desk.ask("GET", "/v2/account")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await desk.ask("GET", "/v2/stocks/bars?symbols=AAPL&timeframe=1Min")).ok  # counted apart
        await asyncio.sleep(60)
        assert (await desk.ask("GET", "/v2/account")).ok
        await desk.conductor.minute(3)
        assert all([(await desk.ask("GET", "/v2/account")).ok for _ in range(10)])

    play(test, Fault(on=On.MINUTE, kind=Kind.RATE_LIMIT, number=2, number_a_minute=3, seconds=120))


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "seconds", "heard"),
    [
        (Kind.DUPLICATE, 0, ["new", "fill", "fill"]),
        (Kind.MISSING, 0, ["new"]),
        (Kind.REORDER, 0, ["new", "fill"]),
        (Kind.LATE, 3, ["new", "fill"]),
    ],
)
def test_a_frame_may_come_twice_never_or_late(kind: Kind, seconds: float, heard: list[str]) -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.updates(session)
            await desk.submit(MARKET)
            await asyncio.sleep(1)
            assert stream.events == (["new"] if kind is Kind.LATE else heard)
            await asyncio.sleep(5)
            assert stream.events == heard

    play(test, Fault(on=On.UPDATE, kind=kind, number=2, seconds=seconds))


def test_two_frames_may_change_places() -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.updates(session)
            await desk.submit(MARKET)
            await asyncio.sleep(1)
            assert stream.events == ["fill", "new"]

    play(test, Fault(on=On.UPDATE, kind=Kind.REORDER, number=1, seconds=2))


def test_a_cut_connection_may_keep_its_slot() -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.updates(session)
            await desk.submit()
            await asyncio.sleep(1)
            assert stream.is_over
            assert stream.events == []
            with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
                await desk.updates(session)
            await asyncio.sleep(90)
            again = await desk.updates(session)
            await desk.submit()
            await asyncio.sleep(1)
            assert again.events == ["new"]

    play(test, Fault(on=On.UPDATE, kind=Kind.DROP, number=1, seconds=90))


@pytest.mark.parametrize(("kind", "answers"), [(Kind.MUTE, True), (Kind.HALF_OPEN, False)])
def test_a_stream_may_be_open_and_bring_nothing(kind: Kind, answers: bool) -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.updates(session)
            assert await stream.ping()
            await desk.submit()
            assert await stream.ping() is answers
            assert stream.events == []
            await asyncio.sleep(60)
            assert await stream.ping()
            await desk.submit()
            await asyncio.sleep(1)
            assert stream.events == ["new"]

    play(test, Fault(on=On.UPDATE, kind=kind, number=1, seconds=60))


def test_a_bar_may_be_corrected_half_a_minute_later() -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.bars(session)
            await desk.conductor.minute()
            await asyncio.sleep(29)
            assert [bar["T"] for bar in stream.heard] == ["b"]
            await asyncio.sleep(2)
            first, second = stream.heard
            assert (second["T"], second["t"]) == ("u", first["t"])
            assert second["v"] > first["v"]

    play(test, Fault(on=On.BAR, kind=Kind.UPDATED, number=1))


# --- orders, minutes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "filled", "status"), [("1", 10, "filled"), ("0.3", 3, "canceled")])
def test_an_order_may_be_filled_while_its_cancellation_is_on_the_way(share: str, filled: int, status: str) -> None:
    async def test(desk: Desk) -> None:
        order = (await desk.submit()).json()["id"]
        assert (await desk.ask("DELETE", f"/v2/orders/{order}")).status_code == HTTPStatus.NO_CONTENT
        await desk.conductor.settled()
        answer = (await desk.ask("GET", f"/v2/orders/{order}")).json()
        assert (answer["status"], answer["filled_qty"]) == (status, str(filled))

    play(test, Fault(on=On.CANCELING, kind=Kind.LATE_FILL, number=1, share=Decimal(share)))


def test_a_replacement_may_come_too_late() -> None:
    async def test(desk: Desk) -> None:
        async with aiohttp.ClientSession() as session:
            stream = await desk.updates(session)
            order = (await desk.submit()).json()["id"]
            answer = await desk.ask("PATCH", f"/v2/orders/{order}", json={"stop_price": "119"})
            await asyncio.sleep(1)
            assert stream.events == ["new", "rejected"]
            assert (await desk.ask("GET", f"/v2/orders/{order}")).json()["status"] == "new"
            assert (await desk.ask("GET", f"/v2/orders/{answer.json()['id']}")).json()["status"] == "rejected"

    play(test, Fault(on=On.REPLACING, kind=Kind.REFUSED, number=1))


def test_a_thin_market_fills_in_parts() -> None:
    async def test(desk: Desk) -> None:
        order = (await desk.submit(STOP | {"stop_price": "102.5"})).json()["id"]
        await desk.conductor.minute()
        answer = (await desk.ask("GET", f"/v2/orders/{order}")).json()
        assert (answer["status"], answer["filled_qty"]) == ("partially_filled", "4")
        await desk.conductor.minute(3)
        assert (await desk.ask("GET", f"/v2/orders/{order}")).json()["status"] == "filled"

    play(test, Fault(on=On.MINUTE, kind=Kind.THIN, number=2, share=Decimal("0.0004"), seconds=120))


def test_the_markets_clock_may_step() -> None:
    async def test(desk: Desk) -> None:
        before = (await desk.ask("GET", "/v2/clock")).json()["timestamp"]
        await desk.conductor.minute()
        after = (await desk.ask("GET", "/v2/clock")).json()["timestamp"]
        assert (before[11:19], after[11:19]) == ("09:32:00", "09:32:45")

    play(test, Fault(on=On.MINUTE, kind=Kind.CLOCK_STEP, number=3, seconds=-15))


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_seed_is_always_the_same_schedule_and_survives_a_file() -> None:
    schedule = schedule_of(5)
    assert schedule == schedule_of(5)
    assert schedule != schedule_of(6)
    assert read_schedule(schedule.as_json()) == schedule
    kinds = {(fault.on, fault.kind) for seed in range(300) for fault in schedule_of(seed).faults}
    assert {kind for _, kind in kinds} == set(Kind)


def test_faults_can_be_ended() -> None:
    faults = Faults(Schedule(faults=(Fault(on=On.SUBMIT, kind=Kind.LOST, number=1, times=3),)))
    assert faults.strike(On.SUBMIT) is not None
    faults.end()
    assert faults.strike(On.SUBMIT) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"faults": [{"on": "submit", "kind": "mute", "number": 1}]}', "fault 1: mute does not happen to submit"),
        ('{"faults": [{"on": "submit", "kind": "lost"}]}', "number is missing"),
        ('{"faults": [{"on": "submit", "kind": "lost", "number": 0}]}', "begin at 1"),
        ('{"faults": [{"on": "tea", "kind": "lost", "number": 1}]}', "'tea' is not a valid On"),
        ('{"faults": [{"on": "submit", "kind": "lost", "number": 1, "sedonds": 1}]}', "unknown: sedonds"),
        ('{"faults": [{"on": "submit", "kind": "error", "number": 1, "status": 404}]}', "500 to 599"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(BadSchedule, match=complaint):
        read_schedule(text)


def test_runmarket_refuses_it_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--faults takes a whole number or a file"):
        call_command("runmarket", faults=str(tmp_path / "missing.json"))
