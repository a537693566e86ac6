"""Alpaca's two streams: trade updates, and minute bars with halts. Importing this module imports alpaca-py."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
import websockets
from alpaca.data.enums import DataFeed
from alpaca.data.live.stock import StockDataStream
from alpaca.trading.stream import TradingStream

from trading.broker import CorrectedBar, StreamState, TradeUpdate, TradingStatus
from trading.live import alpaca_parse as parse
from trading.live.alpaca_feed import UNREADABLE, Feed, Refused
from trading.live.alpaca_workers import Timing
from trading.market import Bar

log = structlog.get_logger("alpaca")

LONGEST_BAR_QUEUE = 50_000  # four minutes of the whole market


CHANNELS = ("bars", "updatedBars", "statuses")


class TradeUpdateFeed(Feed[TradeUpdate]):
    """Order events. None is ever dropped: one that cannot be read is reported as a loss."""

    def __init__(self, keys: tuple[str, str], *, paper: bool, url: str, timing: Timing) -> None:
        super().__init__(timing)
        self._keys = keys
        self._paper = paper
        self._url = url

    async def _ready(self) -> None:
        return

    def _new_stream(self) -> TradingStream:
        stream = _TradingStream(
            *self._keys,
            paper=self._paper,
            raw_data=True,
            url_override=self._url or None,  # type: ignore[arg-type]  # None is its default
            websocket_params=self._websocket_params(),
        )
        stream.feed = self
        stream.subscribe_trade_updates(self._on_update)
        return stream

    async def _subscribe(self) -> None:
        return  # `_start_ws` has asked for the one channel

    async def _on_update(self, envelope: Any) -> None:
        self._got_data = True
        try:
            update = parse.trade_update(envelope["data"])
        except UNREADABLE as error:
            self._lost(f"a trade update could not be read: {type(error).__name__} {error}")
        else:
            self._put(update)

    def on_control(self, message: dict[str, Any]) -> None:
        """Anything but a trade update."""
        data = message.get("data") or {}
        if message.get("stream") == "listening" and "trade_updates" in data.get("streams", ()):
            self._confirmed()
        elif message.get("action") == "error" or data.get("status") == "unauthorized":
            raise Refused(data.get("error_message") or data.get("status") or "error")


class BarFeed(Feed[Bar | CorrectedBar | TradingStatus]):
    """Minute bars, their corrections, and halts of some symbols."""

    def __init__(self, keys: tuple[str, str], *, feed: str, url: str, symbols: Iterable[str], timing: Timing) -> None:
        super().__init__(timing)
        self._keys = keys
        self._feed = feed
        self._url = url
        self._symbols = frozenset(symbols)
        self._wanted = asyncio.Event()
        self._waiting_bars = 0
        self._newly_dropped: dict[str, datetime] = {}  # the first minute of each symbol
        self.dropped = 0
        if self._symbols:
            self._wanted.set()

    async def change_symbols(self, symbols: Iterable[str]) -> None:
        """Exactly these from now on. Without a connection the next one starts with them."""
        removed = self._symbols - frozenset(symbols)
        self._symbols = frozenset(symbols)
        if self._symbols:
            self._wanted.set()
        else:
            self._wanted.clear()
        if self._stream is not None and self._stream._running:
            # alpaca-py's own methods for this deadlock when called on the stream's loop.
            with suppress(websockets.ConnectionClosed):
                for channel in CHANNELS:
                    await self._stream._send_unsubscribe_msg(channel, sorted(removed))
                if self._symbols:
                    await self._subscribe()

    async def _ready(self) -> None:
        if not self._wanted.is_set():
            self._put(StreamState(connected=False, detail="no symbols to watch"))
            await self._wanted.wait()

    def _new_stream(self) -> StockDataStream:
        stream = _DataStream(
            *self._keys,
            raw_data=True,
            feed=DataFeed(self._feed),
            websocket_params=self._websocket_params(),
            url_override=self._url or None,
        )
        stream.feed = self
        return stream

    async def _subscribe(self) -> None:
        self._stream._handlers["bars"] = dict.fromkeys(self._symbols, self.on_bar)
        self._stream._handlers["updatedBars"] = dict.fromkeys(self._symbols, self._on_correction)
        self._stream._handlers["statuses"] = dict.fromkeys(self._symbols, self._on_status)
        await self._stream._send_subscribe_msg()

    async def on_bar(self, raw: Any) -> None:
        """A bar as it came."""
        self._got_data = True
        try:
            (bar,) = parse.bars(raw["S"], [raw])
        except UNREADABLE as error:
            self._lost(f"a bar could not be read: {type(error).__name__} {error}")
            return
        if self._waiting_bars == LONGEST_BAR_QUEUE:
            self._drop_oldest_bar()
        self._waiting_bars += 1
        self._put(bar)

    async def _on_correction(self, raw: Any) -> None:
        self._got_data = True
        try:
            (bar,) = parse.bars(raw["S"], [raw])
        except UNREADABLE as error:  # nothing depends on it
            log.warning("alpaca.unreadable_correction", reason=f"{type(error).__name__} {error}")
        else:
            self._put(CorrectedBar(bar=bar))

    async def _on_status(self, raw: Any) -> None:
        self._got_data = True
        try:
            status = parse.trading_status(raw)
        except UNREADABLE as error:
            self._lost(f"a trading status could not be read: {type(error).__name__} {error}")
        else:
            if status is not None:
                self._put(status)

    def on_control(self, message: dict[str, Any]) -> None:
        """The reply to a subscription, or an error."""
        if message["T"] == "subscription":
            self._confirmed()
            return
        words = f"{message.get('code')} {message.get('msg')}"
        if self._handshake is not None:  # nothing is subscribed: without a new attempt nothing would ever come
            raise Refused(words)
        self._lost(f"the bar stream reports {words}")

    def _take(self) -> Bar | CorrectedBar | TradingStatus | StreamState:
        if self._newly_dropped:
            missed, self._newly_dropped = tuple(sorted(self._newly_dropped.items())), {}
            return StreamState(connected=True, detail=f"{self.dropped} bars were dropped unread", missed=missed)
        item = super()._take()
        if isinstance(item, Bar):
            self._waiting_bars -= 1
        return item

    def _drop_oldest_bar(self) -> None:
        position, oldest = next((index, item) for index, item in enumerate(self._waiting) if isinstance(item, Bar))
        del self._waiting[position]
        self._waiting_bars -= 1
        if not self._newly_dropped:
            log.error("alpaca.bars_dropped", queue=LONGEST_BAR_QUEUE)
        self._newly_dropped.setdefault(oldest.symbol, oldest.timestamp)
        self.dropped += 1


class _TradingStream(TradingStream):
    feed: TradeUpdateFeed

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        if msg.get("stream") == "trade_updates":
            await super()._dispatch(msg)
        else:
            self.feed.on_control(msg)


class _DataStream(StockDataStream):
    feed: BarFeed

    async def _dispatch(self, msg: dict[str, Any]) -> None:
        if msg.get("T") in ("subscription", "error"):
            self.feed.on_control(msg)
        elif msg.get("T") == "b":
            await self.feed.on_bar(msg)  # by alpaca-py's table one of a symbol unsubscribed meanwhile would get lost
        else:
            await super()._dispatch(msg)
