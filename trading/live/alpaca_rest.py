"""alpaca-py's REST clients with our transport: timeouts, no hidden retry, exact numbers, and errors by what comes next.

Importing this module imports alpaca-py and with it pandas (a second and 100 MB): import it where it is used.
"""

import json
import time
from decimal import Decimal
from http import HTTPStatus
from typing import Any, NoReturn, cast
from urllib.parse import urlencode, urlsplit

import alpaca
import requests
import urllib3
from alpaca.common.rest import RESTClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter

from risk.config import is_loopback
from trading.broker import BrokerError, BrokerUnavailable, NotAuthorized, NotFound, OrderRefused, RateLimited
from trading.live.alpaca_workers import Timing

ALPACA_VERSION = "0.44.0"
if alpaca.__version__ != ALPACA_VERSION:
    # `_one_request` here and the stream's private steps in alpaca_streams are not part of alpaca-py's promise.
    raise ImportError(f"alpaca-py {ALPACA_VERSION} is needed, {alpaca.__version__} is installed")

DEFAULT_RATE_LIMIT_WAIT_SECONDS = 10.0
LONGEST_RATE_LIMIT_WAIT_SECONDS = 61.0
LONGEST_MESSAGE = 300
COMPRESSED = urllib3.util.make_headers(accept_encoding="gzip,deflate")


class _Connection(HTTPAdapter):
    """What `requests` would use for one server, with the environment's proxy and certificates, but without `requests`.

    Cookies, hooks and redirects, which the broker has none of, take it as long as all the rest of a request; when
    several orders leave at once, everything else in this process waits for that.
    """

    def __init__(self, session: requests.Session, url: str) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        around = session.merge_environment_settings(url, {}, None, None, None)
        request = requests.Request("GET", url).prepare()
        pool = self.get_connection_with_tls_context(
            request, around["verify"], proxies=around["proxies"], cert=around["cert"]
        )
        self._pool = cast("urllib3.HTTPConnectionPool", pool)
        has_plain_proxy = self.request_url(request, around["proxies"]) == request.url
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(url)) if has_plain_proxy else ""

    def carry(self, method: str, url: str, opts: dict[str, Any], timing: Timing) -> urllib3.BaseHTTPResponse:
        """One request, described as alpaca-py does for `requests`, and all of its answer. Raises HTTPError."""
        params = {name: value for name, value in (opts.get("params") or {}).items() if value is not None}
        return self._pool.request(
            method,
            self._origin + urlsplit(url).path + (f"?{urlencode(params)}" if params else ""),
            json=opts.get("json"),
            headers=COMPRESSED | opts["headers"],
            timeout=urllib3.Timeout(connect=timing.connect_seconds, read=timing.read_seconds),
            retries=False,
            redirect=False,
            assert_same_host=False,  # the host is checked where the connection is made; a proxy has another name
        )


class _Transport(RESTClient):
    """The one place where a request leaves and its answer is judged.

    It stands in for alpaca-py's own, which has no timeout, re-sends orders after 429 and 504, reads numbers as floats
    and has errors that fail when the body is not JSON.
    """

    timing: Timing
    pause_seconds = 0.0  # how long the broker's headers tell us to wait before the next request
    _last_used = 0.0
    _connection: _Connection | None = None

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        if self._connection is not None and time.monotonic() - self._last_used > self.timing.idle_seconds:
            self._connection.close()  # the other side may have dropped the line in silence; a new one is made
            self._connection = None
        try:
            if self._connection is None:
                self._connection = _Connection(self._session, url)
            response = self._connection.carry(method, url, opts, self.timing)
        except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
            raise BrokerUnavailable(f"{method} {urlsplit(url).path}: {type(error).__name__}") from error
        self._last_used = time.monotonic()
        now = self.timing.unix_time()
        self.pause_seconds = _wait(response, now) if response.headers.get("X-RateLimit-Remaining") == "0" else 0.0
        if response.status // 100 != 2:
            raise error_of(response, now=now)
        return _exact_json(response)


class TradingRest(_Transport, TradingClient):
    """Orders, positions and the account."""

    def __init__(self, api_key: str, secret_key: str, *, paper: bool, url: str, timing: Timing) -> None:
        super().__init__(api_key, secret_key, paper=paper, raw_data=True, url_override=url.rstrip("/") or None)
        self.timing = timing
        _bypass_proxy(self)


class DataRest(_Transport, StockHistoricalDataClient):
    """Historical and latest market data."""

    def __init__(self, api_key: str, secret_key: str, *, url: str, timing: Timing) -> None:
        super().__init__(api_key, secret_key, raw_data=True, url_override=url.rstrip("/") or None)
        self.timing = timing
        _bypass_proxy(self)


def error_of(response: urllib3.BaseHTTPResponse, *, now: float) -> BrokerError:
    """What an answer other than 2xx means for the caller; `now` is unix time.

    A 403 with a number (40310000 ...) is the refusal of one order; without one it is about keys or account.
    """
    status = response.status
    code, message = _words(response)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(message, retry_after_seconds=_wait(response, now))
    if status == HTTPStatus.UNAUTHORIZED or (
        status == HTTPStatus.FORBIDDEN and not code and "subscription" not in message
    ):
        return NotAuthorized(message)
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(message)
    if status == HTTPStatus.REQUEST_TIMEOUT or not 400 <= status < 500:
        return BrokerUnavailable(f"HTTP {status}: {message}")
    return OrderRefused(message, status=status, code=code)


def _words(response: urllib3.BaseHTTPResponse) -> tuple[int, str]:
    """The broker's number (0 if none) and message, whatever the body is."""
    try:
        body = json.loads(response.data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = " ".join(response.data[:LONGEST_MESSAGE].decode("utf-8", "replace").split())
        return 0, text or response.reason or "empty answer"
    try:
        code = int(body.get("code") or 0)
    except (TypeError, ValueError):
        code = 0
    return code, str(body.get("message") or body)[:LONGEST_MESSAGE]


def _wait(response: urllib3.BaseHTTPResponse, now: float) -> float:
    """Seconds until the broker takes requests again: `Retry-After`, else `X-RateLimit-Reset` (unix time) + 1 s."""
    try:
        if "Retry-After" in response.headers:
            seconds = float(response.headers["Retry-After"])
        else:
            seconds = float(response.headers["X-RateLimit-Reset"]) + 1 - now
    except (KeyError, ValueError):
        seconds = DEFAULT_RATE_LIMIT_WAIT_SECONDS
    return min(max(seconds, 0.0), LONGEST_RATE_LIMIT_WAIT_SECONDS)


def _exact_json(response: urllib3.BaseHTTPResponse) -> Any:
    """The body with its numbers exactly as written, None if it is empty."""
    if not response.data:
        return None
    try:
        return json.loads(response.data, parse_float=Decimal, parse_constant=_no_number)
    except ValueError as error:
        raise BrokerUnavailable(f"HTTP {response.status} with a body that is not JSON") from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _bypass_proxy(client: RESTClient) -> None:
    if is_loopback(urlsplit(client._base_url).hostname or ""):
        client._session.trust_env = False  # a proxy from the environment cannot reach this machine's own market
