"""The market data API under `/v2/stocks`: bars of the past, and the latest bars, quotes, trades and snapshots."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, Any

from aiohttp import web

from trading.market import CENT, ONE_DOLLAR, SUB_DOLLAR_TICK, Bar
from trading.simulator.history import midnight, whole
from trading.simulator.orders import NEW_YORK, Json, utc_text
from trading.simulator.queries import moment_of, words
from trading.simulator.streams import bar_json
from trading.simulator.tickets import Refused

if TYPE_CHECKING:
    from trading.simulator.market import Market

MOST_BARS = 10_000
USUAL_BARS = 1_000
TIMEFRAME = re.compile(r"([1-9]\d?)(Min|T|Hour|H|Day|D)")
LOT = 100
TAPE = "C"


class DataApi:
    """Alpaca's stock data endpoints on one market. Whatever feed is asked for, the bars are the same."""

    def __init__(self, market: "Market") -> None:
        self._market = market

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        return [
            web.get("/v2/stocks/bars", self.bars),
            web.get("/v2/stocks/bars/latest", self.latest_bars),
            web.get("/v2/stocks/quotes/latest", self.latest_quotes),
            web.get("/v2/stocks/trades/latest", self.latest_trades),
            web.get("/v2/stocks/snapshots", self.snapshots),
        ]

    async def bars(self, request: web.Request) -> web.Response:
        """Bars of several symbols, by symbol and then by time; a page holds `limit` bars over all symbols."""
        query = request.query
        now = self._market.now
        minutes = _timeframe(query.get("timeframe", ""))
        start = _moment(query, "start") or midnight(now.astimezone(NEW_YORK).date())
        end = _moment(query, "end") or now
        limit = _limit(query)
        symbols, descending = sorted(self._asked(query)), query.get("sort") == "desc"
        rows = (
            (symbol, bar)
            for symbol in symbols
            for bar in self._series(symbol, minutes, start=start, end=end, descending=descending)
        )
        page, token = _page(rows, after=query.get("page_token"), limit=limit, symbols=symbols, descending=descending)
        bars = {symbol: [_json(bar) for _, bar in those] for symbol, those in groupby(page, key=lambda row: row[0])}
        return web.json_response({"bars": bars, "next_page_token": token, "currency": "USD"})

    async def latest_bars(self, request: web.Request) -> web.Response:
        """The last minute of each symbol."""
        return self._latest(request, "bars", _json)

    async def latest_quotes(self, request: web.Request) -> web.Response:
        """Bid and ask around the last price."""
        return self._latest(request, "quotes", _quote_json)

    async def latest_trades(self, request: web.Request) -> web.Response:
        """The last price."""
        return self._latest(request, "trades", _trade_json)

    async def snapshots(self, request: web.Request) -> web.Response:
        """All of it, with today's and yesterday's bar."""
        answer: Json = {}
        for symbol in self._asked(request.query):
            bar = self._market.history.latest(symbol, now=self._market.now)
            if bar is None:
                continue
            days = self._market.history.days(symbol, now=self._market.now)
            answer[symbol] = {
                "latestTrade": _trade_json(bar),
                "latestQuote": _quote_json(bar),
                "minuteBar": _json(bar),
                "dailyBar": _json(days[0]),
                **({"prevDailyBar": _json(days[1])} if len(days) > 1 else {}),
            }
        return web.json_response(answer)

    def _latest(self, request: web.Request, name: str, to_json: Callable[[Bar], Json]) -> web.Response:
        found = {
            symbol: self._market.history.latest(symbol, now=self._market.now) for symbol in self._asked(request.query)
        }
        return web.json_response({name: {symbol: to_json(bar) for symbol, bar in found.items() if bar is not None}})

    def _asked(self, query: Any) -> list[str]:
        symbols = words(query, "symbols")
        if not symbols:
            raise _bad("symbols is required")
        return symbols

    def _series(
        self, symbol: str, minutes: int | None, *, start: datetime, end: datetime, descending: bool
    ) -> Iterable[Bar]:
        """Bars of so many minutes, of whole days for None."""
        if minutes != 1:
            start = midnight(start.astimezone(NEW_YORK).date())  # a longer bar is made of all its minutes
        bars = self._market.history.bars(symbol, start=start, end=end, now=self._market.now)
        if minutes != 1:
            bars = list(_longer(bars, minutes))
        return reversed(bars) if descending else bars


def _longer(bars: Iterable[Bar], minutes: int | None) -> Iterator[Bar]:
    """Minutes joined to longer bars, aligned to midnight in New York."""

    def window(bar: Bar) -> datetime:
        start = midnight(bar.timestamp.astimezone(NEW_YORK).date()).astimezone(UTC)
        if minutes is None:
            return start
        span = timedelta(minutes=minutes)
        return start + (bar.timestamp - start) // span * span

    for start, those in groupby(bars, key=window):
        yield whole(list(those), timestamp=start)


def _page(
    rows: Iterator[tuple[str, Bar]], *, after: str | None, limit: int, symbols: list[str], descending: bool
) -> tuple[list[tuple[str, Bar]], str | None]:
    """The rows that follow the token, and the token of the next page if there is one."""
    if after is not None:
        last_symbol, last_time = _read_token(after)
        rows = (
            (symbol, bar)
            for symbol, bar in rows
            if symbol > last_symbol
            or (symbol == last_symbol and (bar.timestamp < last_time if descending else bar.timestamp > last_time))
        )
    page: list[tuple[str, Bar]] = []
    for symbol, bar in rows:
        if len(page) == limit:
            last_symbol, last = page[-1]
            return page, base64.urlsafe_b64encode(f"{last_symbol}|{last.timestamp.isoformat()}".encode()).decode()
        page.append((symbol, bar))
    return page, None


def _read_token(token: str) -> tuple[str, datetime]:
    try:
        symbol, _, moment = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, datetime.fromisoformat(moment)
    except ValueError:
        raise _bad("invalid page_token") from None


def _timeframe(text: str) -> int | None:
    """Minutes, None for a day."""
    match = TIMEFRAME.fullmatch(text)
    number = int(match[1]) if match else 0
    if match and match[2] in ("Min", "T") and number < 60:
        return number
    if match and match[2] in ("Hour", "H") and number < 24:
        return number * 60
    if match and match[2] in ("Day", "D") and number == 1:
        return None
    raise _bad(f"invalid timeframe: {text}")


def _limit(query: Any) -> int:
    try:
        limit = int(query.get("limit", USUAL_BARS))
    except ValueError:
        limit = 0
    if not 1 <= limit <= MOST_BARS:
        raise _bad(f"limit must be between 1 and {MOST_BARS}")
    return limit


def _moment(query: Any, name: str) -> datetime | None:
    try:
        return moment_of(query, name)
    except Refused as refusal:
        raise _bad(refusal.message) from refusal


def _bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, 0, message)


# --- writing ----------------------------------------------------------------------------------------------------------


def _json(bar: Bar) -> Json:
    return bar_json(bar) | {"t": utc_text(bar.timestamp)}


def _trade_json(bar: Bar) -> Json:
    """The trade that closed a bar."""
    return {
        "t": utc_text(bar.delivered_at),
        "x": "V",
        "p": float(bar.close),
        "s": LOT,
        "c": ["@"],
        "i": int(bar.timestamp.timestamp()),
        "z": TAPE,
    }


def _quote_json(bar: Bar) -> Json:
    """A tick below and a tick above the last price."""
    tick = CENT if bar.close > ONE_DOLLAR else SUB_DOLLAR_TICK
    bid = max(bar.close - tick, Decimal(0))
    return {
        "t": utc_text(bar.delivered_at),
        "ax": "V",
        "ap": float(bar.close + tick),
        "as": LOT,
        "bx": "V",
        "bp": float(bid),
        "bs": LOT,
        "c": ["R"],
        "z": TAPE,
    }
