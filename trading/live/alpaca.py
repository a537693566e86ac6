"""The broker and the market data of Alpaca, or of anything that speaks Alpaca's protocols, on the official client.

The client blocks, so every request runs on a worker thread with a client of its own; the streams run as tasks on our
loop. alpaca-py is imported on the first call, on a worker thread.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from risk.config import is_loopback
from trading.broker import (
    AccountInfo,
    BracketOrderRequest,
    BrokerPosition,
    BrokerUnavailable,
    CorrectedBar,
    MarketHours,
    NotAuthorized,
    NotFound,
    OrderRequest,
    OrderStatus,
    StreamState,
    TradeUpdate,
    TradingStatus,
)
from trading.live import alpaca_parse as parse
from trading.live.alpaca_workers import DEFAULT_TIMING, Timing, Workers
from trading.market import Bar, Quote

if TYPE_CHECKING:
    from trading.live.alpaca_rest import DataRest, TradingRest
    from trading.live.alpaca_streams import BarFeed, TradeUpdateFeed

ORDERS_PER_PAGE = 500
FILLS_PER_PAGE = 100
BARS_PER_PAGE = 10_000
SYMBOLS_PER_REQUEST = 500  # servers take no address longer than about 8,000 characters
LONGEST_LISTING_PAGES = 200
MICROSECOND = timedelta(microseconds=1)


class AlpacaBroker:
    """Orders, positions, account and trade updates (a `BrokerAdapter`).

    Empty URLs mean Alpaca's own, paper or live by `paper`.
    """

    def __init__(
        self,
        api_key: str,
        secret_key: str,
        paper: bool = True,
        trading_url: str = "",
        trading_stream_url: str = "",
        *,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._keys = (api_key, secret_key)
        self._paper = paper
        self._url = trading_url
        self._stream_url = trading_stream_url
        self._timing = timing
        self._workers: Workers[TradingRest] = Workers(self._new_client, threads=8, name="alpaca-broker")
        self._feed: TradeUpdateFeed | None = None

    def _new_client(self) -> "TradingRest":
        from trading.live.alpaca_rest import TradingRest

        return TradingRest(*self._keys, paper=self._paper, url=self._url, timing=self._timing)

    async def connect(self) -> None:
        """Checks the keys, and that a paper account is one: its number starts with PA. Loopback hosts may say anything.

        Raises:
            NotAuthorized: the keys are wrong, or belong to a live account although paper trading is configured.
        """
        _require_keys(self._keys)
        number = (await self.get_account()).account_number
        host = urlsplit(self._url).hostname or ""
        if self._paper and not number.startswith("PA") and not is_loopback(host):
            raise NotAuthorized("paper trading is configured, but the keys belong to another kind of account")

    async def disconnect(self) -> None:
        if self._feed is not None:
            await self._feed.stop()
        self._workers.close()

    async def submit_order(self, order: OrderRequest) -> OrderStatus:
        def submit(client: "TradingRest") -> OrderStatus:
            from trading.live.alpaca_requests import simple_order

            return parse.order(_object(client.submit_order(simple_order(order))))

        return await self._workers.run(submit)

    async def submit_bracket_order(self, bracket: BracketOrderRequest) -> OrderStatus:
        def submit(client: "TradingRest") -> OrderStatus:
            from trading.live.alpaca_requests import bracket_order

            return parse.order(_object(client.submit_order(bracket_order(bracket))))

        return await self._workers.run(submit)

    async def replace_order(
        self, broker_order_id: str, *, stop_price: Decimal, client_order_id: str, qty: Decimal | None = None
    ) -> OrderStatus:
        """See the protocol. Alpaca takes whole shares only here."""

        def replace(client: "TradingRest") -> OrderStatus:
            from trading.live.alpaca_requests import replacement

            wish = replacement(stop_price=stop_price, client_order_id=client_order_id, qty=qty)
            return parse.order(_object(client.replace_order_by_id(broker_order_id, wish)))

        return await self._workers.run(replace)

    async def cancel_order(self, broker_order_id: str) -> None:
        await self._workers.run(lambda client: client.cancel_order_by_id(broker_order_id))

    async def get_order_status(self, broker_order_id: str) -> OrderStatus:
        path = f"/orders/{broker_order_id}"
        return await self._workers.run(lambda client: parse.order(_object(client.get(path, {"nested": True}))))

    async def get_order_by_client_id(self, client_order_id: str) -> OrderStatus:
        return await self._workers.run(
            lambda client: parse.order(_object(client.get_order_by_client_id(client_order_id)))
        )

    async def get_positions(self) -> list[BrokerPosition]:
        return await self._workers.run(lambda client: [parse.position(raw) for raw in client.get("/positions")])

    async def get_account(self) -> AccountInfo:
        return await self._workers.run(lambda client: parse.account(_object(client.get_account())))

    async def get_open_orders(self) -> list[OrderStatus]:
        return await self._workers.run(lambda client: _orders(client, status="open", after=None))

    async def get_recent_orders(self, *, since: datetime) -> list[OrderStatus]:
        return await self._workers.run(lambda client: _orders(client, status="all", after=since))

    async def get_fills(self, *, since: datetime) -> list[TradeUpdate]:
        return await self._workers.run(lambda client: _fills(client, after=since))

    async def get_clock(self) -> datetime:
        return await self._workers.run(lambda client: parse.moment(_object(client.get_clock())["timestamp"]))

    async def get_calendar(self, *, start: date, end: date) -> list[MarketHours]:
        query = {"start": start.isoformat(), "end": end.isoformat()}
        return await self._workers.run(
            lambda client: [parse.market_hours(raw) for raw in client.get("/calendar", query)]
        )

    async def is_tradable(self, symbol: str) -> bool:
        try:
            asset = await self._workers.run(lambda client: _object(client.get_asset(symbol)))
        except NotFound:
            return False
        return bool(asset.get("tradable")) and asset.get("status") == "active"

    async def reconnect_trade_updates(self, reason: str) -> None:
        if self._feed is not None:
            await self._feed.reconnect(reason)

    async def subscribe_trade_updates(self) -> AsyncIterator[TradeUpdate | StreamState]:
        """See the protocol. No update is ever dropped. Reading anew ends the stream read before: an account has one."""
        feed_class = await self._workers.run(_trade_update_feed)
        if self._feed is not None:
            await self._feed.stop()
        self._feed = feed_class(self._keys, paper=self._paper, url=self._stream_url, timing=self._timing)
        async with aclosing(self._feed.items()) as items:
            async for item in items:
                yield item


class AlpacaData:
    """Live bars, halts and history (a `DataProvider`). Empty URLs mean Alpaca's own."""

    def __init__(
        self,
        api_key: str,
        secret_key: str,
        feed: str = "iex",
        data_url: str = "",
        data_stream_url: str = "",
        *,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._keys = (api_key, secret_key)
        self._feed_name = feed
        self._url = data_url
        self._stream_url = data_stream_url
        self._timing = timing
        self._workers: Workers[DataRest] = Workers(self._new_client, threads=2, name="alpaca-data")
        self._feed: BarFeed | None = None

    def _new_client(self) -> "DataRest":
        from trading.live.alpaca_rest import DataRest

        return DataRest(*self._keys, url=self._url, timing=self._timing)

    @property
    def dropped_bars(self) -> int:
        """Bars of the current stream that were dropped because nobody read them in time."""
        return self._feed.dropped if self._feed is not None else 0

    async def connect(self) -> None:
        """Checks the keys, and that the subscription covers the feed, with one small request.

        Raises:
            NotAuthorized: wrong keys. OrderRefused: the subscription does not cover the feed.
        """
        _require_keys(self._keys)
        query = {"symbols": "SPY", "timeframe": "1Min", "feed": self._feed_name, "limit": 1}
        await self._workers.run(lambda client: client.get("/stocks/bars", query))

    async def disconnect(self) -> None:
        if self._feed is not None:
            await self._feed.stop()
        self._workers.close()

    async def reconnect_bars(self, reason: str) -> None:
        if self._feed is not None:
            await self._feed.reconnect(reason)

    async def subscribe_bars(
        self, symbols: Sequence[str]
    ) -> AsyncIterator[Bar | CorrectedBar | TradingStatus | StreamState]:
        """See the protocol. At most 50,000 bars wait to be read; then the oldest are dropped, counted and reported.

        Reading anew ends the stream read before: an account has one.
        """
        feed_class = await self._workers.run(_bar_feed)
        if self._feed is not None:
            await self._feed.stop()
        self._feed = feed_class(
            self._keys, feed=self._feed_name, url=self._stream_url, symbols=symbols, timing=self._timing
        )
        async with aclosing(self._feed.items()) as items:
            async for item in items:
                yield item

    async def change_symbols(self, symbols: Sequence[str]) -> None:
        """See the protocol. Takes effect at once, or with the next connection if there is none."""
        if self._feed is not None:
            await self._feed.change_symbols(symbols)

    async def get_historical_bars(
        self, symbols: Sequence[str], *, start: datetime, end: datetime, split_adjusted: bool = False
    ) -> dict[str, list[Bar]]:
        """See the protocol. Up to 500 symbols share pages of 10,000 bars; one without bars has an empty list."""
        found: dict[str, list[Bar]] = {symbol: [] for symbol in symbols}
        if start >= end:
            return found
        for first in range(0, len(symbols), SYMBOLS_PER_REQUEST):
            for symbol, bars in (
                await self._history(symbols[first : first + SYMBOLS_PER_REQUEST], start, end, split_adjusted)
            ).items():
                found.setdefault(symbol, []).extend(bars)
        return found

    async def _history(
        self, symbols: Sequence[str], start: datetime, end: datetime, split_adjusted: bool
    ) -> dict[str, list[Bar]]:
        found: dict[str, list[Bar]] = {}
        query: dict[str, Any] = {
            "symbols": ",".join(symbols),
            "timeframe": "1Min",
            "start": start.astimezone(UTC).isoformat(),
            "end": (end - MICROSECOND).astimezone(UTC).isoformat(),  # both ends are included there, ours is not
            "adjustment": "split" if split_adjusted else "raw",
            "feed": self._feed_name,
            "limit": BARS_PER_PAGE,
            "sort": "asc",
        }
        while True:
            page, token, pause_seconds = await self._workers.run(lambda client: _bars_page(client, query))
            for symbol, bars in page.items():
                found.setdefault(symbol, []).extend(bars)
            if not token:
                return found
            query["page_token"] = token
            await asyncio.sleep(pause_seconds)

    async def get_latest_quote(self, symbol: str) -> Quote:
        def ask(client: "DataRest") -> Quote:
            answer = _object(client.get("/stocks/snapshots", {"symbols": symbol, "feed": self._feed_name}))
            if not answer.get(symbol):
                raise NotFound(f"there is no quote of {symbol}")
            return parse.snapshot(symbol, answer[symbol])

        return await self._workers.run(ask)


def _orders(client: "TradingRest", *, status: str, after: datetime | None) -> list[OrderStatus]:
    """All orders of a listing that has no page token: each page starts where the one before ended, by time.

    Orders of one microsecond may be cut by a page's end, so a page starts just before the last time seen and what
    comes twice is dropped.
    """
    found: dict[str, OrderStatus] = {}
    query: dict[str, Any] = {"status": status, "nested": True, "direction": "asc", "limit": ORDERS_PER_PAGE}
    for _ in range(LONGEST_LISTING_PAGES):
        if after is not None:
            query["after"] = after.astimezone(UTC).isoformat()
        page = [parse.order(raw) for raw in client.get("/orders", query)]
        new = [order for order in page if order.broker_order_id not in found]
        found.update((order.broker_order_id, order) for order in new)
        if len(page) < ORDERS_PER_PAGE:
            return list(found.values())
        if not new:
            break
        after = page[-1].submitted_at - MICROSECOND
    raise BrokerUnavailable(f"the list of orders does not end: {len(found)} read")


def _fills(client: "TradingRest", *, after: datetime) -> list[TradeUpdate]:
    found: dict[str, TradeUpdate] = {}
    query: dict[str, Any] = {
        "after": after.astimezone(UTC).isoformat(), "direction": "asc", "page_size": FILLS_PER_PAGE,
    }  # fmt: skip
    for _ in range(LONGEST_LISTING_PAGES):
        page: Any = client.get("/account/activities/FILL", query)
        found.update((str(raw["id"]), parse.fill_activity(raw)) for raw in page)
        if len(page) < FILLS_PER_PAGE:
            return sorted(found.values(), key=lambda fill: fill.timestamp)
        query["page_token"] = page[-1]["id"]
    raise BrokerUnavailable(f"the list of fills does not end: {len(found)} read")


def _bars_page(client: "DataRest", query: dict[str, Any]) -> tuple[dict[str, list[Bar]], str | None, float]:
    """One page of bars, the token of the next, and how long to wait before asking for it."""
    answer = _object(client.get("/stocks/bars", query))
    page = {symbol: parse.bars(symbol, rows) for symbol, rows in (answer.get("bars") or {}).items()}
    return page, answer.get("next_page_token"), client.pause_seconds


def _trade_update_feed(_client: "TradingRest") -> "type[TradeUpdateFeed]":
    from trading.live.alpaca_streams import TradeUpdateFeed

    return TradeUpdateFeed


def _bar_feed(_client: "DataRest") -> "type[BarFeed]":
    from trading.live.alpaca_streams import BarFeed

    return BarFeed


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise TypeError(f"an object was expected, not {type(answer).__name__}")
    return answer


def _require_keys(keys: tuple[str, str]) -> None:
    if not all(keys):
        raise NotAuthorized("the API key and the secret key are both needed")
