"""How broker calls are repeated, and what an unknown outcome means: the one place that retries anything.

Every sleep here is `asyncio.sleep`: a call that waits keeps nobody else waiting.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_random

from trading.broker import (
    AccountInfo,
    BracketOrderRequest,
    BrokerAdapter,
    BrokerPosition,
    BrokerUnavailable,
    DataProvider,
    MarketHours,
    NotFound,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    RateLimited,
    TradeUpdate,
)
from trading.live.meters import RETRIES
from trading.market import Bar, Quote

log = structlog.get_logger("calls")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Pauses before another attempt; up to `jitter_seconds` is added to each."""

    broker_seconds: float = 1.0
    data_seconds: float = 2.0
    jitter_seconds: float = 0.25


DEFAULT_WAITS = Waits()
MOST_SYMBOLS_A_REQUEST = 500  # their names are in the address, which servers limit to 8 kB


class RateLimiter:
    """At most `per_minute` requests in any `window_seconds`, of which `reserved` are for protective calls alone.

    Ordinary calls stop earlier than protective ones, so a stop or an exit never queues behind them.
    """

    def __init__(self, per_minute: int = 180, *, reserved: int | None = None, window_seconds: float = 60.0) -> None:
        self._most = per_minute
        self._most_ordinary = per_minute - (per_minute // 3 if reserved is None else reserved)
        self._window_seconds = window_seconds
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._closed_until = 0.0

    async def slot(self, *, protective: bool) -> None:
        """Returns when one more request may be sent."""
        most = self._most if protective else self._most_ordinary
        while True:
            delay = self._delay(most)
            if delay <= 0:
                break
            await asyncio.sleep(delay)
        self._sent.append(asyncio.get_running_loop().time())

    def close_for(self, seconds: float) -> None:
        """The broker refuses everything for so long."""
        self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + seconds)

    def _delay(self, most: int) -> float:
        now = asyncio.get_running_loop().time()
        while self._sent and self._sent[0] <= now - self._window_seconds:
            self._sent.popleft()
        if now < self._closed_until:
            return self._closed_until - now
        if len(self._sent) < most:
            return 0.0
        # The call may go when so many of the oldest have left the window that fewer than `most` remain.
        return self._sent[len(self._sent) - most] + self._window_seconds - now


class BrokerCalls:
    """The calls of a `BrokerAdapter`, repeated as each allows. They raise what the last attempt raised.

    Attempts in all: 3 to submit, replace and cancel, 2 to read. Being rate limited is waited out once and does not
    count. `NotAuthorized` and refusals are never repeated.
    """

    def __init__(
        self, broker: BrokerAdapter, *, limiter: RateLimiter | None = None, waits: Waits = DEFAULT_WAITS
    ) -> None:
        self.broker = broker
        self._limiter = limiter or RateLimiter()
        self._waits = waits

    async def submit(self, order: OrderRequest, *, protective: bool = False) -> OrderStatus:
        """Sends an order under its one client id; an order that got there is found, not sent again.

        Raises:
            OrderRefused: a definite no. RateLimited: not sent, twice.
            BrokerUnavailable: the outcome is unknown; the order may be live.
        """
        return await self._place(order.client_order_id, lambda: self.broker.submit_order(order), protective=protective)

    async def submit_bracket(self, bracket: BracketOrderRequest) -> OrderStatus:
        """Sends an entry with its exits, as `submit` does."""
        return await self._place(
            bracket.entry.client_order_id, lambda: self.broker.submit_bracket_order(bracket), protective=False
        )

    async def replace(
        self, broker_order_id: str, *, stop_price: Decimal, client_order_id: str, qty: Decimal | None = None
    ) -> OrderStatus:
        """Asks for a new stop price, as `submit` does; whatever it raises, the old order stays as it is."""
        return await self._place(
            client_order_id,
            lambda: self.broker.replace_order(
                broker_order_id, stop_price=stop_price, client_order_id=client_order_id, qty=qty
            ),
            protective=True,
        )

    async def cancel(self, broker_order_id: str) -> None:
        """Asks for a cancellation. `OrderRefused` and `NotFound` mean: look at the order, it may be filled."""
        await self._repeat(lambda: self.broker.cancel_order(broker_order_id), attempts=3, protective=True)

    async def account(self) -> AccountInfo:
        """The account, read now."""
        return await self._repeat(self.broker.get_account, attempts=2)

    async def positions(self) -> list[BrokerPosition]:
        """All positions, read now. Not found means that there are none."""
        try:
            return await self._repeat(self.broker.get_positions, attempts=2)
        except NotFound:
            return []

    async def order(self, broker_order_id: str) -> OrderStatus:
        """One order by the broker's id, legs included."""
        return await self._repeat(lambda: self.broker.get_order_status(broker_order_id), attempts=2)

    async def order_by_client_id(self, client_order_id: str) -> OrderStatus:
        """One order by our id."""
        return await self._repeat(lambda: self.broker.get_order_by_client_id(client_order_id), attempts=2)

    async def open_orders(self) -> list[OrderStatus]:
        """Every order that has not ended."""
        return await self._repeat(self.broker.get_open_orders, attempts=2)

    async def recent_orders(self, *, since: datetime) -> list[OrderStatus]:
        """Every order submitted after `since`."""
        return await self._repeat(lambda: self.broker.get_recent_orders(since=since), attempts=2)

    async def fills(self, *, since: datetime) -> list[TradeUpdate]:
        """Every execution after `since`, oldest first."""
        return await self._repeat(lambda: self.broker.get_fills(since=since), attempts=2)

    async def clock(self) -> datetime:
        """The broker's time, UTC."""
        return await self._repeat(self.broker.get_clock, attempts=2)

    async def calendar(self, *, start: date, end: date) -> list[MarketHours]:
        """The broker's trading days, both ends included."""
        return await self._repeat(lambda: self.broker.get_calendar(start=start, end=end), attempts=2)

    async def is_tradable(self, symbol: str) -> bool:
        """Whether the broker lets the symbol be traded."""
        return await self._repeat(lambda: self.broker.is_tradable(symbol), attempts=2)

    async def _place(
        self, client_order_id: str, send: Callable[[], Awaitable[OrderStatus]], *, protective: bool
    ) -> OrderStatus:
        """Sends; after anything but a clear answer the order is looked up before it is sent again or given up."""
        is_doubtful = False

        async def send_or_find() -> OrderStatus:
            nonlocal is_doubtful
            try:
                return await send()
            except BrokerUnavailable as error:
                is_doubtful = True
                log.warning("submit.outcome_unknown", client_order_id=client_order_id, reason=str(error))
                found = await self._find(client_order_id, protective=protective)
                if found is None:
                    raise
            except (OrderRefused, NotFound) as refusal:
                is_duplicate = isinstance(refusal, OrderRefused) and refusal.is_duplicate_id
                if not (is_duplicate or is_doubtful):
                    raise
                # The refusal may be the answer to the order's own twin: an earlier attempt arrived after all.
                found = await self._find(client_order_id, protective=protective)
                if found is None and is_duplicate:
                    raise BrokerUnavailable(f"the order exists but is not shown: {refusal}") from refusal
                if found is None:
                    raise
            log.info("submit.found", client_order_id=client_order_id, status=found.broker_status)
            return found

        try:
            return await self._repeat(send_or_find, attempts=3, protective=protective)
        except RateLimited as error:
            if is_doubtful:
                raise BrokerUnavailable(f"an earlier attempt may have arrived: {error}") from error
            raise

    async def _find(self, client_order_id: str, *, protective: bool) -> OrderStatus | None:
        """The order if the broker shows it; None, which proves nothing yet, if it does not."""
        await self._limiter.slot(protective=protective)
        try:
            return await self.broker.get_order_by_client_id(client_order_id)
        except NotFound:
            return None

    async def _repeat(self, call: Callable[[], Awaitable[Value]], *, attempts: int, protective: bool = False) -> Value:
        return await _repeat(
            call,
            attempts=attempts,
            wait_seconds=self._waits.broker_seconds,
            jitter_seconds=self._waits.jitter_seconds,
            limiter=self._limiter,
            protective=protective,
        )


class DataCalls:
    """The calls of a `DataProvider`: 3 attempts each. Market data has a rate limit of its own at the broker."""

    def __init__(self, data: DataProvider, *, limiter: RateLimiter | None = None, waits: Waits = DEFAULT_WAITS) -> None:
        self.data = data
        self._limiter = limiter or RateLimiter(reserved=0)
        self._waits = waits

    async def bars(
        self, symbols: Sequence[str], *, start: datetime, end: datetime, split_adjusted: bool = False
    ) -> dict[str, list[Bar]]:
        """Minute bars with `start <= timestamp < end`, of up to MOST_SYMBOLS_A_REQUEST symbols in one request.

        When a request is refused each symbol is asked for alone, and those refused again are left out with an ERROR.
        """
        found: dict[str, list[Bar]] = {}
        for first in range(0, len(symbols), MOST_SYMBOLS_A_REQUEST):
            some = symbols[first : first + MOST_SYMBOLS_A_REQUEST]
            found |= await self._bars(some, start=start, end=end, split_adjusted=split_adjusted)
        return found

    async def _bars(
        self, symbols: Sequence[str], *, start: datetime, end: datetime, split_adjusted: bool
    ) -> dict[str, list[Bar]]:

        async def ask(some: Sequence[str]) -> dict[str, list[Bar]]:
            return await self._repeat(
                lambda: self.data.get_historical_bars(some, start=start, end=end, split_adjusted=split_adjusted)
            )

        try:
            return await ask(symbols)
        except OrderRefused as refusal:
            if len(symbols) == 1:
                log.error("bars.refused", symbol=symbols[0], reason=str(refusal))
                return {}
        found: dict[str, list[Bar]] = {}
        for symbol in symbols:
            found |= await self._bars([symbol], start=start, end=end, split_adjusted=split_adjusted)
        return found

    async def history(self, symbol: str, *, start: datetime, end: datetime) -> list[Bar]:
        """One symbol's minute bars with `start <= timestamp < end`, as traded. Raises a refusal as it came."""
        found = await self._repeat(lambda: self.data.get_historical_bars([symbol], start=start, end=end))
        return found.get(symbol, [])

    async def quote(self, symbol: str) -> Quote:
        """Current bid, ask and last price."""
        return await self._repeat(lambda: self.data.get_latest_quote(symbol))

    async def _repeat(self, call: Callable[[], Awaitable[Value]]) -> Value:
        return await _repeat(
            call,
            attempts=3,
            wait_seconds=self._waits.data_seconds,
            jitter_seconds=self._waits.jitter_seconds,
            limiter=self._limiter,
            protective=False,
        )


async def _repeat(
    call: Callable[[], Awaitable[Value]],
    *,
    attempts: int,
    wait_seconds: float,
    jitter_seconds: float,
    limiter: RateLimiter,
    protective: bool,
) -> Value:
    """Calls until there is an answer: `attempts` times when there is none, and once more after a rate limit."""
    unavailable = rate_limited = 0

    async def attempt() -> Value:
        await limiter.slot(protective=protective)
        return await call()

    def counted(reason: str, *, is_repeated: bool) -> bool:
        if is_repeated:
            RETRIES.labels(reason).inc()
        return is_repeated

    def goes_on(state: RetryCallState) -> bool:
        nonlocal unavailable, rate_limited
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, RateLimited):
            rate_limited += 1
            limiter.close_for(error.retry_after_seconds)
            return counted("rate_limited", is_repeated=rate_limited == 1)
        if isinstance(error, BrokerUnavailable):
            unavailable += 1
            return counted("unavailable", is_repeated=unavailable < attempts)
        return False

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        seconds = error.retry_after_seconds if isinstance(error, RateLimited) else wait_seconds
        return seconds + wait_random(0, jitter_seconds)(state)

    return await AsyncRetrying(retry=goes_on, wait=wait, sleep=asyncio.sleep, reraise=True)(attempt)
