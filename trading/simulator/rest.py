"""The trading API under `/v2`: orders and positions."""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from orders.lifecycle import OrderType, TimeInForce
from trading.simulator.account import Position
from trading.simulator.orders import (
    BrokerOrder,
    Fill,
    Json,
    Status,
    asset_id,
    number_text,
)
from trading.simulator.queries import decimal, flag, integer, moment_of, words
from trading.simulator.tickets import Refused, Ticket, malformed, not_found, parse_changes, parse_ticket

if TYPE_CHECKING:
    from trading.simulator.market import Market

MOST_ORDERS = 500
MOST_ACTIVITIES = 100
RATIO_STEP = Decimal("0.000001")
ASSET_CLASS = "us_equity"
EXCHANGE = "NASDAQ"


class TradingApi:
    """Alpaca's endpoints for orders and positions on one market."""

    def __init__(self, market: "Market") -> None:
        self._market = market

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        return [
            web.post("/v2/orders", self.submit),
            web.get("/v2/orders", self.orders),
            web.delete("/v2/orders", self.cancel_all),
            web.get("/v2/orders:by_client_order_id", self.order_by_client_id),
            web.get("/v2/orders/{id}", self.order),
            web.patch("/v2/orders/{id}", self.replace),
            web.delete("/v2/orders/{id}", self.cancel),
            web.get("/v2/positions", self.positions),
            web.delete("/v2/positions", self.close_all),
            web.get("/v2/positions/{symbol}", self.position),
            web.delete("/v2/positions/{symbol}", self.close),
        ]

    # --- orders -------------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """POST: takes an order; what comes of it goes to the stream."""
        order = self._market.book.submit(parse_ticket(await request.read()), now=self._market.now)
        return self._requested(self._market.book.to_json(order))

    async def replace(self, request: web.Request) -> web.Response:
        """PATCH: an order in place of another."""
        changes = parse_changes(await request.read())
        order = self._market.book.replace(request.match_info["id"], changes, now=self._market.now)
        return self._requested(self._market.book.to_json(order))

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE: the end comes later, on the stream."""
        self._market.book.cancel(request.match_info["id"], now=self._market.now)
        self._requested(None)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def cancel_all(self, request: web.Request) -> web.Response:
        """DELETE of all open orders."""
        return self._requested(self._cancel_all(), status=HTTPStatus.MULTI_STATUS)

    async def orders(self, request: web.Request) -> web.Response:
        """A list of orders: by status, time, symbols, side; the newest first unless asked otherwise."""
        query = request.query
        book = self._market.book
        nested = flag(query.get("nested"))
        limit = min(max(integer(query, "limit", 50), 1), MOST_ORDERS)
        ascending = query.get("direction", "desc") == "asc"
        found = [order for order in book.orders.values() if _has_status(order, query.get("status", "open"))]
        if nested:
            found = [order for order in found if order.parent_id is None]
        if symbols := words(query, "symbols"):
            found = [order for order in found if order.symbol in symbols]
        if query.get("side") in ("buy", "sell"):
            found = [order for order in found if order.side == query["side"]]
        after, until = moment_of(query, "after"), moment_of(query, "until")
        first = book.find(query["after_order_id"]).number if "after_order_id" in query else 0
        last = book.find(query["before_order_id"]).number if "before_order_id" in query else len(book.orders) + 1
        found = [
            order
            for order in found
            if (after is None or order.created_at > after)
            and (until is None or order.created_at < until)
            and first < order.number < last
        ]
        found.sort(key=lambda order: order.number, reverse=not ascending)
        return web.json_response([book.to_json(order, nested=nested) for order in found[:limit]])

    async def order(self, request: web.Request) -> web.Response:
        """One order by its id."""
        order = self._market.book.find(request.match_info["id"])
        return web.json_response(self._market.book.to_json(order, nested=flag(request.query.get("nested"))))

    async def order_by_client_id(self, request: web.Request) -> web.Response:
        """One order by the id its sender gave it."""
        client_order_id = request.query.get("client_order_id", "")
        order = self._market.book.by_client_id(client_order_id)
        if order is None:
            raise not_found(f"order not found for {client_order_id}")
        return web.json_response(self._market.book.to_json(order))

    def _cancel_all(self) -> list[Json]:
        results = []
        for order in self._market.book.open_orders():
            try:
                self._market.book.cancel(order.id, now=self._market.now)
            except Refused as refusal:
                body = {"code": refusal.code, "message": refusal.message}
                results.append({"id": order.id, "status": HTTPStatus.INTERNAL_SERVER_ERROR.value, "body": body})
            else:
                results.append({"id": order.id, "status": HTTPStatus.OK.value})
        return results

    # --- positions ----------------------------------------------------------------------------------------------------

    async def positions(self, request: web.Request) -> web.Response:
        """All positions."""
        held = self._market.book.account.positions
        return web.json_response([self._position_json(symbol, position) for symbol, position in held.items()])

    async def position(self, request: web.Request) -> web.Response:
        """One position; 404 means flat."""
        symbol, position = self._find_position(request)
        return web.json_response(self._position_json(symbol, position))

    async def close(self, request: web.Request) -> web.Response:
        """Sells (or buys back) a position at market, whole or in part."""
        symbol, position = self._find_position(request)
        size = abs(position.qty)
        qty = decimal(request.query, "qty")
        percentage = decimal(request.query, "percentage")
        if percentage is not None:
            qty = (size * percentage / 100).quantize(Decimal("0.000000001"), rounding=ROUND_DOWN)
        return self._requested(self._close(symbol, position, size if qty is None else qty))

    async def close_all(self, request: web.Request) -> web.Response:
        """Closes everything, after cancelling all orders if asked to."""
        book = self._market.book
        if flag(request.query.get("cancel_orders")):
            self._cancel_all()
            book.route(self._market.now)
        results = []
        for symbol, position in list(book.account.positions.items()):
            try:
                body: Json = self._close(symbol, position, abs(position.qty))
                status = HTTPStatus.OK
            except Refused as refusal:
                body = {"code": refusal.code, "message": refusal.message}
                status = HTTPStatus(refusal.status)
            results.append({"symbol": symbol, "status": status.value, "body": body})
        return self._requested(results, status=HTTPStatus.MULTI_STATUS)

    def _find_position(self, request: web.Request) -> tuple[str, Position]:
        wanted = request.match_info["symbol"]
        for symbol, position in self._market.book.account.positions.items():
            if wanted in (symbol, asset_id(symbol)):
                return symbol, position
        raise not_found("position does not exist")

    def _close(self, symbol: str, position: Position, qty: Decimal) -> Json:
        if qty <= 0:
            raise malformed("qty must be > 0")
        ticket = Ticket(
            symbol=symbol,
            buys=position.qty < 0,
            order_type=OrderType.MARKET,
            time_in_force=TimeInForce.DAY,
            qty=qty,
        )
        return self._market.book.to_json(self._market.book.submit(ticket, now=self._market.now))

    def _position_json(self, symbol: str, position: Position) -> Json:
        market = self._market
        price = market.book.prices.get(symbol, position.avg_entry_price)
        yesterday = market.previous_close(symbol) or price
        is_long = position.qty > 0
        value, cost = position.qty * price, position.cost if is_long else -position.cost
        gain = value - cost
        today = self._gain_today(symbol, position, price, yesterday)
        return {
            "asset_id": asset_id(symbol),
            "symbol": symbol,
            "exchange": EXCHANGE,
            "asset_class": ASSET_CLASS,
            "asset_marginable": True,
            "qty": number_text(position.qty),
            "qty_available": number_text(position.qty.copy_abs() - market.book.held_for_orders(symbol)),
            "side": "long" if is_long else "short",
            "avg_entry_price": number_text(position.avg_entry_price.quantize(RATIO_STEP)),
            "market_value": number_text(value),
            "cost_basis": number_text(cost.quantize(RATIO_STEP)),
            "unrealized_pl": number_text(gain.quantize(RATIO_STEP)),
            "unrealized_plpc": _ratio(gain, position.cost),
            "unrealized_intraday_pl": number_text(today.quantize(RATIO_STEP)),
            "unrealized_intraday_plpc": _ratio(today, abs(position.qty) * yesterday),
            "current_price": number_text(price),
            "lastday_price": number_text(yesterday),
            "change_today": _ratio(price - yesterday, yesterday),
        }

    def _gain_today(self, symbol: str, position: Position, price: Decimal, yesterday: Decimal) -> Decimal:
        """Gain of the open shares since the later of their entry and yesterday's close."""
        since = self._market.day_start
        changes = [fill.qty if fill.buys else -fill.qty for fill in self._fills(symbol, since)]
        bought_today = any(change * position.qty > 0 for change in changes)
        return position.qty * (price - (position.avg_entry_price if bought_today else yesterday))

    def _fills(self, symbol: str, since: datetime) -> Iterable[Fill]:
        return (fill for fill in self._market.book.fills if fill.symbol == symbol and fill.booked_at >= since)

    def _requested(self, body: Any, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        """The answer to a request that changed something: written down first, carried out afterwards."""
        self._market.save()
        self._market.carry_out_soon()
        return web.json_response(body, status=status)


def _has_status(order: BrokerOrder, status: str) -> bool:
    if status == "open":
        return order.is_open and order.status is not Status.HELD  # users report that held legs are left out
    return status == "all" or not order.is_open


# --- writing ----------------------------------------------------------------------------------------------------------


def _ratio(part: Decimal, whole: Decimal) -> str | None:
    return number_text((part / whole).quantize(RATIO_STEP)) if whole else "0"
