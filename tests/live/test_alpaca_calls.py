"""How broker calls are repeated: the real adapter against a server that loses, delays and refuses."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from orders.lifecycle import OrderType
from tests.live.alpaca_peer import ACCOUNT, Answer, Peer, hang, named, order_message, reset
from trading.broker import (
    BracketOrderRequest,
    BrokerError,
    BrokerUnavailable,
    NotAuthorized,
    NotFound,
    OrderRefused,
    OrderRequest,
    RateLimited,
)
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.calls import BrokerCalls, DataCalls, RateLimiter, Waits

ORDER_ID = "11111111-0000-4000-8000-000000000001"
ORDERS, BY_CLIENT_ID, ONE_ORDER = "/v2/orders", "/v2/orders:by_client_order_id", f"/v2/orders/{ORDER_ID}"
STOP = OrderRequest(
    symbol="AAPL", buys=False, order_type=OrderType.STOP, qty=Decimal(3), client_order_id="s-1",
    stop_price=Decimal("299.5"),
)  # fmt: skip
DOWN = Answer(status=503, text="<html>maintenance</html>")
TIMED_OUT = Answer(status=504, text="")
UNKNOWN = Answer(status=404, body={"code": 40410000, "message": "order not found for s-1"})
TAKEN = Answer(status=422, body={"code": 42210000, "message": "client_order_id must be unique"})
TOO_FEW = Answer(status=403, body={"code": 40310000, "message": "insufficient qty available for order"})
LIMITED = Answer(status=429, text="", headers={"Retry-After": "0.2"})
DENIED = Answer(status=401, body={"message": "unauthorized."})
QUICK = Waits(broker_seconds=0.02, data_seconds=0.02, jitter_seconds=0.01)


@pytest.fixture
async def calls(peer: Peer) -> AsyncIterator[BrokerCalls]:
    broker = AlpacaBroker("key", "secret", trading_url=peer.url, timing=Timing(read_seconds=0.2))
    yield BrokerCalls(broker, waits=QUICK)
    await broker.disconnect()


@pytest.fixture
async def data_calls(peer: Peer) -> AsyncIterator[DataCalls]:
    data = AlpacaData("key", "secret", data_url=peer.url, timing=Timing(read_seconds=0.2))
    yield DataCalls(data, waits=QUICK)
    await data.disconnect()


def sent(peer: Peer) -> list[str]:
    """What was asked, in order, in short."""
    words = {("POST", ORDERS): "submit", ("PATCH", ONE_ORDER): "replace", ("GET", BY_CLIENT_ID): "look up"}
    return [words.get((request.method, request.path), f"{request.method} {request.path}") for request in peer.received]


# --- submit -----------------------------------------------------------------------------------------------------------


async def test_a_clear_answer_is_the_end_of_it(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, order_message(client_order_id="s-1"))
    assert (await calls.submit(STOP)).client_order_id == "s-1"
    assert sent(peer) == ["submit"]


@pytest.mark.parametrize("lost", [DOWN, TIMED_OUT, hang, reset, Answer(text="<html>")], ids=named)
async def test_an_order_that_got_there_although_its_answer_was_lost_is_found_and_not_sent_again(
    peer: Peer, calls: BrokerCalls, lost: Any
) -> None:
    peer.on("POST", ORDERS, lost)
    peer.on("GET", BY_CLIENT_ID, order_message(client_order_id="s-1", status="accepted"))
    assert (await calls.submit(STOP, protective=True)).broker_status == "accepted"
    assert sent(peer) == ["submit", "look up"]
    assert peer.received[1].query == {"client_order_id": "s-1"}


async def test_an_order_the_broker_does_not_show_is_sent_again_under_the_same_id(
    peer: Peer, calls: BrokerCalls
) -> None:
    peer.on("POST", ORDERS, DOWN, reset, order_message(client_order_id="s-1"))
    peer.on("GET", BY_CLIENT_ID, UNKNOWN)
    await calls.submit(STOP)
    assert sent(peer) == ["submit", "look up", "submit", "look up", "submit"]
    assert {request.body["client_order_id"] for request in peer.asked("POST", ORDERS)} == {"s-1"}


async def test_a_late_twin_is_recognised_by_the_refusal_of_the_second_attempt(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, TIMED_OUT, TAKEN)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN, order_message(client_order_id="s-1", status="new"))
    assert (await calls.submit(STOP)).broker_status == "new"
    assert sent(peer) == ["submit", "look up", "submit", "look up"]


async def test_shares_reserved_by_a_late_twin_do_not_count_as_a_refusal(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, TIMED_OUT, TOO_FEW)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN, order_message(client_order_id="s-1", status="new"))
    assert (await calls.submit(STOP)).broker_status == "new"


async def test_after_three_attempts_the_outcome_is_unknown(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, DOWN)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN)
    with pytest.raises(BrokerUnavailable, match="503"):
        await calls.submit(STOP)
    assert sent(peer) == ["submit", "look up"] * 3


async def test_an_order_that_exists_but_is_not_shown_stays_unknown(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, TAKEN)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN)
    with pytest.raises(BrokerUnavailable, match="exists"):
        await calls.submit(STOP)


async def test_a_refusal_is_final_and_sent_once(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, TOO_FEW)
    with pytest.raises(OrderRefused, match="insufficient qty"):
        await calls.submit(STOP)
    assert sent(peer) == ["submit"]


async def test_a_refusal_after_a_lost_answer_counts_once_the_order_is_not_there(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, DOWN, TOO_FEW)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN)
    with pytest.raises(OrderRefused):
        await calls.submit(STOP)
    assert sent(peer) == ["submit", "look up", "submit", "look up"]


async def test_a_refusal_proves_nothing_while_the_look_up_fails(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, DOWN, TOO_FEW)
    peer.on("GET", BY_CLIENT_ID, DOWN)
    with pytest.raises(BrokerUnavailable):
        await calls.submit(STOP)


async def test_a_rate_limit_is_waited_out_once(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, LIMITED, order_message(client_order_id="s-1"))
    started = time.monotonic()
    await calls.submit(STOP)
    assert time.monotonic() - started >= 0.2
    assert sent(peer) == ["submit", "submit"]
    peer.on("POST", ORDERS, LIMITED)
    with pytest.raises(RateLimited):
        await calls.submit(STOP)
    assert sent(peer) == ["submit"] * 4


async def test_a_rate_limit_after_a_lost_answer_leaves_the_outcome_unknown(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, DOWN, LIMITED)
    peer.on("GET", BY_CLIENT_ID, UNKNOWN)
    with pytest.raises(BrokerUnavailable, match="may have arrived"):
        await calls.submit(STOP)


async def test_wrong_keys_end_everything_at_once(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, DENIED)
    peer.on("GET", "/v2/account", DENIED)
    with pytest.raises(NotAuthorized):
        await calls.submit(STOP)
    with pytest.raises(NotAuthorized):
        await calls.account()
    assert len(peer.received) == 2


async def test_a_bracket_is_looked_up_like_any_order(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("POST", ORDERS, TIMED_OUT)
    peer.on("GET", BY_CLIENT_ID, order_message(client_order_id="b-1"))
    entry = OrderRequest(symbol="AAPL", buys=True, order_type=OrderType.MARKET, qty=Decimal(3), client_order_id="b-1")
    status = await calls.submit_bracket(BracketOrderRequest(entry=entry, stop_loss_price=Decimal(299)))
    assert status.client_order_id == "b-1"
    assert peer.received[1].query == {"client_order_id": "b-1"}


# --- the other calls --------------------------------------------------------------------------------------------------


async def test_a_lost_replacement_is_found_under_its_own_id(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("PATCH", ONE_ORDER, TIMED_OUT)
    peer.on("GET", BY_CLIENT_ID, order_message(client_order_id="s-1-r1", replaces=ORDER_ID))
    status = await calls.replace(ORDER_ID, stop_price=Decimal("299.6"), client_order_id="s-1-r1")
    assert status.replaces == ORDER_ID
    assert sent(peer) == ["replace", "look up"]


async def test_a_refused_replacement_leaves_the_old_stop(peer: Peer, calls: BrokerCalls) -> None:
    words = "cannot replace order in accepted status"
    peer.on("PATCH", ONE_ORDER, Answer(status=422, body={"code": 42210000, "message": words}))
    with pytest.raises(OrderRefused, match="accepted status"):
        await calls.replace(ORDER_ID, stop_price=Decimal("299.6"), client_order_id="s-1-r1")
    assert sent(peer) == ["replace"]


@pytest.mark.parametrize(
    ("method", "path", "good", "call", "attempts"),
    [
        ("DELETE", ONE_ORDER, Answer(status=204, text=""), lambda calls: calls.cancel(ORDER_ID), 3),
        ("GET", "/v2/account", ACCOUNT, lambda calls: calls.account(), 2),
        ("GET", "/v2/positions", [], lambda calls: calls.positions(), 2),
        ("GET", ONE_ORDER, order_message(), lambda calls: calls.order(ORDER_ID), 2),
        ("GET", BY_CLIENT_ID, order_message(), lambda calls: calls.order_by_client_id("s-1"), 2),
        ("GET", ORDERS, [], lambda calls: calls.open_orders(), 2),
        ("GET", ORDERS, [], lambda calls: calls.recent_orders(since=datetime(2026, 8, 12, tzinfo=UTC)), 2),
        (
            "GET", "/v2/account/activities/FILL", [],
            lambda calls: calls.fills(since=datetime(2026, 8, 12, tzinfo=UTC)), 2,
        ),
        ("GET", "/v2/clock", {"timestamp": "2026-08-12T09:45:00-04:00"}, lambda calls: calls.clock(), 2),
        (
            "GET", "/v2/calendar", [],
            lambda calls: calls.calendar(start=date(2026, 8, 12), end=date(2026, 8, 13)), 2,
        ),
        ("GET", "/v2/assets/F", {"tradable": True, "status": "active"}, lambda calls: calls.is_tradable("F"), 2),
    ],
    ids=[
        "cancel", "account", "positions", "order", "order by client id", "open orders", "recent orders", "fills",
        "clock", "calendar", "asset",
    ],
)  # fmt: skip
async def test_calls_are_repeated_only_as_often_as_they_may(
    peer: Peer,
    calls: BrokerCalls,
    method: str,
    path: str,
    good: Any,
    call: Callable[[BrokerCalls], Awaitable[Any]],
    attempts: int,
) -> None:
    peer.on(method, path, *[DOWN] * (attempts - 1), good)
    await call(calls)
    assert len(peer.received) == attempts
    peer.on(method, path, DOWN)
    with pytest.raises(BrokerUnavailable):
        await call(calls)
    assert len(peer.received) == 2 * attempts
    peer.on(method, path, LIMITED, good)
    await call(calls)
    assert len(peer.received) == 2 * attempts + 2


async def test_positions_that_are_not_found_are_none(peer: Peer, calls: BrokerCalls) -> None:
    peer.on("GET", "/v2/positions", Answer(status=404, body={"code": 40410000, "message": "position does not exist"}))
    assert await calls.positions() == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=422, body={"code": 42210000, "message": 'order is already in "filled" state'}), OrderRefused),
        (Answer(status=404, body={"code": 40410000, "message": "order not found"}), NotFound),
    ],
)
async def test_a_cancellation_that_comes_too_late_says_so_at_once(
    peer: Peer, calls: BrokerCalls, answer: Answer, error: type[BrokerError]
) -> None:
    peer.on("DELETE", ONE_ORDER, answer)
    with pytest.raises(error):
        await calls.cancel(ORDER_ID)
    assert len(peer.received) == 1


async def test_a_call_that_waits_keeps_no_other_waiting(peer: Peer, calls: BrokerCalls) -> None:
    calls = BrokerCalls(calls.broker, waits=Waits(broker_seconds=0.5, jitter_seconds=0))
    peer.on("GET", "/v2/positions", DOWN, [])
    peer.on("GET", "/v2/account", ACCOUNT)
    waiting = asyncio.create_task(calls.positions())
    await asyncio.sleep(0.1)
    await asyncio.wait_for(calls.account(), 0.2)
    assert not waiting.done()
    assert await waiting == []


# --- market data ------------------------------------------------------------------------------------------------------

START, END = datetime(2026, 8, 12, 13, 30, tzinfo=UTC), datetime(2026, 8, 12, 20, tzinfo=UTC)
BAR = {"t": "2026-08-12T13:30:00Z", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}


async def test_history_is_asked_for_three_times(peer: Peer, data_calls: DataCalls) -> None:
    peer.on("GET", "/v2/stocks/bars", DOWN, DOWN, {"bars": {"F": [BAR]}, "next_page_token": None})
    assert len((await data_calls.bars(["F"], start=START, end=END))["F"]) == 1
    peer.on("GET", "/v2/stocks/bars", DOWN)
    with pytest.raises(BrokerUnavailable):
        await data_calls.bars(["F"], start=START, end=END)
    assert len(peer.received) == 6


async def test_history_of_the_whole_market_is_asked_for_in_requests_of_a_bearable_length(
    peer: Peer, data_calls: DataCalls
) -> None:
    peer.on("GET", "/v2/stocks/bars", {"bars": {}, "next_page_token": None})
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    symbols = [f"{first}{second}{third}" for first in "AB" for second in letters for third in letters][:1100]
    found = await data_calls.bars(symbols, start=START, end=END)
    assert sorted(found) == sorted(symbols)
    assert [len(request.query["symbols"].split(",")) for request in peer.received] == [500, 500, 100]


async def test_one_symbol_the_provider_refuses_does_not_cost_the_others_their_history(
    peer: Peer, data_calls: DataCalls
) -> None:
    async def answer(request: web.Request) -> Answer:
        symbols = request.query["symbols"].split(",")
        if "BAD" in symbols:
            return Answer(status=400, body={"message": "invalid symbol: BAD"})
        return Answer(body={"bars": {symbol: [BAR] for symbol in symbols}, "next_page_token": None})

    peer.on("GET", "/v2/stocks/bars", answer)
    bars = await data_calls.bars(["AAPL", "BAD", "F"], start=START, end=END, split_adjusted=True)
    assert {symbol: len(found) for symbol, found in bars.items()} == {"AAPL": 1, "F": 1}
    assert [request.query["symbols"] for request in peer.received] == ["AAPL,BAD,F", "AAPL", "BAD", "F"]
    assert {request.query["adjustment"] for request in peer.received} == {"split"}


async def test_a_quote_is_asked_for_again(peer: Peer, data_calls: DataCalls) -> None:
    snapshot = {"F": {"latestTrade": {"p": 12.5, "t": "2026-08-12T13:45:00Z"}}}
    peer.on("GET", "/v2/stocks/snapshots", DOWN, snapshot)
    assert (await data_calls.quote("F")).last == Decimal("12.5")


# --- the rate limiter -------------------------------------------------------------------------------------------------


async def counted(limiter: RateLimiter, kinds: str) -> dict[str, int]:
    """How many slots of each kind (p: protective, o: ordinary) are given at once."""
    given = {"p": 0, "o": 0}

    async def take(kind: str) -> None:
        await limiter.slot(protective=kind == "p")
        given[kind] += 1

    tasks = [asyncio.create_task(take(kind)) for kind in kinds]
    await asyncio.sleep(0.05)
    now = dict(given)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return now


async def test_the_reserve_is_for_protective_calls_alone() -> None:
    assert await counted(RateLimiter(9, reserved=3), "o" * 20 + "p" * 20) == {"o": 6, "p": 3}
    assert await counted(RateLimiter(9, reserved=3), "p" * 20 + "o" * 20) == {"o": 0, "p": 9}
    assert await counted(RateLimiter(9, reserved=3), "o" * 20) == {"o": 6, "p": 0}


async def test_by_default_a_third_of_180_a_minute_is_reserved() -> None:
    assert await counted(RateLimiter(), "o" * 200 + "p" * 200) == {"o": 120, "p": 60}


async def test_never_more_than_allowed_in_any_window() -> None:
    limiter = RateLimiter(5, reserved=1, window_seconds=0.2)
    moments: list[float] = []

    async def take(protective: bool) -> None:
        await limiter.slot(protective=protective)
        moments.append(time.monotonic())

    await asyncio.gather(*(take(protective=number % 4 == 0) for number in range(24)))
    assert len(moments) == 24
    for first, sixth in zip(moments, moments[5:], strict=False):
        assert sixth - first >= 0.19


async def test_everything_waits_while_the_broker_refuses() -> None:
    limiter = RateLimiter(5)
    limiter.close_for(0.2)
    started = time.monotonic()
    await asyncio.gather(limiter.slot(protective=True), limiter.slot(protective=False))
    assert time.monotonic() - started >= 0.19
