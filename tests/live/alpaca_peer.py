"""A server on loopback that answers Alpaca's protocols exactly as a test dictates, well or badly."""

import asyncio
import json
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import msgpack
from aiohttp import WSMsgType, web

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer: JSON, or any text when `text` is given."""

    status: int = 200
    body: Any = None
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One HTTP request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class Peer:
    """`on` says what to answer; `received` is what came; `stream` plays the server's side of each WebSocket.

    Several answers for one request are given in turn, the last one again and again. An answer may be a function of
    the request, which may hang, or cut the connection. With `tls` its REST side speaks HTTPS as "localhost".
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[Received] = []
        self.connections = 0
        self.answers_pings = True
        self.stream: Script | None = None
        self.upgrade_refusals: list[int] = []
        self._answers: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self._sockets: list[web.WebSocketResponse] = []

    def on(self, method: str, path: str, *answers: Any) -> None:
        """From now on `method path` gets these answers: an `Answer`, JSON for a 200, or a function."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Received]:
        return [request for request in self.received if (request.method, request.path) == (method, path)]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/stream", self._websocket)
        app.router.add_get("/v2/iex", self._websocket)
        app.router.add_route("*", "/{path:.*}", self._http)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"https://localhost:{port}" if self._tls else f"http://{host}:{port}"
        self.trading_stream_url = f"ws://{host}:{port}/stream"
        self.data_stream_url = f"ws://{host}:{port}/v2/iex"
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self._sockets:
            transport = socket.get_extra_info("transport")
            if transport is not None:
                transport.abort()
        await self._runner.cleanup()

    async def _http(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.received.append(
            Received(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                body=json.loads(text) if text else None,
                headers=dict(request.headers),
            )
        )
        answers = self._answers.get((request.method, request.path), [])
        if not answers:
            return web.json_response({"message": "the test expects no such request"}, status=400)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = await answer(request)
        if not isinstance(answer, Answer):
            answer = Answer(body=answer)
        text = answer.text if answer.text is not None else json.dumps(answer.body)
        return web.Response(status=answer.status, body=text.encode(), headers=answer.headers)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        if self.upgrade_refusals:
            return web.Response(status=self.upgrade_refusals.pop(0))
        socket = web.WebSocketResponse(autoping=self.answers_pings)
        await socket.prepare(request)
        self._sockets.append(socket)
        assert self.stream is not None
        await self.stream(socket)
        return socket


def named(answer: object) -> str:
    """What to call a test's case: an answer's values, or the name of what gives it."""
    return getattr(answer, "__name__", None) or str(answer)


async def hang(_request: web.Request) -> Answer:
    """Never answers (longer than any test waits)."""
    await asyncio.sleep(30)
    return Answer(status=204, text="")


async def reset(request: web.Request) -> Answer:
    """Cuts the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return Answer()


# --- the server's side of the two streams -----------------------------------------------------------------------------


async def authorize(socket: web.WebSocketResponse) -> None:
    """The handshake of the trade update stream, to the end."""
    login = await socket.receive_json()
    assert login["action"] == "authenticate"
    # Alpaca's paper host sends JSON in binary frames.
    await send_json(socket, {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}})
    listen = await socket.receive_json()
    assert listen == {"action": "listen", "data": {"streams": ["trade_updates"]}}
    await send_json(socket, {"stream": "listening", "data": {"streams": ["trade_updates"]}})


async def greet(socket: web.WebSocketResponse) -> list[str]:
    """The handshake of the bar stream, to the end; the symbols whose bars are wanted."""
    await log_in(socket)
    wish = await receive_msgpack(socket)
    assert wish["action"] == "subscribe"
    await confirm(socket, wish["bars"])
    assert sorted(wish["statuses"]) == sorted(wish["updatedBars"]) == sorted(wish["bars"])
    return sorted(wish["bars"])


async def log_in(socket: web.WebSocketResponse) -> None:
    """The handshake of the bar stream up to the login."""
    await send_msgpack(socket, {"T": "success", "msg": "connected"})
    login = await receive_msgpack(socket)
    assert login["action"] == "auth"
    await send_msgpack(socket, {"T": "success", "msg": "authenticated"})


async def confirm(socket: web.WebSocketResponse, symbols: list[str]) -> None:
    await send_msgpack(socket, {"T": "subscription", "bars": symbols, "statuses": symbols})


async def send_json(socket: web.WebSocketResponse, message: Any) -> None:
    await socket.send_bytes(json.dumps(message).encode())


async def send_msgpack(socket: web.WebSocketResponse, *messages: Any) -> None:
    await socket.send_bytes(msgpack.packb(list(messages), datetime=True))


async def receive_msgpack(socket: web.WebSocketResponse) -> Any:
    message = await socket.receive()
    assert message.type is WSMsgType.BINARY, message
    return msgpack.unpackb(message.data)


async def stay(socket: web.WebSocketResponse) -> None:
    """Keeps the connection until the client closes it."""
    async for _ in socket:
        pass


def bar_message(symbol: str, at: str, prices: str = "10 11 9 10.5", volume: int = 100) -> dict[str, Any]:
    """A minute bar as it is streamed: prices are doubles, the time is a MessagePack timestamp."""
    o, h, l, c = (float(price) for price in prices.split())  # noqa: E741
    return {
        "T": "b", "S": symbol, "o": o, "h": h, "l": l, "c": c, "v": volume, "n": 3, "vw": c,
        "t": datetime.fromisoformat(at),
    }  # fmt: skip


def order_message(**changes: Any) -> dict[str, Any]:
    """A complete resting limit order as Alpaca shows it."""
    return {
        "id": "11111111-0000-4000-8000-000000000001",
        "client_order_id": "bot7-e-1",
        "created_at": "2026-08-12T13:45:00.101222333Z",
        "updated_at": "2026-08-12T13:45:00.140111222Z",
        "submitted_at": "2026-08-12T13:45:00.101Z",
        "filled_at": None, "expired_at": None, "expires_at": "2026-08-12T20:00:00Z", "canceled_at": None,
        "failed_at": None, "replaced_at": None, "replaced_by": None, "replaces": None,
        "asset_id": "11111111-0000-4000-8000-000000000900",
        "symbol": "AAPL", "asset_class": "us_equity", "notional": None, "qty": "3", "filled_qty": "0",
        "filled_avg_price": None, "order_class": "", "order_type": "limit", "type": "limit", "side": "buy",
        "time_in_force": "day", "limit_price": "300", "stop_price": None, "status": "new", "extended_hours": False,
        "legs": None, "trail_percent": None, "trail_price": None, "hwm": None, "position_intent": "buy_to_open",
        "ratio_qty": None, "subtag": None, "source": None,
        **changes,
    }  # fmt: skip


ACCOUNT = {
    "id": "11111111-0000-4000-8000-0000000000aa", "account_number": "PA1", "status": "ACTIVE", "currency": "USD",
    "equity": "25000.10", "last_equity": "24000.5", "cash": "20000.01", "buying_power": "50000.2", "multiplier": "2",
    "trading_blocked": False, "account_blocked": False, "trade_suspended_by_user": False, "shorting_enabled": True,
}  # fmt: skip
