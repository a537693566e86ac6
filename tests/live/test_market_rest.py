"""Every REST call of the unmodified alpaca-py client against the built-in market, over real sockets."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockSnapshotRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetStatus, OrderClass, OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    OrderRequest,
    ReplaceOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
)

from tests.built_in_market import KEYS, Conductor, script
from trading.exchange import Exchange

BUY, SELL = OrderSide.BUY, OrderSide.SELL
DAY, GTC = TimeInForce.DAY, TimeInForce.GTC
CALM = "100|101|102 103 101 102|102"


class Client:
    """alpaca-py's two REST clients; each call runs in a thread, as alpaca-py blocks."""

    def __init__(self, conductor: Conductor, keys: tuple[str, str] = KEYS) -> None:
        urls = conductor.market.urls
        self.conductor = conductor
        self.trading = TradingClient(*keys, url_override=urls["trading_url"])
        self.data = StockHistoricalDataClient(*keys, url_override=urls["data_url"])

    async def call(self, method: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """The answer, after everything it led to has been carried out."""
        answer = await asyncio.to_thread(method, *args, **more)
        await self.conductor.settled()
        return answer

    async def submit(self, kind: type[OrderRequest], symbol: str = "AAPL", **fields: Any) -> Any:
        request = kind(symbol=symbol, **{"side": BUY, "qty": 10, "time_in_force": DAY, **fields})
        return await self.call(self.trading.submit_order, request)

    async def order(self, order_id: Any) -> Any:
        return await self.call(self.trading.get_order_by_id, order_id)

    async def refused(self, method: Callable[..., Any], *args: Any) -> tuple[int, int, str]:
        with pytest.raises(APIError) as caught:
            await self.call(method, *args)
        return caught.value.status_code, caught.value.code, caught.value.message


def conductor(prices: str = CALM, *more: Any, **options: Any) -> Conductor:
    options.setdefault("exchange", Exchange(slippage_per_share=Decimal(0)))
    return Conductor(script(prices), *more, **options)


# --- orders -----------------------------------------------------------------------------------------------------------


async def test_an_order_is_answered_pending_and_works_soon_after() -> None:
    async with conductor() as market:
        client = Client(market)
        order = await client.submit(StopOrderRequest, stop_price=105, client_order_id="entry")
        assert (order.status, order.client_order_id, order.qty, order.order_class) == (
            "pending_new",
            "entry",
            "10",
            "simple",
        )
        by_id, by_name = await client.order(order.id), await client.call(client.trading.get_order_by_client_id, "entry")
        assert by_id.status == by_name.status == "new"
        assert (by_id.stop_price, by_id.filled_qty, by_id.legs) == ("105", "0", None)
        assert by_id.expires_at == datetime(2024, 3, 4, 21, tzinfo=UTC)


async def test_a_market_order_fills_at_the_last_price() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        order = await client.order((await client.submit(MarketOrderRequest)).id)
        assert (order.status, order.filled_qty, order.filled_avg_price) == ("filled", "10", "100")
        assert order.filled_at == datetime(2024, 3, 4, 14, 31, tzinfo=UTC)


async def test_orders_are_listed_as_asked_for() -> None:
    async with conductor(CALM, script(CALM, "TSLA")) as market:
        client = Client(market)
        await market.minute()
        names = {}
        for name, symbol, price in (("a", "AAPL", 90), ("b", "TSLA", 91), ("c", "AAPL", 92)):
            order = await client.submit(LimitOrderRequest, symbol, limit_price=price, client_order_id=name)
            names[order.id] = name
        await client.call(client.trading.cancel_order_by_id, order.id)

        async def listed(**wanted: Any) -> str:
            found = await client.call(client.trading.get_orders, GetOrdersRequest(**wanted))
            return "".join(names[each.id] for each in found)

        assert await listed() == "ba"
        assert await listed(status=QueryOrderStatus.CLOSED) == "c"
        assert await listed(status=QueryOrderStatus.ALL) == "cba"
        assert await listed(status=QueryOrderStatus.ALL, direction="asc", limit=2) == "ab"
        assert await listed(status=QueryOrderStatus.ALL, symbols=["AAPL"]) == "ca"
        assert await listed(status=QueryOrderStatus.ALL, side=SELL) == ""
        assert await listed(status=QueryOrderStatus.ALL, after=datetime(2024, 3, 4, 14, 30, 30, tzinfo=UTC)) == "cba"
        assert await listed(status=QueryOrderStatus.ALL, after=datetime(2024, 3, 4, 14, 31, tzinfo=UTC)) == ""
        assert await listed(status=QueryOrderStatus.ALL, until=datetime(2024, 3, 4, 14, 31, tzinfo=UTC)) == ""


async def test_replacing_gives_a_new_order_in_place_of_the_old_one() -> None:
    async with conductor() as market:
        client = Client(market)
        old = await client.submit(StopOrderRequest, stop_price=105)
        changes = ReplaceOrderRequest(stop_price=104, client_order_id="moved")
        new = await client.call(client.trading.replace_order_by_id, old.id, changes)
        assert (new.replaces, new.client_order_id, new.stop_price, new.status) == (
            old.id,
            "moved",
            "104",
            "pending_new",
        )
        old, new = await client.order(old.id), await client.order(new.id)
        assert (old.status, old.replaced_by, new.status) == ("replaced", new.id, "new")
        assert await client.refused(client.trading.replace_order_by_id, old.id, changes) == (
            422, 42210000, "order is not open",
        )  # fmt: skip


async def test_cancelling_one_and_all() -> None:
    async with conductor() as market:
        client = Client(market)
        one = await client.submit(LimitOrderRequest, limit_price=90)
        two = await client.submit(LimitOrderRequest, limit_price=91)
        assert await client.call(client.trading.cancel_order_by_id, one.id) is None
        assert (await client.order(one.id)).status == "canceled"
        (answer,) = await client.call(client.trading.cancel_orders)
        assert (answer.id, answer.status) == (two.id, 200)
        assert await client.call(client.trading.cancel_orders) == []
        nowhere = uuid4()
        assert await client.refused(client.trading.cancel_order_by_id, nowhere) == (
            404, 40410000, f"order not found for {nowhere}",
        )  # fmt: skip


async def test_a_bracket_comes_with_its_legs() -> None:
    async with conductor("100|100|100|111") as market:
        client = Client(market)
        await market.minute()
        exits: dict[str, Any] = {
            "take_profit": TakeProfitRequest(limit_price=110),
            "stop_loss": StopLossRequest(stop_price=95),
        }
        order = await client.submit(MarketOrderRequest, order_class=OrderClass.BRACKET, time_in_force=GTC, **exits)
        assert [(leg.status, leg.side, leg.order_class) for leg in order.legs] == [("held", "sell", "bracket")] * 2
        everything = GetOrdersRequest(status=QueryOrderStatus.ALL, nested=True)
        (found,) = await client.call(client.trading.get_orders, everything)
        assert [(leg.type, leg.status) for leg in found.legs] == [("limit", "new"), ("stop", "held")]
        assert len(await client.call(client.trading.get_orders, GetOrdersRequest(status=QueryOrderStatus.ALL))) == 3
        await market.minute(3)
        (found,) = await client.call(client.trading.get_orders, everything)
        assert [leg.status for leg in found.legs] == ["filled", "canceled"]


async def test_a_stop_entry_is_no_bracket() -> None:
    async with conductor() as market:
        client = Client(market)
        exits: dict[str, Any] = {
            "take_profit": TakeProfitRequest(limit_price=110),
            "stop_loss": StopLossRequest(stop_price=95),
        }
        request = StopOrderRequest(
            symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, stop_price=105, order_class=OrderClass.BRACKET, **exits
        )
        assert await client.refused(client.trading.submit_order, request) == (
            422, 40010001, "bracket orders must be market or limit orders",
        )  # fmt: skip


async def test_refusals_carry_status_code_and_the_brokers_words() -> None:
    async with conductor(capital="1000") as market:
        client = Client(market)
        await market.minute()
        poor = LimitOrderRequest(symbol="AAPL", qty=11, side=BUY, time_in_force=DAY, limit_price=100)
        with pytest.raises(APIError) as caught:
            await client.call(client.trading.submit_order, poor)
        assert caught.value.status_code == 403
        assert caught.value.response.json() == {
            "code": 40310000,
            "message": "insufficient buying power",
            "buying_power": "1000",
            "cost_basis": "1100",
        }
        await client.submit(LimitOrderRequest, qty=1, limit_price=100, client_order_id="once")
        again = LimitOrderRequest(
            symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, limit_price=100, client_order_id="once"
        )
        assert await client.refused(client.trading.submit_order, again) == (
            422, 42210000, "client_order_id must be unique",
        )  # fmt: skip
        odd = LimitOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, limit_price=0.1 + 0.2)
        status, code, message = await client.refused(client.trading.submit_order, odd)
        assert (status, code) == (422, 42210000)
        assert "sub-penny increment does not fulfill minimum pricing criteria" in message


# --- positions and account --------------------------------------------------------------------------------------------


async def test_a_position_is_told_with_its_gains_and_free_shares() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        await client.submit(MarketOrderRequest)
        await client.submit(StopOrderRequest, side=SELL, qty=4, stop_price=95)
        await market.minute(2)
        (position,) = await client.call(client.trading.get_all_positions)
        assert (position.qty, position.qty_available, position.side) == ("10", "6", "long")
        assert (position.avg_entry_price, position.current_price, position.market_value) == ("100", "102", "1020")
        assert (position.cost_basis, position.unrealized_pl, position.unrealized_plpc) == ("1000", "20", "0.02")
        assert (await client.call(client.trading.get_open_position, "AAPL")).qty == "10"
        assert (await client.call(client.trading.get_open_position, str(position.asset_id))).qty == "10"


async def test_closing_a_position_in_part_and_whole() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        await client.submit(MarketOrderRequest)
        order = await client.call(client.trading.close_position, "AAPL", ClosePositionRequest(qty="3"))
        assert (order.side, order.qty, order.type) == ("sell", "3", "market")
        await client.call(client.trading.close_position, "AAPL", ClosePositionRequest(percentage="50"))
        assert (await client.call(client.trading.get_open_position, "AAPL")).qty == "3.5"
        await client.call(client.trading.close_position, "AAPL")
        assert await client.call(client.trading.get_all_positions) == []
        assert await client.refused(client.trading.get_open_position, "AAPL") == (
            404, 40410000, "position does not exist",
        )  # fmt: skip


async def test_closing_everything_with_and_without_its_orders() -> None:
    async with conductor(CALM, script(CALM, "TSLA")) as market:
        client = Client(market)
        await market.minute()
        await client.submit(MarketOrderRequest)
        await client.submit(MarketOrderRequest, "TSLA")
        await client.submit(StopOrderRequest, side=SELL, stop_price=95)
        answers = await client.call(client.trading.close_all_positions, cancel_orders=False)
        assert [(each.symbol, each.status) for each in answers] == [("AAPL", 403), ("TSLA", 200)]
        assert [each.symbol for each in await client.call(client.trading.get_all_positions)] == ["AAPL"]
        (answer,) = await client.call(client.trading.close_all_positions, cancel_orders=True)
        assert (answer.symbol, answer.status) == ("AAPL", 200)
        assert await client.call(client.trading.get_all_positions) == []


async def test_a_short_is_negative_and_is_bought_back() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        await client.submit(MarketOrderRequest, side=SELL)
        await market.minute()
        (position,) = await client.call(client.trading.get_all_positions)
        assert (position.qty, position.side, position.market_value, position.unrealized_pl) == (
            "-10", "short", "-1010", "-10",
        )  # fmt: skip
        account = await client.call(client.trading.get_account)
        assert (account.cash, account.equity, account.short_market_value) == ("26000", "24990", "-1010")
        assert (await client.call(client.trading.close_position, "AAPL")).side == "buy"


async def test_the_account_tells_cash_equity_and_buying_power() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        await client.submit(MarketOrderRequest)
        await client.submit(LimitOrderRequest, limit_price=90)
        await market.minute()
        account = await client.call(client.trading.get_account)
        assert (account.account_number, account.status, account.multiplier) == ("TEST", "ACTIVE", "1")
        assert (account.cash, account.equity, account.last_equity) == ("24000", "25010", "25000")
        assert (account.buying_power, account.long_market_value) == ("23100", "1010")
        assert account.shorting_enabled
        assert not account.trading_blocked


async def test_configurations_are_kept_and_obeyed() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        found = await client.call(client.trading.get_account_configurations)
        assert (found.no_shorting, found.suspend_trade, found.max_margin_multiplier) == (False, False, "1")
        found.no_shorting = True
        assert (await client.call(client.trading.set_account_configurations, found)).no_shorting
        short = MarketOrderRequest(symbol="AAPL", qty=1, side=SELL, time_in_force=DAY)
        assert await client.refused(client.trading.submit_order, short) == (
            403, 40310000, "account is not allowed to short",
        )  # fmt: skip
        assert not (await client.call(client.trading.get_account)).shorting_enabled


async def test_fills_are_in_the_activities_page_by_page() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute()
        for _ in range(3):
            order = await client.submit(MarketOrderRequest)
            await market.minute()

        async def activities(**query: Any) -> Any:
            return await client.call(client.trading.get, "/account/activities/FILL", query)

        newest, *_ = rows = await activities()
        assert [row["price"] for row in rows] == ["102", "101", "100"]
        assert (newest["order_id"], newest["qty"], newest["cum_qty"], newest["leaves_qty"]) == (
            str(order.id),
            "10",
            "10",
            "0",
        )
        assert (newest["type"], newest["side"], newest["order_status"]) == ("fill", "buy", "filled")
        assert newest["transaction_time"] == "2024-03-04T14:33:00Z"
        assert newest["id"].startswith("20240304093300000::")
        assert await activities(page_size=1, page_token=newest["id"]) == rows[1:2]
        assert await activities(direction="asc") == rows[::-1]
        assert await activities(after="2024-03-04T14:32:00Z") == rows[:1]
        assert await activities(until="2024-03-04T14:32:00Z") == rows[2:]
        assert await activities(date="2024-03-05") == []
        assert await client.call(client.trading.get, "/account/activities", {"activity_types": "DIV"}) == []


# --- the market -------------------------------------------------------------------------------------------------------


async def test_clock_and_calendar_know_the_days_the_market_has() -> None:
    async with conductor("|".join(["100"] * 390), script("100", day=date(2024, 3, 5))) as market:
        client = Client(market)
        await market.minute()
        clock = await client.call(client.trading.get_clock)
        assert (clock.is_open, clock.timestamp) == (True, datetime(2024, 3, 4, 14, 31, tzinfo=UTC))
        assert clock.next_open == datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
        assert clock.next_close == datetime(2024, 3, 4, 21, tzinfo=UTC)
        days = await client.call(client.trading.get_calendar)
        assert [(day.date, day.open.hour, day.close.hour) for day in days] == [
            (date(2024, 3, 4), 9, 16), (date(2024, 3, 5), 9, 16),
        ]  # fmt: skip
        some = GetCalendarRequest(start=date(2024, 3, 5), end=date(2024, 3, 9))
        assert len(await client.call(client.trading.get_calendar, some)) == 1


async def test_assets_are_what_the_market_has_bars_of() -> None:
    async with conductor() as market:
        client = Client(market)
        (asset,) = await client.call(client.trading.get_all_assets)
        assert (asset.symbol, asset.tradable, asset.shortable) == ("AAPL", True, True)
        assert (await client.call(client.trading.get_asset, "AAPL")).id == asset.id
        assert (await client.call(client.trading.get_asset, str(asset.id))).symbol == "AAPL"
        assert await client.call(client.trading.get_all_assets, GetAssetsRequest(status=AssetStatus.INACTIVE)) == []
        assert (await client.refused(client.trading.get_asset, "GONE"))[:2] == (404, 40410000)


async def test_wrong_keys_are_refused_as_alpaca_does() -> None:
    async with conductor() as market:
        client = Client(market, keys=("the-key", "wrong"))
        with pytest.raises(APIError) as caught:
            await client.call(client.trading.get_account)
        assert caught.value.status_code == 401
        assert caught.value.response.json() == {"message": "unauthorized."}
        with pytest.raises(APIError):
            await client.call(client.data.get_stock_latest_bar, StockLatestBarRequest(symbol_or_symbols="AAPL"))


async def test_every_answer_carries_the_rate_limit() -> None:
    async with conductor() as market:
        url = market.market.urls["trading_url"]
        answer = await asyncio.to_thread(requests.get, f"{url}/v2/account")
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(answer.headers)
        missing = await asyncio.to_thread(
            requests.get,
            f"{url}/v2/nowhere",
            headers={"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]},
        )
        assert (missing.status_code, missing.json()) == (404, {"message": "Not Found"})
        clock = await asyncio.to_thread(requests.get, f"{url}/market/clock")
        assert clock.json() == {"now": "2024-03-04T14:30:00Z", "speed": 0}


# --- market data ------------------------------------------------------------------------------------------------------


def span(start: str, end: str, **more: Any) -> StockBarsRequest:
    day = "2024-03-04T"
    return StockBarsRequest(
        symbol_or_symbols=more.pop("symbols", ["AAPL"]),
        timeframe=more.pop("timeframe", TimeFrame.Minute),
        start=datetime.fromisoformat(f"{day}{start}:00Z"),
        end=datetime.fromisoformat(f"{day}{end}:00Z"),
        feed=DataFeed.IEX,
        adjustment=more.pop("adjustment", Adjustment.RAW),
        **more,
    )


async def test_bars_of_the_past_are_those_that_are_over() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute(3)
        bars = (await client.call(client.data.get_stock_bars, span("14:30", "20:00"))).data["AAPL"]
        assert [bar.timestamp.minute for bar in bars] == [30, 31, 32]
        last = bars[-1]
        assert (last.open, last.high, last.low, last.close, last.volume) == (102, 103, 101, 102, 10000)
        both_ends = (await client.call(client.data.get_stock_bars, span("14:31", "14:31"))).data["AAPL"]
        assert [bar.timestamp.minute for bar in both_ends] == [31]
        assert (await client.call(client.data.get_stock_bars, span("13:00", "14:00"))).data == {}
        split = await client.call(client.data.get_stock_bars, span("14:30", "20:00", adjustment=Adjustment.SPLIT))
        assert split.data["AAPL"] == bars


async def test_pages_go_by_symbol_and_then_by_time() -> None:
    async with conductor(CALM, script(CALM, "TSLA")) as market:
        client = Client(market)
        await market.minute(4)
        url = f"{market.market.urls['data_url']}/v2/stocks/bars"
        headers = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}
        query = {"symbols": "TSLA,AAPL", "timeframe": "1Min", "start": "2024-03-04", "limit": "3"}
        seen, token, pages = [], None, 0
        while pages == 0 or token:
            page = (
                await asyncio.to_thread(
                    requests.get, url, params=query | ({"page_token": token} if token else {}), headers=headers
                )
            ).json()
            seen += [(symbol, bar["t"][14:16]) for symbol, bars in page["bars"].items() for bar in bars]
            token, pages = page["next_page_token"], pages + 1
        assert pages == 3
        assert seen == [(symbol, minute) for symbol in ("AAPL", "TSLA") for minute in ("30", "31", "32", "33")]
        newest_first = {**query, "sort": "desc", "limit": "10000"}
        page = (await asyncio.to_thread(requests.get, url, params=newest_first, headers=headers)).json()
        assert [bar["t"][14:16] for bar in page["bars"]["AAPL"]] == ["33", "32", "31", "30"]
        both = await client.call(client.data.get_stock_bars, span("14:30", "20:00", symbols=["AAPL", "TSLA"], limit=6))
        assert {symbol: len(bars) for symbol, bars in both.data.items()} == {"AAPL": 4, "TSLA": 2}


async def test_longer_bars_are_made_of_minutes() -> None:
    async with conductor() as market:
        client = Client(market)
        await market.minute(4)
        two = TimeFrame(2, TimeFrameUnit.Minute)
        bars = (await client.call(client.data.get_stock_bars, span("14:30", "20:00", timeframe=two))).data["AAPL"]
        assert [(bar.timestamp.minute, bar.open, bar.high, bar.close) for bar in bars] == [
            (30, 100, 101, 101), (32, 102, 103, 102),
        ]  # fmt: skip
        (whole,) = (
            await client.call(client.data.get_stock_bars, span("14:30", "20:00", timeframe=TimeFrame.Day))
        ).data["AAPL"]
        assert (whole.timestamp, whole.volume) == (datetime(2024, 3, 4, 5, tzinfo=UTC), 40000)


async def test_the_latest_bar_quote_trade_and_snapshot() -> None:
    yesterday = script("90 92 89 91", day=date(2024, 3, 1))
    async with conductor(CALM, yesterday) as market:
        client = Client(market)
        data, both = client.data, ["AAPL", "GONE"]
        before = await client.call(data.get_stock_latest_bar, StockLatestBarRequest(symbol_or_symbols=both))
        assert {symbol: bar.close for symbol, bar in before.items()} == {"AAPL": 91}
        await market.minute(3)
        quote = (await client.call(data.get_stock_latest_quote, StockLatestQuoteRequest(symbol_or_symbols=both)))[
            "AAPL"
        ]
        assert (quote.bid_price, quote.ask_price) == (101.99, 102.01)
        trade = (await client.call(data.get_stock_latest_trade, StockLatestTradeRequest(symbol_or_symbols=both)))[
            "AAPL"
        ]
        assert (trade.price, trade.timestamp) == (102, datetime(2024, 3, 4, 14, 33, tzinfo=UTC))
        found = (await client.call(data.get_stock_snapshot, StockSnapshotRequest(symbol_or_symbols=both)))["AAPL"]
        assert (found.daily_bar.high, found.previous_daily_bar.close, found.minute_bar.close) == (103, 91, 102)
        position = client.conductor.market.previous_close("AAPL")
        assert position == Decimal(91)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"timeframe": "1Min"}, "symbols is required"),
        ({"symbols": "AAPL"}, "invalid timeframe: "),
        ({"symbols": "AAPL", "timeframe": "77Min"}, "invalid timeframe: 77Min"),
        ({"symbols": "AAPL", "timeframe": "1Min", "limit": "0"}, "limit must be between 1 and 10000"),
        ({"symbols": "AAPL", "timeframe": "1Min", "start": "soon"}, "invalid start: soon"),
        ({"symbols": "AAPL", "timeframe": "1Min", "page_token": "x"}, "invalid page_token"),
    ],
)
async def test_questions_that_make_no_sense(query: dict[str, str], message: str) -> None:
    async with conductor() as market:
        headers = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}
        url = f"{market.market.urls['data_url']}/v2/stocks/bars"
        answer = await asyncio.to_thread(requests.get, url, params=query, headers=headers)
        assert (answer.status_code, answer.json()) == (400, {"message": message})
