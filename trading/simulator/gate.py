"""The one place every HTTP answer goes through: keys, rate limit, and refusals in Alpaca's form."""

import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from trading.simulator.accountfile import AccountFileError
from trading.simulator.orders import Json
from trading.simulator.streams import Keys
from trading.simulator.tickets import Refused

log = structlog.get_logger("market")

RATE_LIMITED = 42910000
INTERNAL = 50010000
WINDOW_SECONDS = 60
UNLIMITED = 1_000_000  # what the headers say when nothing limits
STREAMS = ("/stream", "/v2/iex", "/v2/sip")  # these ask for the keys themselves
OPEN_TO_ALL = ("/market/clock",)


class Gate:
    """Lets requests with the right keys in. `requests_per_minute` of real time, None for as many as come."""

    def __init__(self, *, keys: Keys, requests_per_minute: int | None) -> None:
        self._keys = keys
        self._limit = requests_per_minute
        self._window = 0
        self._used = 0

    @property
    def every_reply(self) -> Middleware:
        """The middleware."""

        @web.middleware
        async def every_reply(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in STREAMS:
                return await handler(request)
            self._count()
            response = await self._reply(request, handler)
            response.headers.update(self._headers())
            return response

        return every_reply

    async def _reply(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        keys = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
        if keys != self._keys and request.path not in OPEN_TO_ALL:
            return web.json_response({"message": "unauthorized."}, status=HTTPStatus.UNAUTHORIZED)
        if self._limit is not None and self._used > self._limit:
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

    def _count(self) -> None:
        window = int(time.time()) // WINDOW_SECONDS
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1

    def _headers(self) -> dict[str, str]:
        limit = UNLIMITED if self._limit is None else self._limit
        return {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(limit - self._used, 0)),
            "X-RateLimit-Reset": str((self._window + 1) * WINDOW_SECONDS),
            "X-Request-ID": uuid4().hex,
        }


def _error(status: int, body: Json) -> web.Response:
    return web.json_response(body, status=status)
