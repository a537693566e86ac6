"""The adapter's requests and answers, through the real client over a real socket."""

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orders.lifecycle import OrderType, TimeInForce
from tests.live.alpaca_peer import ACCOUNT, Answer, Peer, hang, named, order_message, reset
from trading.broker import (
    BracketOrderRequest,
    BrokerError,
    BrokerOrderStatus,
    BrokerUnavailable,
    NotAuthorized,
    NotFound,
    OrderRefused,
    OrderRequest,
    RateLimited,
)
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing

ORDER_ID = "11111111-0000-4000-8000-000000000001"
BUY_STOP = OrderRequest(
    symbol="AAPL",
    buys=True,
    order_type=OrderType.STOP,
    qty=Decimal("3"),
    client_order_id="bot7-e-1",
    stop_price=Decimal("300.10"),
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
async def broker(peer: Peer) -> AsyncIterator[AlpacaBroker]:
    timing = Timing(read_seconds=0.3)
    broker = AlpacaBroker("key", "secret", trading_url=peer.url + "/", timing=timing)
    yield broker
    await broker.disconnect()


@pytest.fixture
async def data(peer: Peer) -> AsyncIterator[AlpacaData]:
    data = AlpacaData("key", "secret", feed="iex", data_url=peer.url, timing=Timing(read_seconds=0.3))
    yield data
    await data.disconnect()


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_buy_stop_is_sent_with_its_id_its_exact_prices_and_the_keys(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("POST", "/v2/orders", order_message(type="stop", stop_price="300.1", limit_price=None, status="accepted"))
    status = await broker.submit_order(BUY_STOP)
    (request,) = peer.received
    assert request.body == {
        "symbol": "AAPL", "qty": 3.0, "side": "buy", "type": "stop", "time_in_force": "day", "stop_price": 300.1,
        "client_order_id": "bot7-e-1",
    }  # fmt: skip
    assert request.headers["APCA-API-KEY-ID"] == "key"
    assert request.headers["APCA-API-SECRET-KEY"] == "secret"
    assert status.broker_order_id == ORDER_ID
    assert status.stop_price == Decimal("300.1")
    assert status.status is BrokerOrderStatus.ACCEPTED
    assert status.submitted_at == utc("2026-08-12 13:45:00.101")


@pytest.mark.parametrize(
    ("order_type", "prices", "sent"),
    [
        (OrderType.MARKET, {}, {"type": "market"}),
        (OrderType.LIMIT, {"limit_price": "0.3001"}, {"type": "limit", "limit_price": 0.3001}),
        (
            OrderType.STOP_LIMIT,
            {"stop_price": "99.99", "limit_price": "99.5"},
            {"type": "stop_limit", "stop_price": 99.99, "limit_price": 99.5},
        ),
    ],
)
async def test_every_type_of_order_carries_its_own_prices(
    peer: Peer, broker: AlpacaBroker, order_type: OrderType, prices: dict[str, str], sent: dict[str, Any]
) -> None:
    peer.on("POST", "/v2/orders", order_message())
    exact = {name: Decimal(text) for name, text in prices.items()}
    await broker.submit_order(
        OrderRequest(
            symbol="F",
            buys=False,
            order_type=order_type,
            qty=Decimal(7),
            client_order_id="x",
            time_in_force=TimeInForce.GTC,
            **exact,
        )
    )
    body = peer.received[0].body
    assert body == {
        "symbol": "F", "qty": 7.0, "side": "sell", "time_in_force": "gtc", "client_order_id": "x", **sent,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"stop_price": Decimal("0.1234567890123456789")}, "cannot be sent exactly"),
        ({"stop_price": None}, "stop_price"),
        ({"limit_price": Decimal("301")}, "limit_price"),
        ({"order_type": OrderType.TRAILING_STOP}, "not supported"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_before_it_is_sent(
    peer: Peer, broker: AlpacaBroker, order: dict[str, Any], reason: str
) -> None:
    fields = {name: getattr(BUY_STOP, name) for name in OrderRequest.__dataclass_fields__} | order
    with pytest.raises(OrderRefused, match=reason) as refusal:
        await broker.submit_order(OrderRequest(**fields))
    assert refusal.value.status == 0
    assert peer.received == []


async def test_a_bracket_has_both_exits_and_one_without_a_target_is_one_triggers_other(
    peer: Peer, broker: AlpacaBroker
) -> None:
    entry = OrderRequest(
        symbol="AAPL", buys=True, order_type=OrderType.MARKET, qty=Decimal(3), client_order_id="b-1",
        time_in_force=TimeInForce.GTC,
    )  # fmt: skip
    legs = [
        order_message(id="leg-1", client_order_id="auto-1", side="sell", status="held", limit_price="301"),
        order_message(id="leg-2", client_order_id="auto-2", side="sell", status="held", type="stop", stop_price="299"),
    ]
    peer.on("POST", "/v2/orders", order_message(order_class="bracket", legs=legs))
    status = await broker.submit_bracket_order(
        BracketOrderRequest(entry=entry, stop_loss_price=Decimal("299"), take_profit_price=Decimal("301"))
    )
    await broker.submit_bracket_order(BracketOrderRequest(entry=entry, stop_loss_price=Decimal("299")))
    with_target, without = (request.body for request in peer.received)
    assert with_target["order_class"] == "bracket"
    assert with_target["take_profit"] == {"limit_price": 301.0}
    assert with_target["stop_loss"] == {"stop_price": 299.0}
    assert without["order_class"] == "oto"
    assert "take_profit" not in without
    assert [(leg.client_order_id, leg.status, leg.broker_status) for leg in status.legs] == [
        ("auto-1", BrokerOrderStatus.PENDING, "held"),
        ("auto-2", BrokerOrderStatus.PENDING, "held"),
    ]


async def test_a_stop_is_moved_under_a_new_client_id(peer: Peer, broker: AlpacaBroker) -> None:
    new_id = "11111111-0000-4000-8000-000000000002"
    peer.on("PATCH", f"/v2/orders/{ORDER_ID}", order_message(id=new_id, client_order_id="s-1-r1", replaces=ORDER_ID))
    status = await broker.replace_order(ORDER_ID, stop_price=Decimal("299.55"), client_order_id="s-1-r1")
    await broker.replace_order(ORDER_ID, stop_price=Decimal("299.6"), client_order_id="s-1-r2", qty=Decimal("2"))
    assert (status.broker_order_id, status.replaces) == (new_id, ORDER_ID)
    assert [request.body for request in peer.received] == [
        {"stop_price": 299.55, "client_order_id": "s-1-r1"},
        {"stop_price": 299.6, "client_order_id": "s-1-r2", "qty": 2},
    ]
    with pytest.raises(OrderRefused, match="whole shares"):
        await broker.replace_order(ORDER_ID, stop_price=Decimal("1"), client_order_id="x", qty=Decimal("1.5"))


async def test_cancel_look_up_and_tradable(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("DELETE", f"/v2/orders/{ORDER_ID}", Answer(status=204, text=""))
    await broker.cancel_order(ORDER_ID)
    peer.on("GET", f"/v2/orders/{ORDER_ID}", order_message(status="canceled"))
    assert (await broker.get_order_status(ORDER_ID)).status is BrokerOrderStatus.CANCELED
    assert peer.received[-1].query == {"nested": "True"}
    peer.on("GET", "/v2/orders:by_client_order_id", order_message(status="filled", filled_qty="3"))
    assert (await broker.get_order_by_client_id("bot7-e-1")).filled_qty == 3
    assert peer.received[-1].query == {"client_order_id": "bot7-e-1"}
    peer.on("GET", "/v2/assets/AAPL", {"symbol": "AAPL", "status": "active", "tradable": True})
    peer.on("GET", "/v2/assets/BRK.B", {"symbol": "BRK.B", "status": "active", "tradable": False})
    peer.on("GET", "/v2/assets/OLD", {"symbol": "OLD", "status": "inactive", "tradable": True})
    peer.on("GET", "/v2/assets/NONE", Answer(status=404, body={"code": 40410000, "message": "asset not found"}))
    found = [await broker.is_tradable(symbol) for symbol in ("AAPL", "BRK.B", "OLD", "NONE")]
    assert found == [True, False, False, False]


async def test_account_positions_clock_and_calendar_in_our_words(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("GET", "/v2/account", ACCOUNT, {**ACCOUNT, "trading_blocked": True}, {**ACCOUNT, "status": "APPROVED"})
    account = await broker.get_account()
    assert (account.equity, account.last_equity, account.cash, account.buying_power) == (
        Decimal("25000.10"), Decimal("24000.5"), Decimal("20000.01"), Decimal("50000.2"),
    )  # fmt: skip
    assert not account.is_blocked
    assert account.shorting_enabled
    assert (await broker.get_account()).is_blocked
    assert (await broker.get_account()).is_blocked
    held = {"symbol": "AAPL", "qty": "3", "side": "long", "avg_entry_price": "299.9966666", "current_price": "301.5"}
    short = {"symbol": "F", "qty": "-2", "side": "short", "avg_entry_price": "12", "current_price": None}
    peer.on("GET", "/v2/positions", [held, short, {**short, "symbol": "G", "qty": "4"}])
    positions = await broker.get_positions()
    assert [(each.symbol, each.qty) for each in positions] == [
        ("AAPL", Decimal(3)),
        ("F", Decimal(-2)),
        ("G", Decimal(-4)),
    ]
    assert positions[0].avg_entry_price == Decimal("299.9966666")
    peer.on("GET", "/v2/clock", {"timestamp": "2026-08-12T09:45:00.123456789-04:00", "is_open": True})
    assert await broker.get_clock() == utc("2026-08-12 13:45:00.123456")
    peer.on("GET", "/v2/calendar", [{"date": "2025-11-28", "open": "09:30", "close": "13:00"}])
    (day,) = await broker.get_calendar(start=date(2025, 11, 28), end=date(2025, 11, 29))
    assert (day.date, day.open, day.close) == (date(2025, 11, 28), utc("2025-11-28 14:30"), utc("2025-11-28 18:00"))
    assert peer.received[-1].query == {"start": "2025-11-28", "end": "2025-11-29"}


# --- lists that come in pages -----------------------------------------------------------------------------------------


def order_book(count: int, *, same_time: int) -> list[dict[str, Any]]:
    """Orders one second apart, the `same_time` around the end of the first page at one single time."""
    start = utc("2026-08-12 13:30")
    first = 500 - same_time // 2
    orders = []
    for number in range(count):
        second = first if first <= number < first + same_time else number
        at = (start + timedelta(seconds=second)).isoformat().replace("+00:00", ".000000999Z")
        orders.append(order_message(id=f"order-{number}", submitted_at=at))
    return orders


def listing(orders: list[dict[str, Any]]) -> Any:
    """Alpaca's order list: no page token, `after` is exclusive and counts in nanoseconds."""

    async def answer(request: web.Request) -> list[dict[str, Any]]:
        after = datetime.fromisoformat(request.query["after"])
        later = [
            order
            for order in orders
            if datetime.fromisoformat(order["submitted_at"]) >= after  # cut-off nanoseconds make this "later"
        ]
        return later[: int(request.query["limit"])]

    return answer


async def test_orders_of_one_moment_are_not_lost_where_a_page_ends(peer: Peer, broker: AlpacaBroker) -> None:
    orders = order_book(1203, same_time=40)
    peer.on("GET", "/v2/orders", listing(orders))
    found = await broker.get_recent_orders(since=utc("2026-08-12 13:00"))
    assert [order.broker_order_id for order in found] == [order["id"] for order in orders]
    assert len(peer.received) == 3
    query = peer.received[0].query
    assert (query["status"], query["nested"].lower(), query["direction"], query["limit"]) == (
        "all",
        "true",
        "asc",
        "500",
    )


async def test_a_list_of_orders_that_cannot_be_read_to_its_end_is_an_error(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("GET", "/v2/orders", listing(order_book(1100, same_time=600)))
    with pytest.raises(BrokerUnavailable, match="does not end"):
        await broker.get_recent_orders(since=utc("2026-08-12 13:00"))


async def test_open_orders_are_asked_for_with_their_legs(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("GET", "/v2/orders", [order_message()])
    assert [order.symbol for order in await broker.get_open_orders()] == ["AAPL"]
    assert peer.received[0].query == {"status": "open", "nested": "True", "direction": "asc", "limit": "500"}


async def test_fills_are_paged_to_the_end(peer: Peer, broker: AlpacaBroker) -> None:
    def activity(number: int) -> dict[str, Any]:
        at = (utc("2026-08-12 13:30") + timedelta(seconds=number)).isoformat()
        return {
            "id": f"20260812133000000::exec-{number}", "activity_type": "FILL", "type": "partial_fill",
            "order_id": ORDER_ID, "symbol": "AAPL", "side": "sell", "qty": "1", "price": "300.01",
            "cum_qty": str(number + 1), "leaves_qty": str(149 - number), "order_status": "partially_filled",
            "transaction_time": at,
        }  # fmt: skip

    peer.on(
        "GET", "/v2/account/activities/FILL", [activity(n) for n in range(100)], [activity(n) for n in range(100, 150)]
    )
    fills = await broker.get_fills(since=utc("2026-08-12 13:30"))
    assert len(fills) == 150
    assert peer.received[1].query["page_token"] == "20260812133000000::exec-99"
    last = fills[-1]
    assert (last.execution_id, last.execution_qty, last.execution_price) == ("exec-149", Decimal(1), Decimal("300.01"))
    assert (last.order.broker_order_id, last.order.filled_qty, last.order.qty) == (ORDER_ID, Decimal(150), Decimal(150))
    assert not last.order.buys


# --- errors -----------------------------------------------------------------------------------------------------------

WASH_TRADE = {"code": 40310000, "message": "potential wash trade detected. use complex orders"}
HTML = "<html><body>Bad gateway</body></html>"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(status=401, body={"message": "unauthorized."}), NotAuthorized, "unauthorized"),
        (Answer(status=403, body={"message": "forbidden."}), NotAuthorized, "forbidden"),
        (Answer(status=403, text="Forbidden"), NotAuthorized, "Forbidden"),
        (Answer(status=403, body=WASH_TRADE), OrderRefused, "wash trade"),
        (Answer(status=404, body={"code": 40410000, "message": "order not found"}), NotFound, "order not found"),
        (Answer(status=409, body={"code": 40910000, "message": "duplicate"}), OrderRefused, "duplicate"),
        (Answer(status=422, body={"code": "42210000", "message": "sub-penny"}), OrderRefused, "sub-penny"),
        (Answer(status=422, body=["odd"]), OrderRefused, "odd"),
        (Answer(status=400, text=""), OrderRefused, "Bad Request"),
        (Answer(status=408, text=""), BrokerUnavailable, "408"),
        (Answer(status=500, body={"message": "internal"}), BrokerUnavailable, "internal"),
        (Answer(status=502, text=HTML), BrokerUnavailable, "Bad gateway"),
        (Answer(status=504, text=HTML), BrokerUnavailable, "504"),
        (Answer(status=302, text="", headers={"Location": "https://example.com"}), BrokerUnavailable, "302"),
        (Answer(text=HTML), BrokerUnavailable, "not JSON"),
        (Answer(text='{"id": NaN}'), BrokerUnavailable, "not JSON"),
        (Answer(text=""), BrokerUnavailable, "cannot be read"),
        (Answer(body=[]), BrokerUnavailable, "cannot be read"),
        (Answer(body={"id": "x"}), BrokerUnavailable, "cannot be read"),
        (Answer(body=order_message(qty="three")), BrokerUnavailable, "cannot be read"),
        (Answer(body=order_message(stop_price="Infinity")), BrokerUnavailable, "cannot be read"),
        (hang, BrokerUnavailable, "ReadTimeout"),
        (reset, BrokerUnavailable, "ProtocolError"),
    ],
    ids=named,
)
async def test_every_failure_says_what_comes_next_and_nothing_is_sent_twice(
    peer: Peer, broker: AlpacaBroker, answer: Any, error: type[BrokerError], words: str
) -> None:
    peer.on("POST", "/v2/orders", answer)
    with pytest.raises(error, match=words) as failure:
        await broker.submit_order(BUY_STOP)
    assert type(failure.value) is error
    assert len(peer.received) == 1
    assert "secret" not in str(failure.value)


async def test_a_refusal_keeps_the_brokers_number_and_its_kind(peer: Peer, broker: AlpacaBroker) -> None:
    taken = {"code": 40010001, "message": "client_order_id must be unique"}
    peer.on("POST", "/v2/orders", Answer(status=403, body=WASH_TRADE), Answer(status=422, body=taken))
    with pytest.raises(OrderRefused) as first:
        await broker.submit_order(BUY_STOP)
    assert (first.value.status, first.value.code) == (403, 40310000)
    assert first.value.is_wash_trade
    assert not first.value.is_duplicate_id
    with pytest.raises(OrderRefused) as second:
        await broker.submit_order(BUY_STOP)
    assert second.value.is_duplicate_id


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"X-RateLimit-Reset": "in 20 s"}, 20, 21.1),
        ({"X-RateLimit-Reset": "long ago"}, 0, 0),
        ({"Retry-After": "3600"}, 61, 61),
        ({"Retry-After": "Wed, 12 Aug 2026 13:45:00 GMT"}, 10, 10),
        ({}, 10, 10),
    ],
    ids=str,
)
async def test_a_rate_limit_says_how_long_to_wait(
    peer: Peer, broker: AlpacaBroker, headers: dict[str, str], least: float, most: float
) -> None:
    moments = {"in 20 s": str(int(time.time() + 20)), "long ago": "1000"}
    headers = {name: moments.get(value, value) for name, value in headers.items()}
    peer.on("GET", "/v2/account", Answer(status=429, text="too many requests", headers=headers))
    with pytest.raises(RateLimited) as limited:
        await broker.get_account()
    assert least <= limited.value.retry_after_seconds <= most
    assert len(peer.received) == 1


async def test_nobody_listening_is_no_answer() -> None:
    broker = AlpacaBroker("key", "secret", trading_url="http://127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match="ConnectionError"):
        await broker.get_account()
    await broker.disconnect()


async def test_whoever_shows_a_certificate_that_nobody_vouches_for_gets_neither_keys_nor_orders(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_self_signed(tmp_path / "localhost.pem"))
    async with Peer(tls=tls) as peer:
        peer.on("POST", "/v2/orders", order_message())
        broker = AlpacaBroker("key", "secret", trading_url=peer.url)
        with pytest.raises(BrokerUnavailable, match="SSLError"):
            await broker.submit_order(BUY_STOP)
        await broker.disconnect()
    assert peer.received == []


def _self_signed(path: Path) -> Path:
    """A key and a certificate of "localhost" in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    in_clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *in_clear))
    return path


async def test_a_hanging_request_keeps_neither_the_loop_nor_other_requests_waiting(
    peer: Peer, broker: AlpacaBroker
) -> None:
    peer.on("GET", "/v2/positions", hang)
    peer.on("GET", "/v2/account", ACCOUNT)
    hanging = [asyncio.create_task(broker.get_positions()) for _ in range(4)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await broker.get_account()
    assert time.monotonic() - started < 0.2
    assert not any(task.done() for task in hanging)
    for task in hanging:
        with pytest.raises(BrokerUnavailable):
            await task


async def test_a_connection_is_used_again_unless_it_was_idle_for_long(peer: Peer) -> None:
    lines: list[Any] = []

    async def answer(request: web.Request) -> dict[str, Any]:
        assert request.transport is not None
        lines.append(request.transport.get_extra_info("peername"))
        return {"bars": {}, "next_page_token": None}

    peer.on("GET", "/v2/stocks/bars", answer)
    for idle_seconds in (45.0, 0.05):
        data = AlpacaData("key", "secret", data_url=peer.url, timing=Timing(idle_seconds=idle_seconds))
        for _ in range(4):
            await data.connect()
            await asyncio.sleep(0.06)
        await data.disconnect()
    assert len(set(lines[:4])) <= 2  # as many as there are threads
    assert len(set(lines[4:])) == 4


async def test_unknown_words_of_the_broker_do_no_harm(peer: Peer, broker: AlpacaBroker) -> None:
    odd = [
        order_message(id="1", status="teleported", asset_class="moon_rock", order_class="mleg", symbol=None, side=None),
        order_message(id="2", status="pending_cancel", filled_qty="1", filled_avg_price="300.015", surprise={"a": 1}),
        order_message(id="3", status="filled", qty=None, notional="100", filled_qty="0.333", updated_at=None),
        order_message(id="4", qty=2, limit_price=300.1, submitted_at=None),
    ]
    peer.on("GET", "/v2/orders", odd)
    unknown, cancelling, dollars, numbers = await broker.get_open_orders()
    assert (unknown.status, unknown.broker_status, unknown.symbol) == (BrokerOrderStatus.PENDING, "teleported", "")
    assert (cancelling.status, cancelling.broker_status) == (BrokerOrderStatus.PENDING, "pending_cancel")
    assert (cancelling.filled_qty, cancelling.avg_fill_price) == (Decimal(1), Decimal("300.015"))
    assert (dollars.qty, dollars.updated_at) == (Decimal("0.333"), dollars.submitted_at)
    assert (numbers.qty, numbers.limit_price) == (Decimal(2), Decimal("300.1"))
    assert numbers.submitted_at == utc("2026-08-12 13:45:00.101222")


# --- start and end ----------------------------------------------------------------------------------------------------


async def test_connecting_checks_the_keys(peer: Peer, broker: AlpacaBroker, data: AlpacaData) -> None:
    refused = Answer(status=401, body={"message": "unauthorized."})
    peer.on("GET", "/v2/account", refused, ACCOUNT)
    with pytest.raises(NotAuthorized):
        await broker.connect()
    await broker.connect()
    peer.on("GET", "/v2/stocks/bars", refused, {"bars": {}, "next_page_token": None})
    with pytest.raises(NotAuthorized):
        await data.connect()
    await data.connect()


async def test_connecting_says_when_the_subscription_lacks_the_feed(peer: Peer) -> None:
    data = AlpacaData("key", "secret", feed="sip", data_url=peer.url)
    words = "subscription does not permit querying recent SIP data"
    peer.on("GET", "/v2/stocks/bars", Answer(status=403, body={"message": words}))
    with pytest.raises(OrderRefused, match="SIP"):
        await data.connect()
    assert peer.received[0].query["feed"] == "sip"
    await data.disconnect()


@pytest.mark.parametrize("keys", [("", "secret"), ("key", "")])
async def test_missing_keys_are_said_at_once(keys: tuple[str, str]) -> None:
    for adapter in (AlpacaBroker(*keys), AlpacaData(*keys)):
        with pytest.raises(NotAuthorized, match="both needed"):
            await adapter.connect()
        await adapter.disconnect()


async def test_paper_trading_never_runs_on_a_live_account(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy stands in for a host that is not this machine: the account it shows is a live one."""
    monkeypatch.setenv("HTTP_PROXY", peer.url)
    monkeypatch.setenv("http_proxy", peer.url)
    live = {**ACCOUNT, "account_number": "123456789"}
    peer.on("GET", "/v2/account", live, ACCOUNT)
    broker = AlpacaBroker("key", "secret", paper=True, trading_url="http://paper.example")
    with pytest.raises(NotAuthorized, match="paper"):
        await broker.connect()
    await broker.connect()
    await broker.disconnect()
    assert {request.headers["Host"] for request in peer.received} == {"paper.example"}


async def test_a_market_on_this_machine_needs_no_paper_number_and_no_proxy(
    peer: Peer, broker: AlpacaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    peer.on("GET", "/v2/account", {**ACCOUNT, "account_number": "SIM-1"})
    await broker.connect()
    assert [request.path for request in peer.received] == ["/v2/account"]


async def test_after_disconnecting_nothing_is_sent(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("GET", "/v2/account", ACCOUNT)
    await broker.disconnect()
    await broker.disconnect()
    with pytest.raises(BrokerUnavailable, match="closed"):
        await broker.get_account()
    assert peer.received == []


def test_importing_the_adapter_is_cheap() -> None:
    program = "import sys, trading.live.alpaca; sys.exit('alpaca' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- market data ------------------------------------------------------------------------------------------------------


async def test_history_of_all_symbols_comes_in_one_paged_request(peer: Peer, data: AlpacaData) -> None:
    # Numbers are written here as text: what arrives must be these digits, not the nearest double of them.
    first = '{"bars":{"AAPL":[{"t":"2026-08-12T13:30:00Z","o":300.10,"h":300.2,"l":0.1,"c":300.12345,"v":1250}]},'
    second = '{"bars":{"AAPL":[{"t":"2026-08-12T13:31:00Z","o":1,"h":2.5,"l":0.3001,"c":2,"v":7.0}],'
    third = '"F":[{"t":"2026-08-12T13:30:00Z","o":10,"h":10,"l":10,"c":10,"v":0}]},"next_page_token":null}'
    peer.on("GET", "/v2/stocks/bars", Answer(text=first + '"next_page_token":"tok1"}'), Answer(text=second + third))
    bars = await data.get_historical_bars(
        ["AAPL", "F", "GONE"], start=utc("2026-08-12 13:30"), end=utc("2026-08-12 20:00")
    )
    assert [(bar.timestamp, bar.close, bar.volume) for bar in bars["AAPL"]] == [
        (utc("2026-08-12 13:30"), Decimal("300.1234"), 1250),
        (utc("2026-08-12 13:31"), Decimal("2"), 7),
    ]
    assert str(bars["AAPL"][0].open) == "300.10"
    assert bars["AAPL"][0].low == Decimal("0.1")
    assert bars["AAPL"][1].low == Decimal("0.3001")
    assert len(bars["F"]) == 1
    assert bars["GONE"] == []
    one, two = (request.query for request in peer.received)
    assert one == {
        "symbols": "AAPL,F,GONE", "timeframe": "1Min", "feed": "iex", "adjustment": "raw", "limit": "10000",
        "sort": "asc", "start": "2026-08-12T13:30:00+00:00", "end": "2026-08-12T19:59:59.999999+00:00",
    }  # fmt: skip
    assert two == {**one, "page_token": "tok1"}


async def test_history_can_be_split_adjusted_and_of_nothing(peer: Peer, data: AlpacaData) -> None:
    peer.on("GET", "/v2/stocks/bars", {"bars": None, "next_page_token": None})
    start, end = utc("2026-08-12 13:30"), utc("2026-08-12 20:00")
    assert await data.get_historical_bars(["AAPL"], start=start, end=end, split_adjusted=True) == {"AAPL": []}
    assert peer.received[0].query["adjustment"] == "split"
    assert await data.get_historical_bars([], start=start, end=end) == {}
    assert await data.get_historical_bars(["AAPL"], start=end, end=end) == {"AAPL": []}
    assert len(peer.received) == 1


async def test_pages_of_history_wait_when_the_rate_budget_is_used_up(peer: Peer, data: AlpacaData) -> None:
    used_up = {"X-RateLimit-Remaining": "0", "Retry-After": "0.3"}
    more = Answer(body={"bars": {}, "next_page_token": "tok"}, headers=used_up)
    peer.on("GET", "/v2/stocks/bars", more, {"bars": {}, "next_page_token": None})
    started = time.monotonic()
    await data.get_historical_bars(["AAPL"], start=utc("2026-08-12 13:30"), end=utc("2026-08-12 20:00"))
    assert time.monotonic() - started >= 0.3


async def test_the_latest_quote(peer: Peer, data: AlpacaData) -> None:
    snapshot = {
        "latestTrade": {"p": 300.15, "t": "2026-08-12T13:45:00.5Z"},
        "latestQuote": {"bp": 300.1, "ap": 0, "t": "2026-08-12T13:45:01Z"},
        "dailyBar": {"v": 123456},
    }
    peer.on("GET", "/v2/stocks/snapshots", {"AAPL": snapshot}, {"AAPL": None}, {})
    quote = await data.get_latest_quote("AAPL")
    assert (quote.bid, quote.ask, quote.last, quote.volume) == (
        Decimal("300.1"), Decimal(0), Decimal("300.15"), 123456,
    )  # fmt: skip
    assert quote.timestamp == utc("2026-08-12 13:45:01")
    for _ in range(2):
        with pytest.raises(NotFound):
            await data.get_latest_quote("AAPL")


async def test_disconnecting_during_a_request_does_not_wait_for_it(peer: Peer, broker: AlpacaBroker) -> None:
    peer.on("GET", "/v2/account", hang)
    request = asyncio.create_task(broker.get_account())
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await broker.disconnect()
    assert time.monotonic() - started < 0.1
    with suppress(BrokerUnavailable):
        await request
