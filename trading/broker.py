"""What the engine needs of a broker and of a data provider, and the values that cross that border."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from orders.lifecycle import OrderType, TimeInForce
from orders.reports import BrokerOrderStatus as BrokerOrderStatus
from trading.market import Bar, Quote


class BrokerError(Exception):
    """A broker call did not do what was asked; subclasses say what the caller does next."""


class BrokerUnavailable(BrokerError):
    """No usable answer - timeout, lost connection, 5xx: the outcome of a request is unknown. Look before retrying."""


class RateLimited(BrokerError):
    """The broker wants us to wait `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OrderRefused(BrokerError):
    """A definite no (4xx) in the broker's words, of data requests too.

    `status` is the HTTP status, 0 if the request was never sent; `code` is Alpaca's number, 0 if none.
    """

    def __init__(self, message: str, *, status: int, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def is_wash_trade(self) -> bool:
        """Whether an opposite order of ours on the same symbol stands in the way."""
        return "wash trade" in str(self)

    @property
    def lacks_shares(self) -> bool:
        """Whether other orders, or nobody, hold the shares that were to be sold."""
        return "insufficient qty" in str(self)

    @property
    def is_duplicate_id(self) -> bool:
        """Whether the client order id exists already: the order is there, look it up."""
        return self.status == 409 or "must be unique" in str(self)  # recorded is 422, documented 409


class NotFound(BrokerError):
    """The broker knows no such order or position. Evidence for a position (404 = flat), never for an order's end."""


class NotAuthorized(BrokerError):
    """Wrong, revoked or mismatched keys (401), or a forbidden account (403): stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """An order as asked of the broker. `buys` is the broker's side; prices are on the tick grid."""

    symbol: str
    buys: bool
    order_type: OrderType
    qty: Decimal
    client_order_id: str
    time_in_force: TimeInForce = TimeInForce.DAY
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BracketOrderRequest:
    """A market or limit entry with its exits as one order group (Alpaca takes no stop entry in a bracket)."""

    entry: OrderRequest
    stop_loss_price: Decimal
    take_profit_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStatus:
    """The broker's report on one order. Quantities and average price are cumulative for this broker id."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    buys: bool
    order_type: str
    status: BrokerOrderStatus
    broker_status: str
    qty: Decimal
    filled_qty: Decimal
    avg_fill_price: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    submitted_at: datetime
    updated_at: datetime
    replaced_by: str | None = None
    replaces: str | None = None
    filled_at: datetime | None = None
    legs: tuple["OrderStatus", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeUpdate:
    """One message of the trade update stream: the event in the broker's words and the order's full report.

    `execution_*` are None unless the event is about an execution; `timestamp` is the broker's time of the event.
    `previous_execution_id` is the execution that a `trade_bust` takes back or a `trade_correct` changes.
    """

    event: str
    order: OrderStatus
    timestamp: datetime
    execution_id: str | None = None
    execution_qty: Decimal | None = None
    execution_price: Decimal | None = None
    previous_execution_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """A position as the broker sees it; `qty` is signed, negative for a short."""

    symbol: str
    qty: Decimal
    avg_entry_price: Decimal
    current_price: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountInfo:
    """The broker's view of the account, dollars. `last_equity` is the equity at the previous close."""

    account_number: str
    equity: Decimal
    last_equity: Decimal
    cash: Decimal
    buying_power: Decimal
    is_blocked: bool
    shorting_enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketHours:
    """One trading day of the broker's calendar, in UTC."""

    date: date
    open: datetime
    close: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingStatus:
    """A halt or resumption of one symbol from the `statuses` channel."""

    symbol: str
    halted: bool
    reason: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """A stream went up or down; `detail` says why, in one line for the page.

    `connected` comes again, with a detail, when something was lost on a connection that goes on. Each time the reader
    has to look for what it missed: `missed` has the symbols and first minutes of bars that were dropped here, nothing
    else was lost then. While it is down `retry_seconds` is how long until the next attempt; `is_refused`: the server
    says that another connection holds the one place there is.
    """

    connected: bool
    detail: str = ""
    missed: tuple[tuple[str, datetime], ...] = ()
    retry_seconds: float | None = None
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedBar:
    """A bar that was told before, as late trades have changed it."""

    bar: Bar


class DataProvider(Protocol):
    """Market data: a stream of minute bars, and history."""

    async def connect(self) -> None:
        """Opens nothing yet but checks what can be checked. Called once, before anything else."""

    async def disconnect(self) -> None:
        """Closes every connection; safe to call twice."""

    def subscribe_bars(self, symbols: Sequence[str]) -> AsyncIterator[Bar | CorrectedBar | TradingStatus | StreamState]:
        """Live minute bars, halts, and the stream's own ups and downs, until closed. One stream at a time."""

    async def reconnect_bars(self, reason: str) -> None:
        """Gives the stream's connection up, if there is one, and makes another."""

    async def change_symbols(self, symbols: Sequence[str]) -> None:
        """The running bar stream carries exactly these symbols from now on."""

    async def get_historical_bars(
        self, symbols: Sequence[str], *, start: datetime, end: datetime, split_adjusted: bool = False
    ) -> dict[str, list[Bar]]:
        """Minute bars with `start <= timestamp < end`, oldest first, for all symbols in as few requests as possible."""

    async def get_latest_quote(self, symbol: str) -> Quote:
        """Current bid, ask and last price."""


class BrokerAdapter(Protocol):
    """Orders, positions and the account. Every call has a timeout and raises a `BrokerError` on failure.

    None of them retries: what to do next is the caller's decision.
    """

    async def connect(self) -> None: ...

    async def disconnect(self) -> None: ...

    async def submit_order(self, order: OrderRequest) -> OrderStatus: ...

    async def submit_bracket_order(self, bracket: BracketOrderRequest) -> OrderStatus: ...

    async def replace_order(
        self, broker_order_id: str, *, stop_price: Decimal, client_order_id: str, qty: Decimal | None = None
    ) -> OrderStatus:
        """Asks for a new stop price; the answer is the replacing order, under its own broker id."""

    async def cancel_order(self, broker_order_id: str) -> None:
        """Asks for cancellation. Only a terminal status, by stream or look-up, means that it happened."""

    async def get_order_status(self, broker_order_id: str) -> OrderStatus: ...

    async def get_order_by_client_id(self, client_order_id: str) -> OrderStatus: ...

    async def get_positions(self) -> list[BrokerPosition]: ...

    async def get_account(self) -> AccountInfo: ...

    async def get_open_orders(self) -> list[OrderStatus]: ...

    async def get_recent_orders(self, *, since: datetime) -> list[OrderStatus]:
        """Every order submitted after `since`, whatever its state, paged to the end, legs included."""

    async def get_fills(self, *, since: datetime) -> list[TradeUpdate]:
        """Executions after `since` from the account's activities, oldest first.

        The order in them is known by the broker's id, quantities and status alone: no client id, no prices.
        """

    async def get_clock(self) -> datetime:
        """The broker's time, UTC."""

    async def get_calendar(self, *, start: date, end: date) -> list[MarketHours]: ...

    async def is_tradable(self, symbol: str) -> bool:
        """Whether the broker knows the symbol and lets it be traded."""

    def subscribe_trade_updates(self) -> AsyncIterator[TradeUpdate | StreamState]:
        """Order events as they happen, and the stream's own ups and downs, until closed."""

    async def reconnect_trade_updates(self, reason: str) -> None:
        """Gives the stream's connection up, if there is one, and makes another."""
