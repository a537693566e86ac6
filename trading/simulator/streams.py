"""The two WebSockets: trade updates as JSON in binary frames, market data as JSON or MessagePack, as asked for."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgpack
import structlog
from aiohttp import WSMessage, WSMsgType, web

from trading.live.barfiles import SYMBOL
from trading.market import Bar
from trading.simulator.book import Update
from trading.simulator.faults import Fault, Faults, Kind, On
from trading.simulator.lockstep import Lockstep
from trading.simulator.orders import Json, number_text, utc_text

log = structlog.get_logger("market")

BAR, UPDATE = "bar", "update"  # the kinds of frames an engine works off

AUTHENTICATION_SECONDS = 10.0
PING_SECONDS = 20.0
UPDATED_BAR_SECONDS = 30.0  # after the bar itself
LATE_SHARES = 100
SEND_SECONDS = 5.0  # a client that takes no more data for that long is cut off
BARS_A_FRAME = 500  # at most: the provider sends many messages in one frame, and does not say how many
CHANNELS = (
    "trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors",
)  # fmt: skip
REFUSALS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    406: "connection limit exceeded",
    410: "invalid subscribe action for this feed",
}

Keys = tuple[str, str]


class Connection:
    """One client. `is_welcome` once it has shown the right keys."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, *, packs: bool, binary: bool) -> None:
        self.is_welcome = False
        self.channels: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        self._socket = socket
        self._request = request
        self._packs = packs
        self._binary = binary
        self._mute_until = 0.0
        self._is_half_open = False

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return not self._socket.closed

    async def send(self, message: Any) -> None:
        """Every frame to a client goes out here."""
        if self._is_mute:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if self._packs:
                    await self._socket.send_bytes(msgpack.packb(message, datetime=True))
                elif self._binary:
                    await self._socket.send_bytes(_json_text(message).encode())
                else:
                    await self._socket.send_str(_json_text(message))
        except TimeoutError:
            log.warning("market.slow_client", seconds=SEND_SECONDS)
            await self.close()
        except ConnectionError:
            log.info("market.client_gone")

    async def close(self) -> None:
        """Ends the connection; a client that does not answer is dropped."""
        await self._socket.close()

    async def receive(self, timeout_seconds: float | None = None) -> WSMessage:
        """What the client says next; pings are answered. Raises TimeoutError."""
        while True:
            frame = await self._socket.receive(timeout_seconds)
            if frame.type is WSMsgType.PING:
                if not (self._is_mute and self._is_half_open):
                    await self._socket.pong(frame.data)
            elif frame.type is not WSMsgType.PONG:
                return frame

    @property
    def _is_mute(self) -> bool:
        return asyncio.get_running_loop().time() < self._mute_until

    def mute(self, seconds: float, *, half_open: bool) -> None:
        """Nothing goes out for so long; over a half-open connection no answers to pings either."""
        self._mute_until = asyncio.get_running_loop().time() + seconds
        self._is_half_open = half_open

    def cut(self) -> None:
        """The connection is gone, without a word."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def read(self, frame: WSMessage) -> Any:
        """The message in a frame, None if it is none."""
        try:
            if frame.type is WSMsgType.BINARY and self._packs:
                return msgpack.unpackb(frame.data)
            return json.loads(frame.data)
        except (ValueError, msgpack.UnpackException):
            return None

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether the client has subscribed to the symbol, or to all."""
        return bool(self.channels[channel] & {symbol, "*"})


class _Stream(ABC):
    """What both streams share: who may connect, and one connection at a time."""

    kind: str
    occasion: On
    always_binary: bool

    def __init__(
        self,
        *,
        keys: Keys,
        lockstep: Lockstep | None,
        faults: Faults,
        authentication_seconds: float = AUTHENTICATION_SECONDS,
    ) -> None:
        self._keys = keys
        self._lockstep = lockstep
        self._faults = faults
        self._authentication_seconds = authentication_seconds
        self._connections: set[Connection] = set()
        self._slot_taken_until = 0.0
        self._held_back: list[Any] = []
        self._later: set[asyncio.Task[None]] = set()

    @property
    def client(self) -> Connection | None:
        """The one client that is logged in."""
        return next((each for each in self._connections if each.is_welcome and each.is_open), None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serves one client until it leaves."""
        if self._is_full():
            message = {"message": "too many requests"}
            return web.json_response(message, status=HTTPStatus.TOO_MANY_REQUESTS)
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=0, compress=False, autoping=False)
        await socket.prepare(request)
        packs = "msgpack" in request.headers.get("Content-Type", "")
        connection = Connection(socket, request, packs=packs, binary=self.always_binary)
        self._connections.add(connection)
        try:
            await self._greet(connection)
            if await self._first_frame(connection):
                while (frame := await connection.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self._answer(connection, connection.read(frame))
        finally:
            self._connections.discard(connection)
            if connection.is_welcome and self._lockstep is not None:
                self._lockstep.connection_lost(self.kind)
        return socket

    async def close(self) -> None:
        """Sends all clients away."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*(connection.close() for connection in set(self._connections)))

    async def _deliver(self, connection: Connection, message: Any, fault: Fault | None) -> None:
        """Sends what the engine works off, or what the fault makes of it."""
        held_back, self._held_back = self._held_back, []
        if fault is None:
            await self._send(connection, message)
        else:
            await self._fail(fault, connection, message)
        for each in held_back:
            await self._send(connection, each)

    async def _send(self, connection: Connection, message: Any) -> None:
        if self._lockstep is not None:
            self._lockstep.frame_sent(self.kind)
        await connection.send(message)

    async def _fail(self, fault: Fault, connection: Connection, message: Any) -> None:
        match fault.kind:
            case Kind.DUPLICATE:
                await self._send(connection, message)
                await self._send(connection, message)
            case Kind.REORDER:
                self._held_back.append(message)
                self._do_later(fault.seconds, self._release, message)
            case Kind.LATE:
                self._do_later(fault.seconds, self._send_to_client, message)
            case Kind.UPDATED:
                await self._send(connection, message)
                self._do_later(UPDATED_BAR_SECONDS, self._send_updated, message)
            case Kind.DROP:
                self._slot_taken_until = asyncio.get_running_loop().time() + fault.seconds
                connection.cut()
            case Kind.MUTE | Kind.HALF_OPEN:
                connection.mute(fault.seconds, half_open=fault.kind is Kind.HALF_OPEN)
            case Kind.MISSING:
                pass

    def _do_later(self, seconds: float, work: Callable[[Any], Coroutine[Any, Any, None]], message: Any) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work(message)

        task = asyncio.create_task(wait())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _release(self, message: Any) -> None:
        """No other frame came that this one could have followed."""
        if message in self._held_back:
            self._held_back.remove(message)
            await self._send_to_client(message)

    async def _send_to_client(self, message: Any) -> None:
        if (client := self.client) is not None:
            await self._send(client, message)

    @abstractmethod
    async def _send_updated(self, message: Any) -> None: ...

    @property
    def _slot_is_taken(self) -> bool:
        """By a client, or by one that is gone and has not been missed yet."""
        return self.client is not None or asyncio.get_running_loop().time() < self._slot_taken_until

    async def _first_frame(self, connection: Connection) -> bool:
        """Whether the client says something in time."""
        try:
            frame = await connection.receive(self._authentication_seconds)
        except TimeoutError:
            await self._refuse_late(connection)
            return False
        if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return False
        await self._answer(connection, connection.read(frame))
        return connection.is_open

    def _is_full(self) -> bool:
        return False

    async def _greet(self, connection: Connection) -> None:
        return

    @abstractmethod
    async def _refuse_late(self, connection: Connection) -> None: ...

    @abstractmethod
    async def _answer(self, connection: Connection, message: Any) -> None: ...


class TradeUpdates(_Stream):
    """`/stream`: the client speaks first; a second connection of the account gets HTTP 429."""

    kind = UPDATE
    occasion = On.UPDATE
    always_binary = True

    async def send(self, update: Update) -> None:
        """Sends one update to the client, if there is one that listens. There is no replay for those who come late."""
        client = self.client
        if client is not None and client.wants("trades", "*"):
            message = {"stream": "trade_updates", "data": _update_json(update)}
            await self._deliver(client, message, self._faults.strike(self.occasion))

    @property
    def is_listening(self) -> bool:
        """Whether somebody would answer an update."""
        return self.client is not None and self.client.wants("trades", "*")

    def _is_full(self) -> bool:
        return self._slot_is_taken

    async def _send_updated(self, message: Any) -> None:
        return  # only bars are corrected

    async def _refuse_late(self, connection: Connection) -> None:
        await self._authorization(connection, "authenticate", welcome=False)

    async def _answer(self, connection: Connection, message: Any) -> None:
        message = message if isinstance(message, dict) else {}
        action, data = message.get("action"), message.get("data")
        data = data if isinstance(data, dict) else {}
        if action in ("authenticate", "auth"):
            given = data or message
            keys = given.get("key_id") or given.get("key"), given.get("secret_key") or given.get("secret")
            await self._authorization(connection, action, welcome=keys == self._keys and not self._is_full())
        elif not connection.is_welcome:
            await self._authorization(connection, str(action), welcome=False)
        elif action == "listen":
            streams = [name for name in data.get("streams") or () if name == "trade_updates"]
            connection.channels["trades"] = {"*"} if streams else set()
            await connection.send({"stream": "listening", "data": {"streams": streams}})
        else:
            await connection.send({"action": "error", "data": {"error_message": "invalid message"}})

    async def _authorization(self, connection: Connection, action: str, *, welcome: bool) -> None:
        connection.is_welcome = welcome
        status = "authorized" if welcome else "unauthorized"
        await connection.send({"stream": "authorization", "data": {"status": status, "action": action}})
        if not welcome:
            await connection.close()


class MarketData(_Stream):
    """`/v2/iex` and `/v2/sip`: the server greets, then login and subscriptions; every message is an array."""

    kind = BAR
    occasion = On.BAR
    always_binary = False

    def __init__(self, *, on_symbols: Callable[[Iterable[str]], None], **options: Any) -> None:
        super().__init__(**options)
        self._on_symbols = on_symbols
        self._together: list[Json] = []  # bars that wait for their frame, for `_together_for`
        self._together_for: Connection | None = None

    async def send_bar(self, bar: Bar) -> None:
        """Sends a minute bar to the client, if it has subscribed to the symbol: with others, by `flush` at the latest.

        An engine in lockstep works off one bar at a time, and what a fault strikes travels alone.
        """
        client = self.client
        if client is None or not client.wants("bars", bar.symbol):
            return
        message = {"T": "b", "S": bar.symbol, **bar_json(bar)}
        fault = self._faults.strike(self.occasion)
        if fault is not None or self._held_back or self._lockstep is not None:
            await self.flush()
            await self._deliver(client, [message], fault)
            return
        if client is not self._together_for:
            self._together, self._together_for = [], client
        self._together.append(message)
        if len(self._together) == BARS_A_FRAME:
            await self.flush()

    async def flush(self) -> None:
        """The bars that wait go out."""
        if self._together and self._together_for is not None:
            together, self._together = self._together, []
            await self._send(self._together_for, together)

    async def send_status(self, symbol: str, *, halted: bool, reason: str, at: datetime) -> None:
        """Tells of a halt or a resumption, in the codes of tape C."""
        client = self.client
        if client is not None and client.wants("statuses", symbol):
            code, words = ("H", "Trading Halt") if halted else ("T", "Trading Resumption")
            status = {"T": "s", "S": symbol, "sc": code, "sm": words, "rc": "", "rm": reason, "t": at, "z": "C"}
            await client.send([status])

    async def _send_updated(self, message: Any) -> None:
        """The bar again, with the shares of trades that were reported late."""
        (bar,) = message
        client = self.client
        if client is not None and client.wants("updatedBars", bar["S"]):
            await client.send([{**bar, "T": "u", "v": bar["v"] + LATE_SHARES, "n": bar["n"] + 1}])

    async def _greet(self, connection: Connection) -> None:
        await connection.send([{"T": "success", "msg": "connected"}])

    async def _refuse_late(self, connection: Connection) -> None:
        await self._refuse(connection, 404, last=True)

    async def _answer(self, connection: Connection, message: Any) -> None:
        if not isinstance(message, dict):
            await self._refuse(connection, 400)
            return
        match message.get("action"):
            case "auth":
                await self._log_in(connection, (message.get("key"), message.get("secret")))
            case "subscribe" | "unsubscribe" if not connection.is_welcome:
                await self._refuse(connection, 401)
            case "subscribe" | "unsubscribe":
                await self._subscribe(connection, message)
            case _:
                await self._refuse(connection, 400)

    async def _log_in(self, connection: Connection, keys: tuple[Any, Any]) -> None:
        if connection.is_welcome:
            await self._refuse(connection, 403)
        elif keys != self._keys:
            await self._refuse(connection, 402, last=True)
        elif self._slot_is_taken:
            await self._refuse(connection, 406, last=True)
        else:
            connection.is_welcome = True
            await connection.send([{"T": "success", "msg": "authenticated"}])

    async def _subscribe(self, connection: Connection, message: Json) -> None:
        asked = {name: value for name, value in message.items() if name != "action"}
        if any(name not in CHANNELS for name in asked):
            await self._refuse(connection, 410)
            return
        if not all(isinstance(symbols, list) and all(map(_is_symbol, symbols)) for symbols in asked.values()):
            await self._refuse(connection, 400)
            return
        for channel, symbols in asked.items():
            if message["action"] == "subscribe":
                connection.channels[channel] |= set(symbols)
                self._on_symbols(symbol for symbol in symbols if symbol != "*")
            else:
                connection.channels[channel] -= set(symbols)
        held = connection.channels
        held["corrections"] = held["cancelErrors"] = held["trades"]
        await connection.send([{"T": "subscription", **{name: sorted(symbols) for name, symbols in held.items()}}])

    async def _refuse(self, connection: Connection, code: int, *, last: bool = False) -> None:
        await connection.send([{"T": "error", "code": code, "msg": REFUSALS[code]}])
        if last:
            await connection.close()


def bar_json(bar: Bar) -> Json:
    """A bar's fields as the data API writes them. Trade count and average price are guessed: our bars know neither."""
    average = (bar.high + bar.low + bar.close) / 3
    return {
        "o": float(bar.open),
        "h": float(bar.high),
        "l": float(bar.low),
        "c": float(bar.close),
        "v": bar.volume,
        "n": -(-bar.volume // 100),
        "vw": round(float(average), 4),
        "t": bar.timestamp,
    }


def _update_json(update: Update) -> Json:
    data: Json = {"event": update.event, "timestamp": utc_text(update.at), "order": update.order}
    if update.fill is not None:
        data |= {
            "execution_id": update.fill.id,
            "price": number_text(update.fill.price),
            "qty": number_text(update.fill.qty),
            "position_qty": number_text(update.fill.position_qty),
        }
    return data


def _is_symbol(text: Any) -> bool:
    return isinstance(text, str) and (text == "*" or SYMBOL.fullmatch(text) is not None)


def _json_text(message: Any) -> str:
    return json.dumps(message, default=utc_text)
