"""The one place every HTTP answer goes through: keys, rate limit, faults, and refusals in Alpaca's form."""

import asyncio
import math
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from trading.simulator.accountfile import AccountFileError
from trading.simulator.faults import Fault, Faults, Kind, On
from trading.simulator.orders import Json
from trading.simulator.streams import Keys
from trading.simulator.tickets import Refused

log = structlog.get_logger("market")

RATE_LIMITED = 42910000
INTERNAL = 50010000
WINDOW_SECONDS = 60
UNLIMITED = 1_000_000  # what the headers say when nothing limits
DATA = "/v2/stocks"
STREAMS = ("/stream", "/v2/iex", "/v2/sip")  # these ask for the keys themselves
OPEN_TO_ALL = ("/market/clock",)
OCCASIONS = {
    "POST /v2/orders": On.SUBMIT,
    "DELETE /v2/orders/ID": On.CANCEL,
    "PATCH /v2/orders/ID": On.REPLACE,
    "GET /v2/orders/ID": On.LOOK_UP,
    "GET /v2/orders:by_client_order_id": On.LOOK_UP,
    "GET /v2/orders": On.ORDERS,
    "GET /v2/positions": On.POSITIONS,
    "GET /v2/account": On.ACCOUNT,
    "GET /v2/account/activities/FILL": On.FILLS,
    "GET /v2/calendar": On.CALENDAR,
    "GET /v2/clock": On.CLOCK,
    "GET /v2/stocks/bars": On.BARS,
}
ORDER_PATH = re.compile(r"/v2/orders/[^/]+")
RESET_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: what closes the socket resets the connection


class Gate:
    """Lets requests with the right keys in.

    `requests_per_minute` of real time, None for as many as come; those for market data are counted apart.

    `unix_time` tells the time that the headers of the rate limit name.
    """

    def __init__(
        self, *, keys: Keys, requests_per_minute: int | None, faults: Faults, unix_time: Callable[[], float]
    ) -> None:
        self._unix_time = unix_time
        self._keys = keys
        self._limit = requests_per_minute
        self._faults = faults
        self._window = 0
        self._used: Counter[bool] = Counter()  # by whether it was for market data

    def limit(self, requests_per_minute: int | None) -> None:
        """From now on so many requests a minute are answered."""
        self._limit = requests_per_minute

    @property
    def every_reply(self) -> Middleware:
        """The middleware."""

        @web.middleware
        async def every_reply(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in (*STREAMS, *OPEN_TO_ALL):
                return await handler(request)
            is_data = request.path.startswith(DATA)
            self._count(is_data=is_data)
            occasion = OCCASIONS.get(f"{request.method} {ORDER_PATH.sub('/v2/orders/ID', request.path)}")
            fault = self._faults.strike(occasion) if occasion else None
            response = await (self._fail(fault, request, handler) if fault else self._reply(request, handler))
            # What a fault says of the rate limit stays.
            headers = self._headers(is_data=is_data)
            response.headers.update({k: v for k, v in headers.items() if k not in response.headers})
            return response

        return every_reply

    async def _fail(self, fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The answer to a request that a fault strikes; the request is carried out before, afterwards or not at all."""
        if fault.kind is Kind.LATENCY and not fault.done:
            await self._hold(fault.seconds)
            return await self._reply(request, handler)
        if fault.kind is Kind.RATE_LIMITED:
            response = _error(HTTPStatus.TOO_MANY_REQUESTS, {"code": RATE_LIMITED, "message": "too many requests"})
            response.headers["X-RateLimit-Remaining"] = "0"
            if fault.done:
                response.headers["Retry-After"] = f"{fault.seconds:g}"
            else:
                response.headers["X-RateLimit-Reset"] = str(int(self._unix_time() + fault.seconds))
            return response
        response_if_done = await self._reply(request, handler) if fault.done else None
        match fault.kind:
            case Kind.LATENCY if response_if_done is not None:
                await self._hold(fault.seconds)
                return response_if_done
            case Kind.ERROR:
                return _error(fault.status, {"code": INTERNAL, "message": "internal server error occurred"})
            case Kind.HANG:
                await self._hold(fault.seconds)
        if request.transport is not None:
            if fault.kind is Kind.RESET:
                peer = request.transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
            request.transport.abort()
        return web.Response()  # it goes nowhere

    async def _hold(self, seconds: float) -> None:
        self._faults.held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._faults.held -= 1

    async def _reply(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        keys = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
        if keys != self._keys:
            return web.json_response({"message": "unauthorized."}, status=HTTPStatus.UNAUTHORIZED)
        if self._limit is not None and self._used[request.path.startswith(DATA)] > self._limit:
            return _error(HTTPStatus.TOO_MANY_REQUESTS, {"code": RATE_LIMITED, "message": "rate limit exceeded"})
        try:
            return await handler(request)
        except Refused as refusal:
            code = {"code": refusal.code} if refusal.code else {}
            return _error(refusal.status, {**code, "message": refusal.message, **refusal.more})
        except AccountFileError as error:
            # It happened here and is not written down: for the sender the outcome is unknown.
            log.error("market.not_saved", reason=str(error))
            return _error(
                HTTPStatus.INTERNAL_SERVER_ERROR, {"code": INTERNAL, "message": "internal server error occurred"}
            )
        except web.HTTPClientError as error:  # no such path or method
            return _error(error.status, {"message": error.reason})

    def _count(self, *, is_data: bool) -> None:
        window = int(asyncio.get_running_loop().time()) // WINDOW_SECONDS
        if window != self._window:
            self._window = window
            self._used.clear()
        self._used[is_data] += 1

    def _headers(self, *, is_data: bool) -> dict[str, str]:
        limit = UNLIMITED if self._limit is None else self._limit
        left_seconds = (self._window + 1) * WINDOW_SECONDS - asyncio.get_running_loop().time()
        return {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(limit - self._used[is_data], 0)),
            "X-RateLimit-Reset": str(math.ceil(self._unix_time() + left_seconds)),
            "X-Request-ID": uuid4().hex,
        }


def _error(status: int, body: Json) -> web.Response:
    return web.json_response(body, status=status)
