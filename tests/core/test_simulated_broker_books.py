"""The built-in broker's books under random requests, bars, sessions and restarts: they always add up."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trading.exchange import Exchange
from trading.market import Bar
from trading.simulator.account import Account
from trading.simulator.book import Book
from trading.simulator.orders import BrokerOrder, OrderClass, Status, fill_from, order_from, to_record
from trading.simulator.tickets import Refused, parse_changes, parse_ticket

CAPITAL = Decimal(20_000)
MINUTE = timedelta(minutes=1)
ACCOUNT = "00000000-0000-4000-8000-000000000002"

cents = st.integers(900, 1100).map(lambda number: str(Decimal(number) / 100))
quantities = st.integers(1, 60).map(str)
sides = st.sampled_from(["buy", "sell"])
types = st.sampled_from(["market", "limit", "stop", "stop_limit"])


class Books(RuleBasedStateMachine):
    """One symbol, one account, and whatever happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
        self.exchange = self.new_exchange()
        self.exchange.last_close["AAPL"] = Decimal(10)
        self.book = self.new_book()
        self.book.is_open = True
        self.kept_orders: dict[int, Any] = {}
        self.kept_fills: dict[int, Any] = {}

    def new_exchange(self) -> Exchange:
        return Exchange(max_volume_share=Decimal("0.1"), commission_per_share=Decimal("0.005"))

    def new_book(self) -> Book:
        account = Account(cash=CAPITAL, multiplier=2)
        return Book(
            account_id=ACCOUNT,
            account=account,
            exchange=self.exchange,
            knows=lambda symbol: symbol == "AAPL",
            day_end=self.now + timedelta(hours=6),
        )

    # --- what can happen ----------------------------------------------------------------------------------------------

    @rule(side=sides, qty=quantities, order_type=types, price=cents, tif=st.sampled_from(["day", "gtc"]))
    def submit(self, side: str, qty: str, order_type: str, price: str, tif: str) -> None:
        prices = {"limit_price": price} if "limit" in order_type else {}
        prices |= {"stop_price": price} if "stop" in order_type else {}
        self.ask({"side": side, "qty": qty, "type": order_type, "time_in_force": tif, **prices})

    @rule(side=sides, qty=quantities, kind=st.sampled_from(["bracket", "oco", "oto"]), near=st.integers(1, 50))
    def submit_group(self, side: str, qty: str, kind: str, near: int) -> None:
        is_long = (side == "buy") != (kind == "oco")
        profit, stop = (Decimal(1000 + (near if is_long == above else -near)) / 100 for above in (True, False))
        exits = {"take_profit": {"limit_price": str(profit)}, "stop_loss": {"stop_price": str(stop)}}
        if kind == "oto":
            del exits["take_profit"]
        order_type = "limit" if kind == "oco" else "market"
        self.ask({"side": side, "qty": qty, "type": order_type, "time_in_force": "gtc", "order_class": kind, **exits})

    def ask(self, fields: dict[str, Any]) -> None:
        try:
            self.book.submit(parse_ticket(json.dumps({"symbol": "AAPL", **fields}).encode()), now=self.now)
        except Refused:
            return

    @precondition(lambda self: self.book.open_orders())
    @rule(choice=st.integers(0, 20))
    def cancel(self, choice: int) -> None:
        try:
            self.book.cancel(self.one_of_the_open(choice).id, now=self.now)
        except Refused:
            return

    @precondition(lambda self: self.book.open_orders())
    @rule(choice=st.integers(0, 20), price=cents, qty=st.one_of(st.none(), quantities))
    def replace(self, choice: int, price: str, qty: str | None) -> None:
        order = self.one_of_the_open(choice)
        changes = {"qty": qty} if qty else {}
        changes |= {"limit_price": price} if order.limit_price is not None else {}
        changes |= {"stop_price": price} if order.stop_price is not None else {}
        try:
            self.book.replace(order.id, parse_changes(json.dumps(changes).encode()), now=self.now)
        except Refused:
            return

    def one_of_the_open(self, choice: int) -> BrokerOrder:
        orders = self.book.open_orders()
        return orders[choice % len(orders)]

    @rule()
    def carry_out(self) -> None:
        self.book.route(self.now)

    @precondition(lambda self: self.book.is_open)
    @rule(prices=st.tuples(cents, cents, cents, cents), volume=st.integers(0, 600), answers=st.booleans())
    def minute(self, prices: tuple[str, str, str, str], volume: int, answers: bool) -> None:
        opened, one, other, close = map(Decimal, prices)
        high, low = max(opened, one, other, close), min(opened, one, other, close)
        bar = Bar(symbol="AAPL", timestamp=self.now, open=opened, high=high, low=low, close=close, volume=volume)
        self.now += MINUTE
        for execution in self.exchange.match(bar):
            before = self.book.account.qty("AAPL")
            self.book.executed(execution, now=self.now)
            assert before * self.book.account.qty("AAPL") >= 0, "an execution turned the position round"
            if answers:
                self.book.route(self.now)

    @rule()
    def close_or_open(self) -> None:
        self.book.route(self.now)
        if self.book.is_open:
            self.now = self.book.day_end
            self.book.close_session(self.now, day_end=self.now + timedelta(days=1))
        else:
            self.now += timedelta(hours=17)
            self.book.open_session(self.now)

    @rule()
    def restart(self) -> None:
        self.keep()
        old, prices = self.book, self.exchange.last_close
        self.exchange = self.new_exchange()
        self.exchange.last_close.update(prices)
        self.book = self.new_book()
        self.book.is_open, self.book.day_end = old.is_open, old.day_end
        self.book.restore(
            [order_from(json.loads(record)) for _, record in sorted(self.kept_orders.items())],
            [fill_from(json.loads(record)) for _, record in sorted(self.kept_fills.items())],
            now=self.now,
        )
        assert self.book.orders == old.orders
        assert self.book.account.cash == old.account.cash
        assert self.book.account.positions == old.account.positions

    def keep(self) -> None:
        """What the account's file does with every change."""
        orders, fills = self.book.changes()
        self.kept_orders |= {order.number: json.dumps(to_record(order)) for order in orders}
        self.kept_fills |= {fill.number: json.dumps(to_record(fill)) for fill in fills}
        self.book.changes_kept()

    # --- what must always hold ----------------------------------------------------------------------------------------

    @invariant()
    def cash_and_shares_are_the_sum_of_the_fills(self) -> None:
        signed = [(fill.qty if fill.buys else -fill.qty, fill) for fill in self.book.fills]
        spent = sum((qty * fill.price + fill.commission for qty, fill in signed), Decimal(0))
        assert self.book.account.cash == CAPITAL - spent
        assert self.book.account.qty("AAPL") == sum((qty for qty, _ in signed), Decimal(0))

    @invariant()
    def an_orders_fills_are_its_own_and_never_too_many(self) -> None:
        for order in self.book.orders.values():
            filled = [fill.qty for fill in self.book.fills if fill.order_id == order.id]
            assert order.filled_qty == sum(filled, Decimal(0)) <= order.qty
            assert (order.status is Status.FILLED) == (order.leaves == 0)

    @invariant()
    def ids_are_unique(self) -> None:
        orders, fills = self.book.orders.values(), self.book.fills
        assert len({order.client_order_id for order in orders}) == len({order.id for order in orders}) == len(orders)
        assert len({fill.id for fill in fills}) == len(fills)
        assert [order.number for order in orders] == list(range(1, len(orders) + 1))

    @invariant()
    def what_works_at_the_exchange_is_open_here(self) -> None:
        working = {order.order_id: order.qty for order in self.exchange.working()}
        open_orders = {order.id: order for order in self.book.open_orders()}
        assert working.keys() <= open_orders.keys()
        for order_id, qty in working.items():
            assert qty == open_orders[order_id].leaves
        for order in open_orders.values():
            if order.status in (Status.NEW, Status.PARTIALLY_FILLED):
                assert order.id in working

    @invariant()
    def no_share_is_promised_twice(self) -> None:
        assert self.book.held_for_orders("AAPL") <= abs(self.book.account.qty("AAPL"))

    @invariant()
    def a_watched_stop_covers_what_its_take_profit_covers(self) -> None:
        for stop in self.book.open_orders():
            if stop.status is not Status.HELD or stop.order_class is OrderClass.OTO:
                continue
            for other in self.book.families.relatives(stop):
                if _is_working_exit(other):
                    assert other.leaves == stop.leaves


def _is_working_exit(order: BrokerOrder) -> bool:
    is_exit = order.parent_id is not None or order.order_class is OrderClass.OCO
    return is_exit and order.order_type.value == "limit" and order.status in (Status.NEW, Status.PARTIALLY_FILLED)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
