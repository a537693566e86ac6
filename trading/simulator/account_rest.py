"""The rest of the trading API under `/v2`: account, fills, clock, calendar and assets."""

from dataclasses import asdict, replace
from datetime import date, datetime
from decimal import ROUND_DOWN
from typing import TYPE_CHECKING

from aiohttp import web

from trading.live import calendar
from trading.market import CENT
from trading.simulator.orders import NEW_YORK, Json, asset_id, fill_json, number_text, utc_text
from trading.simulator.queries import day_of, integer, moment_of, words
from trading.simulator.rest import ASSET_CLASS, EXCHANGE
from trading.simulator.tickets import json_object, not_found

if TYPE_CHECKING:
    from trading.simulator.market import Market

MOST_ACTIVITIES = 100


class AccountApi:
    """Alpaca's endpoints for the account and for what is traded when."""

    def __init__(self, market: "Market") -> None:
        self._market = market

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        return [
            web.get("/v2/account", self.account),
            web.get("/v2/account/configurations", self.configurations),
            web.patch("/v2/account/configurations", self.configure),
            web.get("/v2/account/activities", self.activities),
            web.get("/v2/account/activities/{kind}", self.activities),
            web.get("/v2/clock", self.clock),
            web.get("/v2/calendar", self.calendar),
            web.get("/v2/assets", self.assets),
            web.get("/v2/assets/{symbol}", self.asset),
        ]

    # --- account ------------------------------------------------------------------------------------------------------

    async def account(self, request: web.Request) -> web.Response:
        """Cash, equity and buying power."""
        market, book = self._market, self._market.book
        account, prices = book.account, book.prices
        power = number_text(book.buying_power().quantize(CENT, rounding=ROUND_DOWN))
        equity, cash = number_text(account.equity(prices)), number_text(account.cash)
        long, short = (account.market_value(prices, long=side) for side in (True, False))
        margin = number_text((long - short) / account.multiplier)
        return web.json_response(
            {
                "id": market.account_id,
                "account_number": market.account_number,
                "status": "ACTIVE",
                "crypto_status": "INACTIVE",
                "currency": "USD",
                "cash": cash,
                "portfolio_value": equity,
                "equity": equity,
                "last_equity": number_text(account.last_equity),
                "long_market_value": number_text(long),
                "short_market_value": number_text(short),
                "position_market_value": number_text(long - short),
                "initial_margin": margin,
                "maintenance_margin": margin,
                "last_maintenance_margin": "0",
                "sma": "0",
                "buying_power": power,
                "effective_buying_power": power,
                "regt_buying_power": power,
                "non_marginable_buying_power": power,
                "options_buying_power": "0",
                "multiplier": str(account.multiplier),
                "accrued_fees": "0",
                "pending_reg_taf_fees": "0",
                "pending_transfer_in": "0",
                "pending_transfer_out": "0",
                "intraday_adjustments": "0",
                "balance_asof": f"{market.now.astimezone(NEW_YORK):%Y-%m-%d}",
                "created_at": utc_text(market.created_at),
                "trading_blocked": False,
                "transfers_blocked": False,
                "account_blocked": False,
                "trade_suspended_by_user": book.restrictions.suspend_trade,
                "shorting_enabled": not book.restrictions.no_shorting,
                "options_approved_level": 0,
                "options_trading_level": 0,
                "crypto_tier": 0,
                "user_configurations": None,
                "admin_configurations": {},
            }
        )

    async def configurations(self, request: web.Request) -> web.Response:
        """What the account restricts of its own will."""
        return web.json_response(self._configurations())

    async def configure(self, request: web.Request) -> web.Response:
        """Changes some of it."""
        wanted = json_object(await request.read())
        book = self._market.book
        for name in asdict(book.restrictions):
            if name in wanted:
                book.restrictions = replace(book.restrictions, **{name: bool(wanted[name])})
        self._market.save()
        return web.json_response(self._configurations())

    def _configurations(self) -> Json:
        return {
            "disable_overnight_trading": False,
            "max_margin_multiplier": str(self._market.book.account.multiplier),
            "max_options_trading_level": 0,
            "ptp_no_exception_entry": False,
            "trade_confirm_email": "none",
            **asdict(self._market.book.restrictions),
        }

    async def activities(self, request: web.Request) -> web.Response:
        """The account's executions; other kinds of activity do not exist here."""
        query = request.query
        kinds = {request.match_info["kind"]} if "kind" in request.match_info else words(query, "activity_types")
        fills = list(self._market.book.fills) if not kinds or "FILL" in kinds else []
        after, until, day = moment_of(query, "after"), moment_of(query, "until"), query.get("date")
        fills = [
            fill
            for fill in fills
            if (after is None or fill.at > after)
            and (until is None or fill.at < until)
            and (day is None or f"{fill.at.astimezone(NEW_YORK):%Y-%m-%d}" == day)
            and query.get("order_id") in (None, fill.order_id)
        ]
        fills.sort(key=lambda fill: (fill.at, fill.number), reverse=query.get("direction", "desc") == "desc")
        rows = [fill_json(fill) for fill in fills]
        if token := query.get("page_token"):
            ids = [row["id"] for row in rows]
            rows = rows[ids.index(token) + 1 :] if token in ids else []
        return web.json_response(rows[: min(integer(query, "page_size", MOST_ACTIVITIES), MOST_ACTIVITIES)])

    # --- market -------------------------------------------------------------------------------------------------------

    async def clock(self, request: web.Request) -> web.Response:
        """The market's time, and when it opens and closes next."""
        market = self._market
        return web.json_response(
            {
                "timestamp": _new_york_text(market.told_now),
                "is_open": market.book.is_open,
                "next_open": _new_york_text(market.next_open),
                "next_close": _new_york_text(market.next_close),
            }
        )

    async def calendar(self, request: web.Request) -> web.Response:
        """The trading days this market has."""
        query = request.query
        start, end = (day_of(query, name, default) for name, default in (("start", date.min), ("end", date.max)))
        return web.json_response(
            [
                {
                    "date": session.date.isoformat(),
                    "open": f"{session.open.astimezone(NEW_YORK):%H:%M}",
                    "close": f"{session.close.astimezone(NEW_YORK):%H:%M}",
                    "session_open": "0400",
                    "session_close": "2000",
                    "settlement_date": calendar.next_session(session.close).date.isoformat(),
                }
                for session in self._market.bars.sessions(start, end)
            ]
        )

    async def assets(self, request: web.Request) -> web.Response:
        """What is traded here now."""
        query = request.query
        is_wanted = (
            query.get("status", "active") == "active"
            and query.get("asset_class", ASSET_CLASS) == ASSET_CLASS
            and query.get("exchange", EXCHANGE) == EXCHANGE
        )
        return web.json_response([_asset_json(symbol) for symbol in self._market.symbols] if is_wanted else [])

    async def asset(self, request: web.Request) -> web.Response:
        """One asset by symbol or id."""
        wanted = request.match_info["symbol"]
        symbol = next((each for each in self._market.symbols if asset_id(each) == wanted), wanted)
        if not self._market.add_symbol(symbol):
            raise not_found(f"asset not found for {wanted}")
        return web.json_response(_asset_json(symbol))


def _asset_json(symbol: str) -> Json:
    return {
        "id": asset_id(symbol),
        "class": ASSET_CLASS,
        "exchange": EXCHANGE,
        "symbol": symbol,
        "name": f"{symbol} Common Stock",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": True,
        "easy_to_borrow": True,
        "borrow_status": "easy_to_borrow",
        "fractionable": True,
        "maintenance_margin_requirement": 30,
        "margin_requirement_long": "30",
        "margin_requirement_short": "30",
        "attributes": [],
        "cusip": None,
    }


def _new_york_text(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).isoformat()
