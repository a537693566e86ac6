"""What a request for an order says, and the refusals that follow from its text alone, in Alpaca's words."""

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any, NoReturn

from orders.lifecycle import OrderType, TimeInForce
from trading.market import CENT, ONE_DOLLAR, SUB_DOLLAR_TICK
from trading.simulator.orders import OrderClass

LONGEST_CLIENT_ID = 128
LARGEST_NUMBER = 10**12
SMALLEST_QTY_STEP = Decimal("0.000000001")

INVALID = 42210000  # the request is understood and not allowed
MALFORMED = 40010001
FORBIDDEN = 40310000
NOT_FOUND = 40410000


class Refused(Exception):
    """A request that is not carried out: the HTTP status, Alpaca's code and message, and further fields of the body."""

    def __init__(self, status: int, code: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more


def invalid(message: str) -> Refused:
    """422 for something that is not allowed."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, INVALID, message)


def malformed(message: str) -> Refused:
    """422 for parameters that make no sense."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, MALFORMED, message)


def forbidden(message: str, **more: str) -> Refused:
    """403 for something the account's state does not allow."""
    return Refused(HTTPStatus.FORBIDDEN, FORBIDDEN, message, **more)


def not_found(message: str) -> Refused:
    """404."""
    return Refused(HTTPStatus.NOT_FOUND, NOT_FOUND, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request for a new order that makes sense in itself. Exactly one of `qty` and `notional` is set."""

    symbol: str
    buys: bool
    order_type: OrderType
    time_in_force: TimeInForce
    qty: Decimal | None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    client_order_id: str | None = None
    order_class: OrderClass = OrderClass.SIMPLE
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    stop_loss_limit: Decimal | None = None
    extended_hours: bool = False

    @property
    def is_fractional(self) -> bool:
        """Whether it is for anything but whole shares."""
        return self.qty is None or self.qty != self.qty.to_integral_value()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a replacement changes; None leaves it as it is."""

    qty: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce | None
    client_order_id: str | None


def parse_ticket(body: bytes) -> Ticket:
    """The ticket in a POST body. Raises Refused."""
    raw = json_object(body)
    order_class = _order_class(raw)
    order_type = _order_type(raw)
    side = raw.get("side")
    if not raw.get("symbol"):
        raise malformed("symbol is required")
    if side not in ("buy", "sell"):
        raise malformed("side must be buy or sell")
    take_profit, stop_loss = (_nested(raw, name) for name in ("take_profit", "stop_loss"))
    ticket = Ticket(
        symbol=str(raw["symbol"]),
        buys=side == "buy",
        order_type=order_type,
        time_in_force=_time_in_force(raw.get("time_in_force")),
        qty=_number(raw, "qty"),
        notional=_number(raw, "notional"),
        limit_price=_price(raw, "limit_price"),
        stop_price=_price(raw, "stop_price"),
        client_order_id=_client_id(raw),
        order_class=order_class,
        take_profit=_price(take_profit, "limit_price", "take_profit.limit_price"),
        stop_loss=_price(stop_loss, "stop_price", "stop_loss.stop_price"),
        stop_loss_limit=_price(stop_loss, "limit_price", "stop_loss.limit_price"),
        extended_hours=bool(raw.get("extended_hours")),
    )
    _check_quantity(ticket)
    _check_prices(ticket)
    _check_class(ticket)
    if ticket.extended_hours and not (order_type is OrderType.LIMIT and order_class is OrderClass.SIMPLE):
        raise invalid("extended hours order must be DAY limit orders")
    return ticket


def parse_changes(body: bytes) -> Changes:
    """The changes in a PATCH body. Raises Refused."""
    raw = json_object(body)
    if raw.get("trail") is not None:
        raise invalid("only trailing stop orders have a trail")
    qty = _number(raw, "qty")
    if qty is not None and qty != qty.to_integral_value():
        raise invalid("qty must be a whole number")
    tif = raw.get("time_in_force")
    return Changes(
        qty=qty,
        limit_price=_price(raw, "limit_price"),
        stop_price=_price(raw, "stop_price"),
        time_in_force=None if tif is None else _time_in_force(tif),
        client_order_id=_client_id(raw),
    )


# --- rules within one ticket ------------------------------------------------------------------------------------------


def _check_quantity(ticket: Ticket) -> None:
    if ticket.qty is None and ticket.notional is None:
        raise malformed("qty or notional is required")
    if ticket.qty is not None and ticket.notional is not None:
        raise malformed("only one of qty or notional is accepted")
    if ticket.is_fractional:
        if ticket.time_in_force is not TimeInForce.DAY:
            raise invalid("fractional orders must be DAY orders")
        if ticket.order_class is not OrderClass.SIMPLE:
            raise invalid("fractional orders must be simple orders")
    if ticket.notional is not None and ticket.order_type is not OrderType.MARKET:
        raise invalid("notional orders must be market orders")


def _check_prices(ticket: Ticket) -> None:
    has_limit, has_stop = ticket.limit_price is not None, ticket.stop_price is not None
    match ticket.order_type:
        case OrderType.MARKET:
            if has_limit or has_stop:
                raise invalid("market orders require no stop or limit price")
        case OrderType.LIMIT:
            if has_stop:
                raise malformed("limit orders must not have stop_price")
            if not has_limit and ticket.order_class is not OrderClass.OCO:
                raise malformed("limit orders require a limit_price")
        case OrderType.STOP:
            if has_limit:
                raise malformed("stop orders must not have limit_price")
            if not has_stop:
                raise malformed("stop orders require a stop_price")
        case _:
            if not (has_limit and has_stop):
                raise malformed("stop limit orders require both stop_price and limit_price")


def _check_class(ticket: Ticket) -> None:
    name, exits = ticket.order_class.value, (ticket.take_profit, ticket.stop_loss)
    match ticket.order_class:
        case OrderClass.SIMPLE:
            if any(price is not None for price in exits):
                raise malformed("take_profit and stop_loss need an order_class of bracket, oco or oto")
            return
        case OrderClass.OTO:
            if (ticket.take_profit is None) == (ticket.stop_loss is None):
                raise malformed("oto orders require exactly one of take_profit.limit_price and stop_loss.stop_price")
        case _:
            if ticket.take_profit is None:
                raise malformed(f"{name} orders require take_profit.limit_price")
            if ticket.stop_loss is None:
                raise malformed(f"{name} orders require stop_loss.stop_price")
    if ticket.order_class is OrderClass.OCO:
        if ticket.order_type is not OrderType.LIMIT:
            raise malformed("oco orders must be limit orders")
    elif ticket.order_type not in (OrderType.MARKET, OrderType.LIMIT):
        raise malformed(f"{name} orders must be market or limit orders")
    if ticket.take_profit is not None and ticket.stop_loss is not None:
        # The exits of a bracket are on the other side of its entry; an OCO order is itself the exit.
        is_long = ticket.buys != (ticket.order_class is OrderClass.OCO)
        if is_long and ticket.take_profit <= ticket.stop_loss:
            raise invalid("take_profit.limit_price must be > stop_loss.stop_price")
        if not is_long and ticket.take_profit >= ticket.stop_loss:
            raise invalid("take_profit.limit_price must be < stop_loss.stop_price")


# --- reading ----------------------------------------------------------------------------------------------------------


def json_object(body: bytes) -> dict[str, Any]:
    """The body's JSON object with exact numbers. Raises Refused."""
    try:
        raw = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, 40010000, "request body format is invalid")
    return raw


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _order_class(raw: dict[str, Any]) -> OrderClass:
    text = raw.get("order_class") or ""
    try:
        return OrderClass("" if text == "simple" else text)
    except ValueError:
        raise malformed("invalid order_class") from None


def _order_type(raw: dict[str, Any]) -> OrderType:
    try:
        order_type = OrderType(raw.get("type") or "")
    except ValueError:
        raise malformed("invalid order type") from None
    if order_type is OrderType.TRAILING_STOP:
        raise invalid("this market takes no trailing stop orders")
    return order_type


def _time_in_force(text: Any) -> TimeInForce:
    if text in ("ioc", "fok", "opg", "cls"):  # Alpaca offers these on request only
        raise invalid(f"time_in_force {text} is not enabled for this account")
    if text not in ("day", "gtc"):
        raise malformed("invalid time_in_force")
    return TimeInForce(text)


def _nested(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(f"invalid {name}")
    return value


def _number(raw: dict[str, Any], name: str, called: str = "") -> Decimal | None:
    value = raw.get(name)
    if value is None or value == "":
        return None
    try:
        number = Decimal(value if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else "")
    except InvalidOperation:
        raise malformed(f"invalid {called or name}") from None
    if not number.is_finite() or number > LARGEST_NUMBER:
        raise malformed(f"invalid {called or name}")
    if number <= 0:
        raise malformed(f"{called or name} must be > 0")
    if name in ("qty", "notional") and number % SMALLEST_QTY_STEP:
        raise malformed(f"{called or name} has too many decimals")
    return number


def _price(raw: dict[str, Any], name: str, called: str = "") -> Decimal | None:
    """A price on the grid of Rule 612: two decimals at or above a dollar, four below."""
    price = _number(raw, name, called)
    if price is not None and price % (CENT if price >= ONE_DOLLAR else SUB_DOLLAR_TICK):
        raise invalid(
            f"invalid {called or name} {price:f}. sub-penny increment does not fulfill minimum pricing criteria"
        )
    return price


def _client_id(raw: dict[str, Any]) -> str | None:
    text = raw.get("client_order_id")
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise malformed("invalid client_order_id")
    if len(text) > LONGEST_CLIENT_ID:
        raise malformed(f"client_order_id must be no more than {LONGEST_CLIENT_ID} characters")
    return text
