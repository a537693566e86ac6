"""Our order requests as alpaca-py's, with the check that nothing is lost where a decimal becomes a float."""

from decimal import Decimal
from typing import Any

from alpaca.trading import requests as alpaca_requests
from alpaca.trading.enums import OrderClass, OrderSide
from alpaca.trading.enums import TimeInForce as AlpacaTimeInForce

from orders.lifecycle import OrderType
from trading.broker import BracketOrderRequest, OrderRefused, OrderRequest

_REQUESTS: dict[OrderType, type[alpaca_requests.OrderRequest]] = {
    OrderType.MARKET: alpaca_requests.MarketOrderRequest,
    OrderType.LIMIT: alpaca_requests.LimitOrderRequest,
    OrderType.STOP: alpaca_requests.StopOrderRequest,
    OrderType.STOP_LIMIT: alpaca_requests.StopLimitOrderRequest,
}


def simple_order(order: OrderRequest) -> alpaca_requests.OrderRequest:
    """A simple order. Raises `OrderRefused` (status 0: never sent) when the request makes no sense."""
    return _build(order)


def bracket_order(bracket: BracketOrderRequest) -> alpaca_requests.OrderRequest:
    """An entry with both exits, or with the stop alone (`oto`). Raises `OrderRefused` as above."""
    stop_loss = alpaca_requests.StopLossRequest(stop_price=exact_float(bracket.stop_loss_price))
    if bracket.take_profit_price is None:
        return _build(bracket.entry, order_class=OrderClass.OTO, stop_loss=stop_loss)
    take_profit = alpaca_requests.TakeProfitRequest(limit_price=exact_float(bracket.take_profit_price))
    return _build(bracket.entry, order_class=OrderClass.BRACKET, stop_loss=stop_loss, take_profit=take_profit)


def replacement(
    *, stop_price: Decimal, client_order_id: str, qty: Decimal | None
) -> alpaca_requests.ReplaceOrderRequest:
    """A new stop price, and a new whole quantity if given. Raises `OrderRefused` as above."""
    if qty is not None and qty != int(qty):
        raise OrderRefused(f"an order cannot be replaced by one for {qty} shares: Alpaca takes whole shares", status=0)
    return alpaca_requests.ReplaceOrderRequest(
        stop_price=exact_float(stop_price), client_order_id=client_order_id, qty=None if qty is None else int(qty)
    )


def exact_float(number: Decimal) -> float:
    """The float that is written to JSON with exactly these digits, which is how alpaca-py sends numbers."""
    if Decimal(repr(float(number))) != number:
        raise OrderRefused(f"{number} cannot be sent exactly", status=0)
    return float(number)


def _build(order: OrderRequest, **group: Any) -> alpaca_requests.OrderRequest:
    kind = _REQUESTS.get(order.order_type)
    if kind is None:
        raise OrderRefused(f"{order.order_type} orders are not supported", status=0)
    prices = {"limit_price": order.limit_price, "stop_price": order.stop_price}
    fields: dict[str, Any] = {name: exact_float(price) for name, price in prices.items() if price is not None}
    try:
        return kind(
            symbol=order.symbol,
            qty=exact_float(order.qty),
            side=OrderSide.BUY if order.buys else OrderSide.SELL,
            time_in_force=AlpacaTimeInForce(order.time_in_force.value),
            client_order_id=order.client_order_id,
            **fields,
            **group,
        )
    except ValueError as error:  # pydantic: a price is missing or does not belong to this type of order
        raise OrderRefused(" ".join(str(error).split()), status=0) from error
