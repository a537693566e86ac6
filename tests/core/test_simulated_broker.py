"""The built-in broker's rules for orders, in Alpaca's words: what it refuses, holds back, replaces, groups and ends."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from trading.exchange import Exchange
from trading.market import Bar
from trading.simulator.account import Account
from trading.simulator.book import Book, Restrictions
from trading.simulator.orders import BrokerOrder, Fill, Status, fill_from, order_from, to_record
from trading.simulator.tickets import Refused, parse_changes, parse_ticket

OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
CLOSE = datetime(2024, 3, 4, 21, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ACCOUNT = "00000000-0000-4000-8000-000000000001"


class Desk:
    """A book, its exchange and a clock, spoken to in requests' own fields."""

    def __init__(
        self, *, cash: str = "10000", multiplier: int = 1, share: str | None = None, is_open: bool = True
    ) -> None:
        self.exchange = Exchange(slippage_per_share=Decimal(0), max_volume_share=Decimal(share) if share else None)
        self.account = Account(cash=Decimal(cash), multiplier=multiplier)
        self.book = self.new_book(self.account)
        self.book.is_open = is_open
        self.now = OPEN
        self.minute("100")

    def new_book(self, account: Account) -> Book:
        return Book(
            account_id=ACCOUNT,
            account=account,
            exchange=self.exchange,
            knows=lambda symbol: symbol in ("AAPL", "TSLA"),
            day_end=CLOSE,
        )

    def submit(self, words: str, **more: Any) -> BrokerOrder:
        """`buy 5 AAPL limit limit_price=99 tif=gtc`, carried out at once."""
        order = self.book.submit(parse_ticket(_body(words, more)), now=self.now)
        self.route()
        return order

    def replace(self, order: BrokerOrder, **changes: Any) -> BrokerOrder:
        new = self.book.replace(order.id, parse_changes(json.dumps(changes).encode()), now=self.now)
        self.route()
        return new

    def cancel(self, order: BrokerOrder) -> None:
        self.book.cancel(order.id, now=self.now)
        self.route()

    def route(self) -> None:
        self.book.route(self.now)

    def minute(self, prices: str, *, volume: int = 1000, symbol: str = "AAPL") -> None:
        words = [Decimal(word) for word in prices.split()]
        opened, high, low, close = words * 4 if len(words) == 1 else words
        bar = Bar(symbol=symbol, timestamp=self.now, open=opened, high=high, low=low, close=close, volume=volume)
        self.now += MINUTE
        for execution in self.exchange.match(bar):
            self.book.executed(execution, now=self.now)
            self.route()

    def events(self) -> list[str]:
        """What the stream would say: event, side and type of the order."""
        return [f"{update.event} {update.order['side']} {update.order['type']}" for update in self.book.take_updates()]

    def refusal(self, words: str, **more: Any) -> tuple[int, int, str]:
        with pytest.raises(Refused) as caught:
            self.submit(words, **more)
        return caught.value.status, caught.value.code, caught.value.message

    def held(self) -> dict[str, Decimal]:
        return {symbol: position.qty for symbol, position in self.account.positions.items()}


def _body(words: str, more: dict[str, Any]) -> bytes:
    side, qty, symbol, order_type, *rest = words.split()
    fields = dict(pair.split("=") for pair in rest)
    fields["time_in_force"] = fields.pop("tif", "day")
    return json.dumps({"side": side, "qty": qty, "symbol": symbol, "type": order_type, **fields, **more}).encode()


def told(*values: object) -> str:
    """Values as one line of text."""
    return " ".join(map(str, values))


BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "95"}}


class TestLife:
    def test_an_order_is_answered_first_and_works_afterwards(self) -> None:
        desk = Desk()
        order = desk.book.submit(parse_ticket(_body("buy 5 AAPL limit limit_price=99", {})), now=desk.now)
        assert order.status is Status.PENDING_NEW
        assert desk.events() == []
        desk.route()
        assert (order.status, desk.events()) == (Status.NEW, ["new buy limit"])

    def test_a_market_order_fills_at_the_last_price_at_once(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL market")
        assert (order.status, order.filled_value, desk.held()) == (Status.FILLED, Decimal(500), {"AAPL": Decimal(5)})
        assert desk.events() == ["new buy market", "fill buy market"]

    def test_outside_the_session_an_order_is_accepted_and_starts_at_the_open(self) -> None:
        desk = Desk(is_open=False)
        order = desk.submit("buy 5 AAPL market")
        assert (order.status, desk.events()) == (Status.ACCEPTED, ["accepted buy market"])
        desk.book.open_session(desk.now)
        assert (order.status, desk.events()) == (Status.NEW, ["new buy market"])
        desk.minute("105 106 104 105")
        assert order.filled_value == Decimal(525)

    def test_a_day_order_expires_at_the_close_and_a_gtc_order_stays(self) -> None:
        desk = Desk()
        day, gtc = (
            desk.submit("buy 5 AAPL limit limit_price=99"),
            desk.submit("buy 5 AAPL limit limit_price=98 tif=gtc"),
        )
        desk.events()
        desk.book.close_session(CLOSE, day_end=CLOSE + timedelta(days=1))
        assert (day.status, day.expired_at, gtc.status) == (Status.EXPIRED, CLOSE, Status.NEW)
        assert desk.events() == ["expired buy limit"]
        desk.now = CLOSE + timedelta(hours=18)
        desk.minute("97")
        assert (day.filled_qty, gtc.filled_qty) == (Decimal(0), Decimal(5))

    def test_a_gtc_order_ends_after_90_days(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=90 tif=gtc")
        desk.book.close_session(CLOSE + timedelta(days=89), day_end=CLOSE + timedelta(days=90))
        assert order.is_open
        desk.book.close_session(CLOSE + timedelta(days=90), day_end=CLOSE + timedelta(days=91))
        assert order.status is Status.EXPIRED

    def test_partial_fills_are_told_one_by_one(self) -> None:
        desk = Desk(share="0.1")
        order = desk.submit("buy 25 AAPL stop stop_price=101")
        desk.minute("100 102 100 102", volume=100)
        assert (order.status, order.filled_qty) == (Status.PARTIALLY_FILLED, Decimal(10))
        desk.minute("103", volume=500)
        assert (order.status, order.filled_value) == (Status.FILLED, 10 * Decimal(101) + 15 * Decimal(103))
        assert desk.events() == ["new buy stop", "partial_fill buy stop", "fill buy stop"]
        assert [(fill.qty, fill.cum_qty, fill.leaves, fill.position_qty) for fill in desk.book.fills] == [
            (Decimal(10), Decimal(10), Decimal(15), Decimal(10)),
            (Decimal(15), Decimal(25), Decimal(0), Decimal(25)),
        ]


class TestCancelling:
    def test_it_is_under_way_before_it_is_done(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99")
        desk.book.cancel(order.id, now=desk.now)
        assert (order.status, order.is_open) == (Status.PENDING_CANCEL, True)
        desk.route()
        assert (order.status, desk.events()) == (Status.CANCELED, ["new buy limit", "canceled buy limit"])
        desk.cancel(order)  # once more changes nothing

    def test_an_execution_may_come_first(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99")
        desk.book.cancel(order.id, now=desk.now)
        desk.now += MINUTE
        for execution in desk.exchange.match(
            Bar(
                symbol="AAPL",
                timestamp=desk.now,
                open=Decimal(99),
                high=Decimal(99),
                low=Decimal(99),
                close=Decimal(99),
                volume=9,
            )
        ):
            desk.book.executed(execution, now=desk.now)
        desk.route()
        assert (order.status, order.canceled_at) == (Status.FILLED, None)

    def test_what_is_over_cannot_be_cancelled(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL market")
        with pytest.raises(Refused, match='order is already in "filled" state') as caught:
            desk.cancel(order)
        assert (caught.value.status, caught.value.code) == (422, 42210000)

    def test_an_order_nobody_knows(self) -> None:
        with pytest.raises(Refused, match="order not found for nowhere") as caught:
            Desk().book.cancel("nowhere", now=OPEN)
        assert (caught.value.status, caught.value.code) == (404, 40410000)


class TestReplacing:
    def test_the_new_order_takes_the_place_of_the_old_one(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        old = desk.submit("sell 5 AAPL stop stop_price=95 tif=gtc")
        desk.events()
        new = desk.replace(old, stop_price="98", client_order_id="moved")
        assert (old.status, old.replaced_by, new.replaces) == (Status.REPLACED, new.id, old.id)
        assert told(new.status, new.stop_price, new.qty, new.client_order_id) == "new 98 5 moved"
        assert desk.events() == ["replaced sell stop", "new sell stop"]
        desk.minute("99 99 97 97")
        assert told(new.status, old.filled_qty) == "filled 0"

    def test_the_old_price_stays_until_the_replacement_is_carried_out(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        old = desk.submit("sell 5 AAPL stop stop_price=95")
        new = desk.book.replace(old.id, parse_changes(b'{"stop_price": "98"}'), now=desk.now)
        assert (old.status, new.status) == (Status.PENDING_REPLACE, Status.PENDING_NEW)
        bar = Bar(
            symbol="AAPL",
            timestamp=desk.now,
            open=Decimal(94),
            high=Decimal(94),
            low=Decimal(94),
            close=Decimal(94),
            volume=9,
        )
        for execution in desk.exchange.match(bar):
            desk.book.executed(execution, now=desk.now)
        desk.route()
        assert (old.status, new.status) == (Status.FILLED, Status.REJECTED)
        assert desk.events()[-2:] == ["fill sell stop", "rejected sell stop"]
        assert desk.held() == {}

    @pytest.mark.parametrize("status", ["accepted", "pending_new", "pending_cancel", "pending_replace"])
    def test_an_order_on_its_way_cannot_be_replaced(self, status: str) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99")
        order.status = Status(status)
        with pytest.raises(Refused, match=f"cannot replace order in {status} status"):
            desk.replace(order, limit_price="98")

    def test_an_order_that_is_over_cannot_be_replaced(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99")
        desk.cancel(order)
        with pytest.raises(Refused, match="order is not open"):
            desk.replace(order, limit_price="98")

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"stop_price": "98"}, "limit orders must not have stop_price"),
            ({}, "at least one field must be changed"),
            ({"qty": "1.5"}, "qty must be a whole number"),
            ({"limit_price": "98.001"}, "sub-penny increment"),
            ({"qty": "500"}, "insufficient buying power"),
            ({"limit_price": "3000"}, "insufficient buying power"),
            ({"trail": "1"}, "only trailing stop orders have a trail"),
        ],
    )
    def test_changes_that_cannot_be(self, changes: dict[str, str], complaint: str) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99")
        with pytest.raises(Refused, match=complaint):
            desk.replace(order, **changes)
        assert order.status is Status.NEW

    def test_the_rest_of_a_partly_filled_order_is_replaced(self) -> None:
        desk = Desk(share="0.1")
        order = desk.submit("buy 25 AAPL limit limit_price=99")
        desk.minute("99", volume=100)
        new = desk.replace(order, limit_price="98")
        assert told(order.status, order.filled_qty, new.qty) == "replaced 10 15"


class TestClientIds:
    def test_an_id_is_used_up_for_good_once_accepted(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL limit limit_price=99", client_order_id="mine")
        assert desk.refusal("buy 5 AAPL market", client_order_id="mine") == (
            422,
            42210000,
            "client_order_id must be unique",
        )
        desk.cancel(order)
        assert desk.refusal("buy 5 AAPL market", client_order_id="mine") == (
            422,
            40010001,
            "client_order_id must be unique",
        )

    def test_a_refused_order_leaves_no_row_and_frees_its_id(self) -> None:
        desk = Desk()
        desk.refusal("buy 5000 AAPL market", client_order_id="mine")
        assert desk.book.orders == {}
        assert desk.submit("buy 5 AAPL market", client_order_id="mine").filled_qty == 5

    def test_two_like_orders_under_two_ids_are_two_orders(self) -> None:
        desk = Desk()
        one, two = (desk.submit("buy 5 AAPL limit limit_price=99", client_order_id=name) for name in "ab")
        assert one.id != two.id

    def test_it_has_at_most_128_characters(self) -> None:
        assert Desk().refusal("buy 5 AAPL market", client_order_id="x" * 129)[:2] == (422, 40010001)


class TestMeans:
    def test_working_buys_reserve_what_they_would_cost(self) -> None:
        desk = Desk(cash="1000")
        desk.submit("buy 5 AAPL stop stop_price=120")
        assert desk.book.buying_power() == Decimal(400)
        status, code, message = desk.refusal("buy 5 AAPL limit limit_price=81")
        assert (status, code, message) == (403, 40310000, "insufficient buying power")
        order = desk.submit("buy 5 AAPL limit limit_price=80")
        desk.cancel(order)
        assert desk.book.buying_power() == Decimal(400)

    def test_a_market_buy_is_checked_at_the_last_price(self) -> None:
        desk = Desk(cash="1000")
        assert desk.refusal("buy 11 AAPL market")[2] == "insufficient buying power"
        desk.submit("buy 10 AAPL market")
        assert desk.book.buying_power() == 0

    def test_with_margin_twice_the_equity_can_be_bought(self) -> None:
        desk = Desk(cash="1000", multiplier=2)
        assert desk.refusal("buy 21 AAPL market")[2] == "insufficient buying power"
        desk.submit("buy 20 AAPL market")
        assert (desk.account.cash, desk.book.buying_power()) == (Decimal(-1000), Decimal(0))

    def test_without_margin_buying_power_is_the_cash_and_a_short_sale_brings_cash_in(self) -> None:
        desk = Desk(cash="5000")
        desk.submit("sell 20 AAPL market")
        assert (desk.held(), desk.account.cash) == ({"AAPL": Decimal(-20)}, Decimal(7000))
        assert desk.book.buying_power() == Decimal(7000)
        desk.submit("buy 20 AAPL market")
        assert (desk.held(), desk.account.cash) == ({}, Decimal(5000))

    def test_with_margin_a_short_takes_buying_power_as_a_long_does(self) -> None:
        desk = Desk(cash="5000", multiplier=2)
        desk.submit("sell 20 AAPL market")
        assert desk.book.buying_power() == Decimal(8000)

    def test_shares_promised_to_one_order_are_not_there_for_another(self) -> None:
        desk = Desk()
        desk.submit("buy 10 AAPL market")
        desk.submit("sell 8 AAPL stop stop_price=95")
        with pytest.raises(Refused) as caught:
            desk.submit("sell 3 AAPL market")
        assert caught.value.message == "insufficient qty available for order (requested: 3, available: 2)"
        assert caught.value.more == {"available": "2", "existing_qty": "10", "held_for_orders": "8", "symbol": "AAPL"}

    def test_no_order_turns_a_position_round(self) -> None:
        desk = Desk()
        desk.submit("buy 10 AAPL market")
        assert "insufficient qty available" in desk.refusal("sell 11 AAPL market")[2]
        desk.submit("sell 10 AAPL market")
        desk.submit("sell 10 AAPL market")
        assert "insufficient qty available" in desk.refusal("buy 11 AAPL market")[2]

    def test_shares_under_a_cancellation_are_held_until_it_is_done(self) -> None:
        desk = Desk()
        desk.submit("buy 10 AAPL market")
        stop = desk.submit("sell 10 AAPL stop stop_price=95")
        desk.book.cancel(stop.id, now=desk.now)
        assert "insufficient qty available" in desk.refusal("sell 10 AAPL market")[2]
        desk.route()
        desk.submit("sell 10 AAPL market")
        assert desk.held() == {}

    def test_no_shorts_with_little_equity_or_against_the_owners_will(self) -> None:
        assert Desk(cash="1999").refusal("sell 1 AAPL market")[2] == "account is not allowed to short"
        desk = Desk()
        desk.book.restrictions = Restrictions(no_shorting=True)
        assert desk.refusal("sell 1 AAPL market")[2] == "account is not allowed to short"

    def test_a_suspended_account_takes_no_orders(self) -> None:
        desk = Desk()
        desk.book.restrictions = Restrictions(suspend_trade=True)
        assert desk.refusal("buy 1 AAPL market") == (403, 40310000, "new orders are rejected by user request")

    def test_a_symbol_without_any_price_cannot_be_bought_at_market(self) -> None:
        assert Desk().refusal("buy 1 TSLA market") == (403, 40310000, "no available quote for TSLA")

    def test_moving_a_stop_needs_no_further_shares(self) -> None:
        desk = Desk(cash="1000")
        desk.submit("buy 10 AAPL market")
        stop = desk.submit("sell 10 AAPL stop stop_price=95")
        assert desk.replace(stop, stop_price="96").status is Status.NEW


class TestWashTrades:
    @pytest.mark.parametrize(
        ("resting", "coming", "is_refused"),
        [
            ("buy 5 AAPL stop stop_price=110", "sell 5 AAPL limit limit_price=150", True),
            ("buy 5 AAPL limit limit_price=90", "sell 5 AAPL market", True),
            ("buy 5 AAPL limit limit_price=90", "sell 5 AAPL stop stop_price=80", True),
            ("buy 5 AAPL limit limit_price=90", "sell 5 AAPL limit limit_price=90", True),
            ("buy 5 AAPL limit limit_price=90", "sell 2 AAPL limit limit_price=90.01", False),
            ("buy 5 AAPL limit limit_price=90", "sell 2 AAPL stop_limit stop_price=95 limit_price=94", False),
            ("buy 5 AAPL limit limit_price=90", "buy 5 AAPL market", False),
        ],
    )
    def test_opposite_orders_that_could_meet_are_refused(self, resting: str, coming: str, is_refused: bool) -> None:
        desk = Desk()
        desk.submit("buy 2 AAPL market")
        order = desk.submit(resting)
        if not is_refused:
            assert desk.submit(coming).symbol == "AAPL"
            return
        with pytest.raises(Refused) as caught:
            desk.submit(coming)
        assert (caught.value.status, caught.value.code) == (403, 40310000)
        assert caught.value.message == "potential wash trade detected. use complex orders"
        assert caught.value.more["existing_order_id"] == order.id

    def test_a_protective_stop_keeps_new_buys_away_until_it_is_gone(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        stop = desk.submit("sell 5 AAPL stop stop_price=95")
        assert "wash trade" in desk.refusal("buy 5 AAPL limit limit_price=90")[2]
        desk.book.cancel(stop.id, now=desk.now)
        assert "wash trade" in desk.refusal("buy 5 AAPL limit limit_price=90")[2]
        desk.route()
        desk.submit("buy 5 AAPL limit limit_price=90")

    def test_brackets_are_exempt(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market", **BRACKET)
        assert desk.submit("buy 5 AAPL limit limit_price=112").status is Status.NEW

    def test_no_short_is_opened_while_a_long_may_be_and_the_other_way_round(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL limit limit_price=90")
        assert desk.refusal("sell 5 AAPL limit limit_price=110") == (
            403, 40310000, "cannot open a short sell while a long buy order is open",
        )  # fmt: skip
        desk.cancel(desk.book.open_orders()[0])
        desk.submit("sell 5 AAPL limit limit_price=110")
        assert desk.refusal("buy 5 AAPL limit limit_price=90")[2] == (
            "cannot open a long buy while a short sell order is open"
        )


class TestTickets:
    @pytest.mark.parametrize(
        ("words", "more", "code", "message"),
        [
            ("buy 5 AAPL limit limit_price=290.123", {}, 42210000, "invalid limit_price 290.123. sub-penny increment"),
            ("buy 5 AAPL stop stop_price=0.12345", {}, 42210000, "invalid stop_price 0.12345. sub-penny increment"),
            ("buy 5 AAPL market limit_price=99", {}, 42210000, "market orders require no stop or limit price"),
            ("buy 5 AAPL limit", {}, 40010001, "limit orders require a limit_price"),
            ("buy 5 AAPL limit limit_price=1 stop_price=1", {}, 40010001, "limit orders must not have stop_price"),
            ("buy 5 AAPL stop", {}, 40010001, "stop orders require a stop_price"),
            ("buy 5 AAPL stop_limit stop_price=9", {}, 40010001, "stop limit orders require both"),
            ("buy 5 AAPL trailing_stop", {}, 42210000, "this market takes no trailing stop orders"),
            ("buy 5 AAPL market tif=ioc", {}, 42210000, "time_in_force ioc is not enabled"),
            ("buy 5 AAPL market tif=never", {}, 40010001, "invalid time_in_force"),
            ("buy 0 AAPL market", {}, 40010001, "qty must be > 0"),
            ("buy x AAPL market", {}, 40010001, "invalid qty"),
            ("buy 1e40 AAPL market", {}, 40010001, "invalid qty"),
            ("buy 1 AAPL limit limit_price=1e-40", {}, 42210000, "invalid limit_price 0.0000"),
            ("hold 5 AAPL market", {}, 40010001, "side must be buy or sell"),
            ("buy 5 GONE market", {}, 42210000, 'asset "GONE" not found'),
            ("buy 0.5 AAPL market tif=gtc", {}, 42210000, "fractional orders must be DAY orders"),
            ("buy 0.5 AAPL market", BRACKET, 42210000, "fractional orders must be simple orders"),
            ("sell 0.5 AAPL market", {}, 42210000, "fractional orders cannot be sold short"),
            ("buy 0.001 AAPL market", {}, 42210000, "cost basis must be >= minimal amount of order 1"),
            ("buy 5 AAPL market", {"notional": "5"}, 40010001, "only one of qty or notional"),
            ("buy 5 AAPL market", {"qty": None}, 40010001, "qty or notional is required"),
            ("buy 5 AAPL market", {"extended_hours": True}, 42210000, "extended hours order must be DAY limit orders"),
            ("buy 5 AAPL stop stop_price=101", BRACKET, 40010001, "bracket orders must be market or limit orders"),
            ("buy 5 AAPL market", BRACKET | {"take_profit": None}, 40010001, "bracket orders require take_profit"),
            ("buy 5 AAPL market", BRACKET | {"stop_loss": {}}, 40010001, "bracket orders require stop_loss"),
            ("sell 5 AAPL market", BRACKET, 42210000, "take_profit.limit_price must be < stop_loss.stop_price"),
            ("buy 5 AAPL limit limit_price=95", BRACKET, 42210000, "stop_loss.stop_price must be <= base_price - 0.01"),
            ("buy 5 AAPL market", {"stop_loss": {"stop_price": "9"}}, 40010001, "take_profit and stop_loss need"),
            ("buy 5 AAPL market", BRACKET | {"order_class": "oto"}, 40010001, "oto orders require exactly one"),
            ("sell 5 AAPL limit", BRACKET | {"order_class": "oco"}, 42210000, "oco orders must be exit orders"),
            ("sell 5 AAPL market", BRACKET | {"order_class": "oco"}, 40010001, "oco orders must be limit orders"),
            ("buy 5 AAPL market", {"order_class": "mleg"}, 40010001, "invalid order_class"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_422(
        self, words: str, more: dict[str, Any], code: int, message: str
    ) -> None:
        status, got, told = Desk().refusal(words, **more)
        assert (status, got) == (422, code)
        assert told.startswith(message)

    def test_a_float_that_is_no_price_is_seen(self) -> None:
        assert "0.30000000000000004" in Desk().refusal("buy 50 AAPL limit", limit_price=0.1 + 0.2)[2]

    def test_below_a_dollar_four_decimals_are_a_price(self) -> None:
        assert Desk().submit("buy 50 AAPL limit", limit_price=0.1234).limit_price == Decimal("0.1234")

    @pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"qty": NaN}'])
    def test_a_body_that_is_no_object_is_a_bad_request(self, body: bytes) -> None:
        with pytest.raises(Refused) as caught:
            parse_ticket(body)
        assert caught.value.status == 400

    def test_an_amount_of_dollars_buys_a_fraction(self) -> None:
        desk = Desk()
        order = desk.submit("buy 5 AAPL market", qty=None, notional="250")
        assert (order.filled_qty, desk.book.to_json(order)["qty"]) == (Decimal("2.5"), None)


class TestGroups:
    def test_the_legs_of_a_bracket_wait_for_the_whole_entry(self) -> None:
        desk = Desk(share="0.1")
        entry = desk.submit("buy 15 AAPL limit limit_price=99", **BRACKET)
        profit, stop = desk.book.families.legs(entry)
        assert [leg.status for leg in (profit, stop)] == [Status.HELD, Status.HELD]
        desk.minute("99", volume=100)
        assert told(entry.filled_qty, profit.status) == "10 held"
        desk.minute("99", volume=100)
        assert (entry.status, profit.status, stop.status) == (Status.FILLED, Status.NEW, Status.HELD)
        assert desk.events()[-2:] == ["fill buy limit", "new sell limit"]

    def test_when_the_stop_triggers_the_take_profit_is_cancelled(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL market", **BRACKET)
        profit, stop = desk.book.families.legs(entry)
        desk.events()
        desk.minute("96 96 94 94")
        assert (profit.status, stop.status, desk.held()) == (Status.CANCELED, Status.FILLED, {})
        assert desk.events() == ["canceled sell limit", "new sell stop", "fill sell stop"]

    def test_when_the_take_profit_fills_the_stop_is_cancelled_in_silence(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL market", **BRACKET)
        profit, stop = desk.book.families.legs(entry)
        desk.events()
        desk.minute("109 111 109 110")
        assert (profit.status, stop.status) == (Status.FILLED, Status.CANCELED)
        assert desk.events() == ["fill sell limit"]
        desk.minute("90")
        assert told(stop.filled_qty, desk.held()) == "0 {}"

    def test_a_partly_filled_take_profit_leaves_the_stop_for_the_rest(self) -> None:
        desk = Desk(share="0.1")
        desk.minute("100", volume=1000)
        entry = desk.submit("buy 15 AAPL market", **BRACKET)
        profit, stop = desk.book.families.legs(entry)
        desk.minute("110", volume=100)
        assert told(profit.status, profit.filled_qty, stop.qty) == "partially_filled 10 5"
        desk.minute("94", volume=1000)
        assert told(stop.status, stop.filled_qty, desk.held()) == "filled 5 {}"

    def test_cancelling_one_ends_the_group_and_sells_nothing(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL market", **BRACKET)
        profit, stop = desk.book.families.legs(entry)
        desk.cancel(profit)
        assert (profit.status, stop.status, desk.held()) == (Status.CANCELED, Status.CANCELED, {"AAPL": Decimal(5)})

    def test_cancelling_a_partly_filled_entry_leaves_its_shares_unprotected(self) -> None:
        desk = Desk(share="0.1")
        entry = desk.submit("buy 15 AAPL limit limit_price=99", **BRACKET)
        desk.minute("99", volume=100)
        desk.cancel(entry)
        assert [order.status for order in desk.book.orders.values()] == [Status.CANCELED] * 3
        assert desk.held() == {"AAPL": Decimal(10)}

    def test_a_bracket_only_enters(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        assert desk.refusal("buy 5 AAPL market", **BRACKET)[2] == "bracket orders must be entry orders"

    def test_a_held_stop_can_be_moved(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL market", **BRACKET)
        _, stop = desk.book.families.legs(entry)
        moved = desk.replace(stop, stop_price="98")
        assert (stop.status, moved.status) == (Status.REPLACED, Status.HELD)
        assert [leg.id for leg in desk.book.families.legs(entry)][1] == moved.id
        desk.minute("99 99 97 97")
        assert (moved.status, desk.held()) == (Status.FILLED, {})
        assert [order.status for order in desk.book.open_orders()] == []

    def test_a_replaced_entry_keeps_its_legs(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL limit limit_price=99", **BRACKET)
        moved = desk.replace(entry, limit_price="98", qty="4")
        desk.minute("98")
        assert moved.status is Status.FILLED
        assert [told(leg.status, leg.qty) for leg in desk.book.families.legs(moved)] == ["new 4", "held 4"]

    def test_the_exits_of_an_oco_share_the_shares(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        profit = desk.submit("sell 5 AAPL limit tif=gtc", **BRACKET | {"order_class": "oco"})
        (stop,) = desk.book.families.legs(profit)
        assert told(profit.limit_price, stop.stop_price, desk.book.held_for_orders("AAPL")) == "110 95 5"
        desk.minute("94")
        assert (profit.status, stop.status, desk.held()) == (Status.CANCELED, Status.FILLED, {})

    def test_a_filled_take_profit_of_an_oco_ends_its_stop(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        profit = desk.submit("sell 5 AAPL limit tif=gtc", **BRACKET | {"order_class": "oco"})
        desk.minute("111")
        assert [order.status for order in (profit, *desk.book.families.legs(profit))] == [
            Status.FILLED,
            Status.CANCELED,
        ]

    def test_the_leg_of_an_oto_starts_with_its_parents_fill(self) -> None:
        desk = Desk()
        entry = desk.submit("buy 5 AAPL limit limit_price=99", order_class="oto", stop_loss={"stop_price": "95"})
        (stop,) = desk.book.families.legs(entry)
        assert told(stop.status) == "held"
        desk.minute("99")
        assert told(stop.status) == "new"
        desk.minute("94")
        assert (stop.status, desk.held()) == (Status.FILLED, {})

    def test_an_oto_only_enters(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        exits = {"order_class": "oto", "stop_loss": {"stop_price": "105"}}
        assert desk.refusal("sell 5 AAPL market", **exits)[2] == "oto orders must be entry orders"

    def test_one_exit_of_a_group_keeps_its_quantity(self) -> None:
        desk = Desk()
        profit, stop = desk.book.families.legs(desk.submit("buy 5 AAPL market", **BRACKET))
        for leg in (profit, stop):
            with pytest.raises(Refused, match="qty of one exit of a group cannot be replaced"):
                desk.replace(leg, qty="3")

    def test_exits_never_cover_more_than_is_held(self) -> None:
        desk = Desk(share="0.1")
        entry = desk.submit("buy 15 AAPL limit limit_price=99", **BRACKET)
        desk.minute("99", volume=100)
        desk.submit("sell 4 AAPL limit limit_price=100")
        desk.minute("99", volume=100)
        assert [told(leg.status, leg.qty) for leg in desk.book.families.legs(entry)] == ["new 11", "held 11"]

    def test_a_short_bracket_is_mirrored(self) -> None:
        desk = Desk()
        exits = {"take_profit": {"limit_price": "90"}, "stop_loss": {"stop_price": "105"}}
        entry = desk.submit("sell 5 AAPL market", order_class="bracket", **exits)
        profit, stop = desk.book.families.legs(entry)
        desk.minute("106")
        assert (profit.status, stop.status, desk.held()) == (Status.CANCELED, Status.FILLED, {})

    def test_a_day_bracket_dies_at_the_close(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market", **BRACKET)
        desk.book.close_session(CLOSE, day_end=CLOSE + timedelta(days=1))
        assert [order.status for order in desk.book.orders.values()] == [Status.FILLED, Status.EXPIRED, Status.EXPIRED]


class TestAccount:
    def test_last_equity_is_that_of_the_close(self) -> None:
        desk = Desk(cash="1000")
        desk.submit("buy 5 AAPL market")
        desk.minute("110")
        assert desk.account.last_equity == Decimal(1000)
        desk.book.close_session(CLOSE, day_end=CLOSE + timedelta(days=1))
        assert desk.account.last_equity == Decimal(1050)

    def test_the_average_price_is_what_the_open_shares_cost(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        desk.minute("110")
        desk.submit("buy 5 AAPL market")
        assert desk.account.positions["AAPL"].avg_entry_price == Decimal(105)
        desk.submit("sell 6 AAPL market")
        assert desk.account.positions["AAPL"].avg_entry_price == Decimal(105)

    def test_commission_is_paid_from_cash(self) -> None:
        desk = Desk()
        desk.exchange._commission = Decimal("0.01")
        desk.submit("buy 5 AAPL market")
        assert desk.account.cash == Decimal("9499.95")


class TestRestoring:
    def restored(self, desk: Desk) -> tuple[Book, Account]:
        """The book as it would be after a restart, from what the file keeps."""
        orders, fills = desk.book.changes()
        kept_orders: list[BrokerOrder] = [order_from(json.loads(json.dumps(to_record(order)))) for order in orders]
        kept_fills: list[Fill] = [fill_from(json.loads(json.dumps(to_record(fill)))) for fill in fills]
        prices = desk.exchange.last_close
        desk.exchange = Exchange(slippage_per_share=Decimal(0))
        desk.exchange.last_close.update(prices)
        account = Account(cash=Decimal(10000), multiplier=1)
        book = desk.new_book(account)
        book.is_open = True
        book.restore(kept_orders, kept_fills, now=desk.now)
        book.route(desk.now)
        return book, account

    def test_orders_positions_cash_and_ids_are_as_they_were(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market", client_order_id="entry")
        stop = desk.submit("sell 5 AAPL stop stop_price=95 tif=gtc", client_order_id="stop")
        cash = desk.account.cash
        desk.book, desk.account = self.restored(desk)
        assert (desk.account.cash, desk.held()) == (cash, {"AAPL": Decimal(5)})
        assert desk.book.orders[stop.id] == stop
        assert desk.refusal("buy 1 AAPL market", client_order_id="entry")[2] == "client_order_id must be unique"
        desk.minute("94")
        assert desk.held() == {}
        new = desk.submit("buy 1 AAPL market")
        assert new.id not in (stop.id, desk.book.fills[0].order_id)

    def test_what_was_under_way_is_carried_out(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market")
        stop = desk.submit("sell 5 AAPL stop stop_price=95 tif=gtc")
        entry = desk.submit("buy 5 TSLA limit limit_price=10")
        desk.book.replace(stop.id, parse_changes(b'{"stop_price": "98"}'), now=desk.now)
        desk.book.cancel(entry.id, now=desk.now)
        fresh = desk.book.submit(parse_ticket(_body("buy 5 TSLA limit limit_price=11", {})), now=desk.now)
        desk.book, desk.account = self.restored(desk)
        assert desk.book.orders[entry.id].status is Status.CANCELED
        assert desk.book.orders[fresh.id].status is Status.NEW
        assert desk.book.orders[stop.id].status is Status.REPLACED
        desk.minute("97.5")
        assert desk.held() == {}

    def test_a_groups_watched_stop_is_watched_again(self) -> None:
        desk = Desk()
        desk.submit("buy 5 AAPL market", **BRACKET)
        desk.book, desk.account = self.restored(desk)
        desk.minute("94")
        assert desk.held() == {}
        assert desk.book.open_orders() == []
