"""The adapter against the built-in market, which speaks Alpaca's protocols: one trading day from entry to flat."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from orders.lifecycle import OrderType, TimeInForce
from trading.broker import (
    BrokerOrderStatus,
    NotAuthorized,
    NotFound,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    StreamState,
    TradeUpdate,
)
from trading.live import calendar
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.calls import BrokerCalls, DataCalls
from trading.market import MINUTE, Bar, Session
from trading.simulator.market import Market

KEYS = ("the-key", "the-secret")
DAY = calendar.session_on(date(2026, 2, 13))
QUICK = Timing(first_retry_seconds=0.05, longest_retry_seconds=0.2)


class Prices:
    """Minutes of one symbol in one session, each a close at which it also opens."""

    description = "prices of a test"
    symbols: tuple[str, ...] = ("AAPL",)
    is_endless = False

    def __init__(self, closes: str) -> None:
        assert DAY is not None
        self.day = DAY
        self.first = DAY.open
        self.bars = [
            Bar(symbol="AAPL", timestamp=at, open=price, high=price, low=price, close=price, volume=99)
            for at, price in zip(_minutes(DAY), map(Decimal, closes.split()), strict=False)
        ]

    def knows(self, symbol: str) -> bool:
        return symbol == "AAPL"

    def sessions(self, start: date, end: date) -> list[Session]:
        return [self.day] if start <= self.day.date <= end else []

    def next_session(self, after: datetime) -> Session | None:
        return self.day if after < self.day.open else None

    def session_bars(self, symbol: str, session: Session) -> Sequence[Bar]:
        return self.bars


def _minutes(session: Session) -> Iterator[datetime]:
    return (session.open + number * MINUTE for number in range((session.close - session.open) // MINUTE))


class Desk:
    """The adapter on the built-in market, with what its streams brought."""

    def __init__(self, market: Market) -> None:
        urls = market.urls
        self.market = market
        self.broker = AlpacaBroker(
            *KEYS, trading_url=urls["trading_url"], trading_stream_url=urls["trading_stream_url"], timing=QUICK
        )
        self.data = AlpacaData(*KEYS, data_url=urls["data_url"], data_stream_url=urls["data_stream_url"], timing=QUICK)
        self.calls = BrokerCalls(self.broker)
        self.updates: list[TradeUpdate] = []
        self.bars: list[Bar] = []
        self.states: list[StreamState] = []
        self.tasks = [
            asyncio.create_task(self._follow(self.broker.subscribe_trade_updates(), self.updates)),
            asyncio.create_task(self._follow(self.data.subscribe_bars(["AAPL"]), self.bars)),
        ]

    async def _follow(self, items: AsyncIterator[Any], kept: list[Any]) -> None:
        async for item in items:
            (self.states if isinstance(item, StreamState) else kept).append(item)

    async def until(self, happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 20
        while not happened():
            assert time.monotonic() < deadline, (self.updates, self.bars, self.states)
            await asyncio.sleep(0.01)

    def events(self, client_order_id: str) -> list[str]:
        return [update.event for update in self.updates if update.order.client_order_id == client_order_id]

    async def stop(self) -> None:
        await self.broker.disconnect()
        await self.data.disconnect()
        await asyncio.gather(*self.tasks)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    # A minute takes a fifth of a second: the protective stop is sent and moved between two prices.
    market = Market(bars=Prices("100 " * 5 + "101 " * 20 + "99 " * 30), account_number="PA-TEST", keys=KEYS, speed=300)
    await market.start()
    desk = Desk(market)
    await desk.broker.connect()
    await desk.data.connect()
    await desk.until(lambda: len(desk.states) == 2)
    running = asyncio.create_task(market.run())
    yield desk
    await desk.stop()
    running.cancel()
    await market.stop()


def order(buys: bool, order_type: OrderType, qty: str, stop_price: str | None = None, **more: Any) -> OrderRequest:
    return OrderRequest(
        symbol="AAPL",
        buys=buys,
        order_type=order_type,
        qty=Decimal(qty),
        client_order_id=str(uuid4()),
        stop_price=None if stop_price is None else Decimal(stop_price),
        **more,
    )


def kind(status: OrderStatus) -> tuple[BrokerOrderStatus, Decimal]:
    return status.status, status.filled_qty


async def test_from_entry_through_a_moved_stop_to_flat(desk: Desk) -> None:
    entry = order(True, OrderType.STOP, "10", "100.50")
    await desk.calls.submit(entry)
    await desk.until(lambda: desk.events(entry.client_order_id) == ["new"])
    assert [found.client_order_id for found in await desk.calls.open_orders()] == [entry.client_order_id]
    desk.market.begin()
    await desk.until(lambda: "fill" in desk.events(entry.client_order_id))
    filled = await desk.calls.order_by_client_id(entry.client_order_id)
    assert kind(filled) == (BrokerOrderStatus.FILLED, Decimal(10))
    assert filled.avg_fill_price == Decimal("101.01")  # the market gapped over the stop; one cent of slippage
    (position,) = await desk.calls.positions()
    assert (position.symbol, position.qty, position.avg_entry_price) == ("AAPL", Decimal(10), Decimal("101.01"))

    stop = order(False, OrderType.STOP, "10", "98.00", time_in_force=TimeInForce.GTC)
    placed = await desk.calls.submit(stop, protective=True)
    await desk.until(lambda: "new" in desk.events(stop.client_order_id))
    moved_id = f"{stop.client_order_id}-r1"
    moved = await desk.calls.replace(placed.broker_order_id, stop_price=Decimal("100.10"), client_order_id=moved_id)
    assert moved.replaces == placed.broker_order_id
    await desk.until(lambda: "replaced" in desk.events(stop.client_order_id) and "new" in desk.events(moved_id))
    replaced = await desk.calls.order(placed.broker_order_id)
    assert (replaced.status, replaced.replaced_by) == (BrokerOrderStatus.REPLACED, moved.broker_order_id)

    await desk.until(lambda: "fill" in desk.events(moved_id))
    sold = await desk.calls.order(moved.broker_order_id)
    assert kind(sold) == (BrokerOrderStatus.FILLED, Decimal(10))
    assert sold.avg_fill_price == Decimal("98.99")
    assert await desk.calls.positions() == []
    account = await desk.calls.account()
    assert account.cash == account.equity == Decimal("24979.80")  # 10 shares, bought at 101.01, sold at 98.99

    assert DAY is not None
    streamed = [update for update in desk.updates if update.execution_id]
    booked = await desk.calls.fills(since=DAY.open)
    assert [fill.execution_id for fill in booked] == [update.execution_id for update in streamed]
    assert [fill.order.broker_order_id for fill in booked] == [filled.broker_order_id, moved.broker_order_id]
    assert [fill.execution_price for fill in booked] == [Decimal("101.01"), Decimal("98.99")]
    recent = await desk.calls.recent_orders(since=DAY.open.replace(hour=0))
    assert {found.client_order_id for found in recent} == {entry.client_order_id, stop.client_order_id, moved_id}
    assert all(state.connected for state in desk.states)


async def test_a_cancelled_entry_and_what_the_market_refuses(desk: Desk) -> None:
    desk.market.begin()
    await desk.until(lambda: desk.bars)
    entry = order(True, OrderType.STOP, "10", "150.00")
    placed = await desk.calls.submit(entry)
    assert (await desk.calls.submit(entry)).broker_order_id == placed.broker_order_id  # its id is taken: it is found
    with pytest.raises(OrderRefused) as wash_trade:
        await desk.calls.submit(order(False, OrderType.STOP, "10", "90.00"))
    assert wash_trade.value.is_wash_trade
    with pytest.raises(OrderRefused, match="sub-penny"):
        await desk.calls.submit(order(True, OrderType.STOP, "1", "150.001"))
    with pytest.raises(OrderRefused, match="buying power"):
        await desk.calls.submit(order(True, OrderType.STOP, "100000", "150.00"))
    await desk.calls.cancel(placed.broker_order_id)
    await desk.until(lambda: "canceled" in desk.events(entry.client_order_id))
    assert (await desk.calls.order(placed.broker_order_id)).status is BrokerOrderStatus.CANCELED
    with pytest.raises(NotFound):
        await desk.calls.order_by_client_id("never-sent")
    assert await desk.calls.is_tradable("AAPL")
    assert not await desk.calls.is_tradable("GONE")


async def test_bars_history_quote_clock_and_calendar(desk: Desk) -> None:
    assert DAY is not None
    desk.market.begin()
    await desk.until(lambda: len(desk.bars) >= 7)
    calls = DataCalls(desk.data)
    history = (await calls.bars(["AAPL"], start=DAY.open, end=DAY.open + 7 * MINUTE))["AAPL"]
    assert history == desk.bars[:7]
    assert [bar.close for bar in history] == [Decimal(100)] * 5 + [Decimal(101)] * 2
    quote = await calls.quote("AAPL")
    assert quote.bid < quote.last < quote.ask
    assert DAY.open + 7 * MINUTE <= await desk.calls.clock() < DAY.close
    (today,) = await desk.calls.calendar(start=DAY.date, end=DAY.date)
    assert (today.date, today.open, today.close) == (DAY.date, DAY.open, DAY.close)


async def test_wrong_keys_are_refused_everywhere(desk: Desk) -> None:
    urls = desk.market.urls
    broker = AlpacaBroker("the-key", "guessed", trading_url=urls["trading_url"])
    data = AlpacaData("the-key", "guessed", data_url=urls["data_url"], data_stream_url=urls["data_stream_url"])
    for adapter in (broker, data):
        with pytest.raises(NotAuthorized):
            await adapter.connect()
    state = await anext(data.subscribe_bars(["AAPL"]))
    assert isinstance(state, StreamState)
    assert not state.connected
    assert "auth failed" in state.detail
    await broker.disconnect()
    await data.disconnect()


async def test_a_halt_reaches_us(desk: Desk) -> None:
    desk.market.begin()
    await desk.until(lambda: desk.bars)
    await desk.market.halt("AAPL", "news pending")
    await desk.until(lambda: any(not isinstance(item, Bar) for item in desk.bars))
    status: Any = next(item for item in desk.bars if not isinstance(item, Bar))
    assert (status.symbol, status.halted, status.timestamp.tzinfo) == ("AAPL", True, UTC)
    assert "news pending" in status.reason
