"""Orders and money in the words of the activity feed."""

from decimal import Decimal

from orders.events import Filled
from orders.lifecycle import Order
from orders.portfolio import Trade


def in_words(order: Order) -> str:
    """What an order is, in a few words."""
    kind = f"{order.role.replace('_', ' ')} {order.order_type}"
    price = f" at {dollars(order.stop_price)}" if order.stop_price is not None else ""
    return f"{order.symbol} {kind} {'buy' if order.buys else 'sell'} {order.qty_requested}{price}"


def fill_in_words(order: Order, fill: Filled) -> str:
    """One execution of an order, which is as it stands after it."""
    done = f"{fill.qty} of {order.qty_requested}" if order.qty_left else str(fill.qty)
    return f"{'bought' if order.buys else 'sold'} {done} {order.symbol} at {dollars(fill.price)}"


def trade_in_words(trade: Trade) -> str:
    """What a round trip came to, and why it ended."""
    why = trade.exit_reason.replace("_", " ")
    return f"{trade.symbol} {trade.side} closed: {signed_dollars(trade.pnl)} ({why})"


def dollars(value: Decimal | None) -> str:
    """A price; four decimals below a dollar, where prices have them."""
    if value is None:
        return ""
    return f"${value:,.2f}" if value >= 1 else f"${value:,.4f}"


def signed_dollars(value: Decimal) -> str:
    """A result."""
    return f"{'+' if value >= 0 else '-'}${abs(value):,.2f}"
