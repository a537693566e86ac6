"""The dashboard's WebSocket, on the real consumer, channel layer and broadcaster."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from algotrader.asgi import application
from dashboard.consumers import LONGEST_OUTBOX, DashboardConsumer
from tests.db.samples import order as entry
from tests.web.conftest import SYMBOLS, History
from trading.live.broadcast import GROUP, UPDATES_PER_SECOND, Broadcaster
from trading.messages import ActivityRecorded, ActivityType, Restored
from trading.settings import TraderSettings
from trading.trader import Trader

SOON_SECONDS = 5
RUN_ID = 7
LOGIN_NEEDED = 4401
HOST = [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")]
ENVELOPE = {"version", "timestamp", "type", "run_id", "seq", "data"}


@pytest.fixture(autouse=True)
async def empty_layer(ledger: str) -> AsyncIterator[None]:
    """No message or member of another test is in the channel layer."""
    await get_channel_layer().flush()
    yield
    await get_channel_layer().flush()


@pytest.fixture
def cookie(ledger: str) -> str:
    """The session cookie of somebody who has signed in."""
    browser = Client()
    browser.force_login(User.objects.create_user("operator"))
    return browser.cookies[settings.SESSION_COOKIE_NAME].value


@asynccontextmanager
async def socket(cookie: str, *, through: Any = application) -> AsyncIterator[WebsocketCommunicator]:
    """An open connection of a page, by default through the whole ASGI application."""
    session = (b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode())
    page = WebsocketCommunicator(through, "/ws/dashboard", headers=[*HOST, session])
    connected, _ = await page.connect(timeout=SOON_SECONDS)
    assert connected
    yield page
    await page.disconnect(timeout=SOON_SECONDS)


@asynccontextmanager
async def engine() -> AsyncIterator[Broadcaster]:
    """What the engine says to the pages, with a trader that has done nothing yet."""
    broadcaster = Broadcaster(
        clock=lambda: datetime(2026, 3, 2, 15, 0, tzinfo=UTC), account_mode="paper", run_id=RUN_ID
    )
    trader = Trader(
        settings=TraderSettings(), symbols=SYMBOLS, cash=Decimal(25_000), account_id="alpaca:PA1", asks_broker=False
    )
    broadcaster.attach(trader, [])
    broadcaster.streams(bars=True, trade_updates=True)
    answering = asyncio.create_task(broadcaster.answer_snapshot_requests())
    try:
        yield broadcaster
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering


async def next_message(page: WebsocketCommunicator) -> dict[str, Any]:
    message: dict[str, Any] = await page.receive_json_from(timeout=SOON_SECONDS)
    assert set(message) == ENVELOPE
    assert message["version"] == 1
    return message


async def next_of(page: WebsocketCommunicator, kind: str) -> dict[str, Any]:
    while (message := await next_message(page))["type"] != kind:
        pass
    return message


async def broadcast(number: int, *, run_id: int = RUN_ID) -> None:
    """One numbered message of the engine to all pages."""
    at = datetime.now(UTC).isoformat()
    text = json.dumps({"version": 1, "timestamp": at, "type": "activity", "run_id": run_id, "seq": number, "data": {}})
    await get_channel_layer().group_send(GROUP, {"type": "dashboard.messages", "texts": [text]})


async def taken() -> None:
    """Returns when the pages have taken everything out of the channel layer, which drops what it cannot hold."""
    async with asyncio.timeout(SOON_SECONDS):
        while not all(queue.empty() for queue in get_channel_layer().channels.values()):  # noqa: ASYNC110  the layer has no event for it
            await asyncio.sleep(0.005)


def with_session(consumer: Any) -> Any:
    """A consumer behind the session's middleware alone."""
    return AuthMiddlewareStack(consumer)


# --- who may listen ---------------------------------------------------------------------------------------------------


async def test_without_a_login_there_is_no_connection() -> None:
    page = WebsocketCommunicator(application, "/ws/dashboard", headers=HOST)
    assert await page.connect(timeout=SOON_SECONDS) == (False, LOGIN_NEEDED)


async def test_a_login_of_another_page_does_not_help(cookie: str) -> None:
    session = (b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode())
    evil = [(b"host", b"localhost:8000"), (b"origin", b"http://evil.example")]
    page = WebsocketCommunicator(application, "/ws/dashboard", headers=[*evil, session])
    connected, _ = await page.connect(timeout=SOON_SECONDS)
    assert not connected


async def test_signing_out_ends_the_connection_at_the_next_heartbeat(cookie: str) -> None:
    async with socket(cookie, through=with_session(DashboardConsumer.as_asgi(heartbeat_seconds=0.05))) as page:
        await next_of(page, "heartbeat")
        browser = Client()
        browser.cookies[settings.SESSION_COOKIE_NAME] = cookie
        await database_sync_to_async(browser.post)("/logout/")
        while (output := await page.receive_output(timeout=SOON_SECONDS))["type"] == "websocket.send":
            pass
        assert output == {"type": "websocket.close", "code": LOGIN_NEEDED}


# --- snapshots --------------------------------------------------------------------------------------------------------


async def test_the_first_message_is_the_running_engines_snapshot(cookie: str) -> None:
    async with engine(), socket(cookie) as page:
        first = await next_message(page)
    assert first["type"] == "snapshot"
    state = first["data"]
    assert {"account", "positions", "pnl", "strategies", "recent_activity", "connection"} <= set(state)
    assert state["account"]["equity"] == 25_000
    assert [strategy["symbol"] for strategy in state["strategies"]] == list(SYMBOLS)
    assert state["connection"]["status"] == "connected"
    assert state["connection"]["account_mode"] == "paper"


async def test_without_an_engine_the_ledger_speaks_after_a_second(cookie: str, history: History) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with socket(cookie) as page:
        first = await next_message(page)
    assert 0.9 < loop.time() - started < SOON_SECONDS
    assert (first["type"], first["seq"]) == ("snapshot", 0)
    assert first["data"]["connection"]["status"] == "disconnected"
    assert [position["symbol"] for position in first["data"]["positions"]] == ["TSLA"]


async def test_before_the_snapshot_nothing_is_said(cookie: str) -> None:
    async with socket(cookie) as page:
        for number in range(5):
            await broadcast(number)
        assert await page.receive_nothing(timeout=0.2)
        assert (await next_message(page))["type"] == "snapshot"


async def test_what_the_engine_says_reaches_the_page_in_order_and_numbered_from_the_snapshot_on(cookie: str) -> None:
    async with engine() as broadcaster, socket(cookie) as page:
        number = (await next_message(page))["seq"]
        said = ("AAPL looks good", "bought 10 AAPL")
        for index, text in enumerate(said):
            line = ActivityRecorded(
                at=datetime(2026, 3, 2, 15, 0, tzinfo=UTC), type=ActivityType.SIGNAL, symbol="AAPL", message=text
            )
            broadcaster.activity(index, line)
        await broadcaster.flush()
        heard = [await next_of(page, "activity") for _ in said]
    assert [message["data"]["message"] for message in heard] == list(said)
    assert [message["seq"] for message in heard] == [number + 1, number + 2]


async def test_a_page_that_saw_a_gap_gets_a_fresh_snapshot(cookie: str) -> None:
    async with engine(), socket(cookie) as page:
        await next_of(page, "snapshot")
        await page.send_json_to({"type": "snapshot"})
        await next_of(page, "snapshot")


@pytest.mark.parametrize("nonsense", ["", "{", "[]", '{"type": "halt"}', "null"])
async def test_nothing_else_can_be_asked_for(cookie: str, nonsense: str) -> None:
    async with engine(), socket(cookie) as page:
        await next_of(page, "snapshot")
        await page.send_input({"type": "websocket.receive", "text": nonsense})
        assert await page.receive_nothing(timeout=0.2)


async def test_an_engine_that_starts_later_takes_over(cookie: str) -> None:
    async with socket(cookie) as page:
        assert (await next_message(page))["data"]["connection"]["engine"] == "off"
        async with engine() as broadcaster:
            await broadcaster.flush()
            assert (await next_message(page))["data"]["connection"]["status"] == "connected"


async def test_an_engine_that_falls_silent_is_noticed(cookie: str) -> None:
    quick = with_session(DashboardConsumer.as_asgi(heartbeat_seconds=0.1, engine_answers_seconds=0.1))
    async with socket(cookie, through=quick) as page:
        async with engine():
            assert (await next_of(page, "snapshot"))["data"]["connection"]["status"] == "connected"
        while (await next_of(page, "snapshot"))["data"]["connection"]["status"] != "disconnected":
            pass


async def test_requests_that_nobody_reads_do_not_break_the_page(cookie: str) -> None:
    with suppress(ChannelFull):
        for _ in range(1000):
            await get_channel_layer().send("engine", {"type": "snapshot.request", "reply": "x"})
    async with socket(cookie) as page:
        assert (await next_message(page))["type"] == "snapshot"


# --- heartbeats and slow pages ----------------------------------------------------------------------------------------


async def test_a_heartbeat_repeats_the_number_of_the_last_message(cookie: str) -> None:
    quick = with_session(DashboardConsumer.as_asgi(heartbeat_seconds=0.1))
    async with engine() as broadcaster, socket(cookie, through=quick) as page:
        number = (await next_of(page, "snapshot"))["seq"]
        line = ActivityRecorded(
            at=datetime(2026, 3, 2, 15, 0, tzinfo=UTC), type=ActivityType.SIGNAL, symbol="", message="hello"
        )
        broadcaster.activity(1, line)
        await broadcaster.flush()
        last = number
        while (message := await next_message(page))["type"] != "heartbeat":
            last = message["seq"]
        assert message["seq"] == last
        assert datetime.fromisoformat(message["data"]["server_time"]).tzinfo == UTC


class SlowPage:
    """A page that reads nothing until it is told to; its connection is driven by the real consumer."""

    def __init__(self, user: User) -> None:
        self.reads = asyncio.Event()
        self.got: list[dict[str, Any]] = []
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "websocket", "path": "/ws/dashboard", "headers": [], "user": user}
        self.connection = asyncio.create_task(DashboardConsumer.as_asgi()(scope, self.outgoing.get, self._take))
        self.outgoing.put_nowait({"type": "websocket.connect"})

    async def _take(self, output: dict[str, Any]) -> None:
        if output["type"] == "websocket.send":
            self.got.append(json.loads(output["text"]))
            await self.reads.wait()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(SOON_SECONDS):
            while len(self.got) < count:  # noqa: ASYNC110  several conditions on one list
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.outgoing.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self.connection, timeout=SOON_SECONDS)


async def test_a_page_that_does_not_read_holds_nobody_up_and_gets_a_fresh_snapshot_afterwards() -> None:
    user = await database_sync_to_async(User.objects.create_user)("operator")
    async with engine():
        page = SlowPage(user)
        await page.has(1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(1, 2 * LONGEST_OUTBOX):
            await broadcast(number)
            await taken()
        assert loop.time() - started < SOON_SECONDS
        assert len(page.got) == 1
        page.reads.set()
        await page.has(2)
        await asyncio.sleep(0.1)
        assert [message["type"] for message in page.got] == ["snapshot", "snapshot"]
        await broadcast(page.got[-1]["seq"] + 1)
        await page.has(3)
        assert page.got[-1]["type"] == "activity"
        await page.close()


async def test_ten_pages_that_never_read_take_nothing_from_forty_that_do() -> None:
    user = await database_sync_to_async(User.objects.create_user)("operator")
    numbers = list(range(1, LONGEST_OUTBOX + 20))
    async with engine():
        deaf, readers = [SlowPage(user) for _ in range(10)], [SlowPage(user) for _ in range(40)]
        for page in readers:
            page.reads.set()
        for page in (*deaf, *readers):
            await page.has(1)
        for number in numbers:
            await broadcast(number)
            await taken()
        for page in readers:
            await page.has(1 + len(numbers))
            assert [message["seq"] for message in page.got[1:]] == numbers
        for page in deaf:  # nothing was kept for them
            assert len(page.got) == 1
            page.reads.set()
            await page.has(2)
            assert [message["type"] for message in page.got] == ["snapshot", "snapshot"]
        for page in (*deaf, *readers):
            await page.close()


async def test_a_page_that_reads_slowly_loses_nothing_as_long_as_it_keeps_up() -> None:
    user = await database_sync_to_async(User.objects.create_user)("operator")
    async with engine():
        page = SlowPage(user)
        await page.has(1)
        for number in range(1, LONGEST_OUTBOX // 2):
            await broadcast(number)
            await taken()
        page.reads.set()
        await page.has(LONGEST_OUTBOX // 2)
        assert [message["seq"] for message in page.got[1:]] == list(range(1, LONGEST_OUTBOX // 2))
        await page.close()


async def test_what_the_channel_layer_dropped_is_made_good_by_a_fresh_snapshot(cookie: str) -> None:
    async with engine(), socket(cookie) as page:
        number = (await next_of(page, "snapshot"))["seq"]
        await broadcast(number + 1)
        await broadcast(number + 3)
        assert [(await next_message(page))["type"] for _ in range(2)] == ["activity", "snapshot"]


async def test_a_new_engine_is_seen_as_such_though_its_market_and_its_numbers_begin_anew(cookie: str) -> None:
    async with engine(), socket(cookie) as page:
        assert (await next_of(page, "snapshot"))["run_id"] == RUN_ID
        await broadcast(1, run_id=RUN_ID)
        assert (await next_message(page))["type"] == "activity"
        text = {
            "version": 1,
            "timestamp": "2020-01-02T15:00:00Z",
            "type": "activity",
            "run_id": 8,
            "seq": 1,
            "data": {},
        }
        await get_channel_layer().group_send(GROUP, {"type": "dashboard.messages", "texts": [json.dumps(text)]})
        assert (await next_message(page))["type"] == "snapshot"


async def test_a_closed_page_leaves_nothing_running_and_is_forgotten(cookie: str) -> None:
    before = asyncio.all_tasks()
    async with engine(), socket(cookie) as page:
        await next_of(page, "snapshot")
    assert asyncio.all_tasks() <= before
    assert get_channel_layer().groups == {}


@pytest.mark.parametrize("steps", range(4))
async def test_it_stops_also_when_news_come_at_that_very_moment(steps: int) -> None:
    async with engine() as broadcaster:
        sending = asyncio.create_task(broadcaster.run())
        await asyncio.sleep(2 / UPDATES_PER_SECOND)  # what there was to say is said; it waits
        broadcaster.changed()
        for _ in range(steps):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending}, timeout=SOON_SECONDS)
        assert sending.cancelled()


async def test_of_a_long_watchlist_the_first_fifty_are_shown_and_whatever_has_an_order() -> None:
    names = [f"{first}{second}" for first in "ABCDEFGH" for second in "ABCDEFGHIJ"]
    trader = Trader(
        settings=TraderSettings(), symbols=names, cash=Decimal(25_000), account_id="alpaca:PA1", asks_broker=False
    )
    order = entry(symbol="HJ")
    trader.handle(Restored(now=order.created_at, orders=(order,), fills=(), cash=Decimal(25_000)))
    broadcaster = Broadcaster(clock=lambda: order.created_at, account_mode="paper", run_id=RUN_ID)
    broadcaster.attach(trader, [])
    assert [state["symbol"] for state in broadcaster.strategies()] == ["HJ", *names[:49]]
