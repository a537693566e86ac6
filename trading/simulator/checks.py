"""What the broker refuses because of the account and its other orders, in Alpaca's words. Each check raises Refused."""

from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from orders.lifecycle import OrderType
from trading.market import CENT
from trading.simulator.account import ZERO, value_price
from trading.simulator.orders import BrokerOrder, OrderClass, number_text
from trading.simulator.tickets import Changes, Ticket, forbidden, invalid, malformed

if TYPE_CHECKING:
    from trading.simulator.book import Book

SMALLEST_EQUITY_FOR_SHORTS = Decimal(2000)
SMALLEST_ORDER_VALUE = Decimal(1)
EXEMPT_FROM_WASH_TRADE = (OrderClass.BRACKET, OrderClass.OCO)


def client_id(book: "Book", client_order_id: str | None) -> None:
    """A client id is used up once an order under it was accepted, whatever became of that order."""
    holder = book.by_client_id(client_order_id) if client_order_id else None
    if holder is not None:
        raise (invalid if holder.is_open else malformed)("client_order_id must be unique")


def wash_trade(book: "Book", order: BrokerOrder) -> None:
    """An opposite order of the symbol stands in the way if either is a market or stop order, or if they would cross.

    Brackets and OCO orders are exempt, the ones that come and the ones that are there.
    """
    if order.order_class in EXEMPT_FROM_WASH_TRADE:
        return
    for other in book.open_orders(order.symbol):
        is_apart = other.is_dormant or other.order_class in EXEMPT_FROM_WASH_TRADE
        if other.buys == order.buys or is_apart or other.id == order.parent_id:
            continue
        buy, sell = (order, other) if order.buys else (other, order)
        # Market and stop orders have no limit.
        if buy.limit_price is None or sell.limit_price is None or buy.limit_price >= sell.limit_price:
            raise forbidden(
                "potential wash trade detected. use complex orders",
                existing_order_id=other.id,
                reject_reason=f"opposite side {other.order_type} order exists",
            )


def group(book: "Book", ticket: Ticket, order: BrokerOrder) -> None:
    """Brackets and OTO only enter, OCO only leaves, and a stop is at least a cent beyond where its group starts."""
    if ticket.order_class is OrderClass.OCO and order.opens:
        raise invalid("oco orders must be exit orders")
    if ticket.order_class is OrderClass.BRACKET and book.account.qty(order.symbol):
        raise invalid("bracket orders must be entry orders")
    if ticket.order_class is OrderClass.OTO and not order.opens:
        raise invalid("oto orders must be entry orders")
    base = order.limit_price if order.limit_price is not None else book.prices.get(order.symbol)
    if ticket.stop_loss is None or base is None:
        return
    is_long = ticket.buys != (ticket.order_class is OrderClass.OCO)
    if is_long and ticket.stop_loss > base - CENT:
        raise invalid("stop_loss.stop_price must be <= base_price - 0.01")
    if not is_long and ticket.stop_loss < base + CENT:
        raise invalid("stop_loss.stop_price must be >= base_price + 0.01")


def means(book: "Book", order: BrokerOrder) -> None:
    """An order that closes needs shares that no other order holds, one that opens needs buying power.

    What the order it replaces holds is counted as free.
    """
    old = book.orders.get(order.replaces or "")
    if order.opens:
        _one_direction(book, order)
        _buying_power(book, order, old)
        return
    held = abs(book.account.qty(order.symbol))
    available = max(held - book.held_for_orders(order.symbol) + (old.leaves if old else ZERO), ZERO)
    if order.qty > available:
        asked, free = number_text(order.qty), number_text(available)
        raise forbidden(
            f"insufficient qty available for order (requested: {asked}, available: {free})",
            available=free or "0",
            existing_qty=number_text(held) or "0",
            held_for_orders=number_text(held - available) or "0",
            symbol=order.symbol,
        )


def changes(old: BrokerOrder, wanted: Changes) -> None:
    """A replacement changes something, and only what its type of order has."""
    if old.order_type is OrderType.MARKET:
        raise invalid("market orders cannot be replaced")
    if wanted.limit_price is not None and old.limit_price is None:
        raise malformed(f"{old.order_type} orders must not have limit_price")
    if wanted.stop_price is not None and old.stop_price is None:
        raise malformed(f"{old.order_type} orders must not have stop_price")
    if wanted.qty is not None and (old.parent_id is not None or old.order_class is OrderClass.OCO):
        raise invalid("qty of one exit of a group cannot be replaced")
    asked = (wanted.qty, wanted.limit_price, wanted.stop_price, wanted.time_in_force, wanted.client_order_id)
    if all(value is None for value in asked):
        raise malformed("at least one field must be changed")


def _one_direction(book: "Book", order: BrokerOrder) -> None:
    """Orders that open a long and a short position could turn one into the other."""
    if any(other.opens and other.buys != order.buys for other in book.open_orders(order.symbol)):
        ours, theirs = ("long buy", "short sell") if order.buys else ("short sell", "long buy")
        raise forbidden(f"cannot open a {ours} while a {theirs} order is open")


def _buying_power(book: "Book", order: BrokerOrder, old: BrokerOrder | None) -> None:
    price = value_price(order, book.prices)
    if not price:
        raise forbidden(f"no available quote for {order.symbol}")
    cost = order.qty * price
    if order.buys and cost < SMALLEST_ORDER_VALUE:
        raise invalid("cost basis must be >= minimal amount of order 1")
    if not order.buys:
        _short_sale(book, order)
    power = book.buying_power() + (old.leaves * value_price(old, book.prices) if old else ZERO)
    if cost > power:
        raise forbidden(
            "insufficient buying power",
            buying_power=number_text(power.quantize(CENT, rounding=ROUND_DOWN)) or "0",
            cost_basis=number_text(cost) or "0",
        )


def _short_sale(book: "Book", order: BrokerOrder) -> None:
    if book.restrictions.no_shorting or book.account.equity(book.prices) < SMALLEST_EQUITY_FOR_SHORTS:
        raise forbidden("account is not allowed to short")
    if order.qty != order.qty.to_integral_value():
        raise invalid("fractional orders cannot be sold short")
