"""The one fill model: working orders and minute bars give executions. Backtester and built-in market both run on it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from orders.lifecycle import OrderType
from orders.values import quick
from trading.market import SUB_DOLLAR_TICK, Bar

ZERO = Decimal(0)
ANY_PRICE = Decimal("Infinity")


class DuplicateOrder(Exception):
    """An order of that id is working already."""


class PathRule(StrEnum):
    """In which order a bar is taken to have reached its high and its low: a minute bar does not say.

    `NEUTRAL` looks at the bar alone (see `path`) and is what every result is made with. `PESSIMISTIC` runs to the high
    first where our working orders buy and to the low first where they sell, `OPTIMISTIC` the other way round. So an
    entry is reached before, or after, the price at which its own stop waits, and a protective stop before, or after,
    a target. Where our orders of a symbol do both, both are neutral. It is the better or worse path of each bar, and
    only nearly so of a whole run: a trade that was stopped early may be one that would have lost more.
    """

    PESSIMISTIC = "pessimistic"
    NEUTRAL = "neutral"
    OPTIMISTIC = "optimistic"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingOrder:
    """An order as the exchange holds it: `qty` is the open rest in shares.

    `is_elected`: its stop price was reached, so that it is a market (or limit) order from then on.
    """

    order_id: str
    symbol: str
    buys: bool
    order_type: OrderType
    qty: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    is_elected: bool = False

    @property
    def awaits_stop(self) -> bool:
        """Whether the stop price has still to be reached before anything can be executed."""
        return self.stop_price is not None and not self.is_elected


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """`qty` shares at `price` dollars; `commission` in dollars, `leaves` the shares still open after it."""

    order_id: str
    symbol: str
    qty: Decimal
    price: Decimal
    at: datetime
    commission: Decimal
    leaves: Decimal


_working_order = quick(WorkingOrder)
_execution = quick(Execution)


class Exchange:
    """Holds working orders and executes them along the path inside each bar.

    The path is open, high, low, close when the open is nearer to the high or exactly between, else open, low, high,
    close (TradingView's broker emulator). `match` pauses at every execution; what is submitted, cancelled or replaced
    for that symbol during the pause counts from that point of the path. Apart from that, an order submitted or
    replaced at T sees only bars with a timestamp at or after T, and until then its old price stays.

    Slippage and commission are dollars a share; `max_volume_share` is the fraction of a bar's volume that all orders
    together may take, in whole shares, None for no limit. `path_rule` is for asking what another path would have done.
    `path_mattered` tells whether it could have done something else; `last_close` is each symbol's last bar's close.
    """

    def __init__(
        self,
        *,
        slippage_per_share: Decimal = Decimal("0.01"),
        commission_per_share: Decimal = ZERO,
        max_volume_share: Decimal | None = None,
        path_rule: PathRule = PathRule.NEUTRAL,
    ) -> None:
        self.last_close: dict[str, Decimal] = {}
        self.path_mattered = False
        self._slippage = slippage_per_share
        self._commission = commission_per_share
        self._max_volume_share = max_volume_share
        self.path_rule = path_rule
        self._shares_left: dict[str, Decimal] = {}
        self._resting: dict[str, list[_Resting]] = {}
        self._symbols: dict[str, str] = {}
        self._bar: Bar | None = None
        self._price = ZERO

    def submit(self, order: WorkingOrder, *, now: datetime, at_next_open: bool = False) -> list[Execution]:
        """Takes an order; a market order is executed at once at the last close, against us by the slippage.

        Inside a pause of its symbol it is executed at the path's price. What the volume does not allow, and any market
        order before the first bar or `at_next_open` (it was sent while the market was closed), waits for the next open.

        Raises:
            DuplicateOrder: the id is working already.
        """
        if order.order_id in self._symbols:
            raise DuplicateOrder(order.order_id)
        bar = self._paused_bar(order.symbol)
        resting = _Resting(order, live_from=bar.timestamp if bar else now)
        self._resting.setdefault(order.symbol, []).append(resting)
        self._symbols[order.order_id] = order.symbol
        price = self._price if bar else self.last_close.get(order.symbol)
        if order.order_type is not OrderType.MARKET or at_next_open or price is None:
            return []
        execution = self._execute(resting, order, price=price, at=bar.timestamp if bar else now)
        return [execution] if execution else []

    def cancel(self, order_id: str) -> bool:
        """Takes an order out; False if it is not working."""
        resting = self._find(order_id)
        if resting is None:
            return False
        self._remove(resting)
        return True

    def replace(
        self,
        order_id: str,
        *,
        now: datetime,
        stop_price: Decimal | None = None,
        limit_price: Decimal | None = None,
        qty: Decimal | None = None,
        new_id: str | None = None,
    ) -> bool:
        """Changes prices, the open quantity or the id of a working order.

        False if the order is gone, or a new stop price comes too late because the old one was reached.
        The new id counts at once, the rest from the first bar the replacement sees.

        Raises:
            DuplicateOrder: the new id is working already.
        """
        resting = self._find(order_id)
        if resting is None or (stop_price is not None and resting.newest.is_elected):
            return False
        if new_id is not None and new_id != order_id and new_id in self._symbols:
            raise DuplicateOrder(new_id)
        old = resting.newest
        new = _working_order(
            order_id=old.order_id if new_id is None else new_id,
            symbol=old.symbol,
            buys=old.buys,
            order_type=old.order_type,
            qty=old.qty if qty is None else qty,
            limit_price=old.limit_price if limit_price is None else limit_price,
            stop_price=old.stop_price if stop_price is None else stop_price,
            is_elected=old.is_elected,
        )
        self._symbols[new.order_id] = self._symbols.pop(order_id)
        bar = self._paused_bar(old.symbol)
        if bar:
            resting.versions = [(bar.timestamp, new)]
        else:
            resting.versions.append((now, new))
        return True

    def match(self, bar: Bar) -> Iterator[Execution]:
        """Runs one bar; work it off to the end, for only then is its close the last close."""
        if self._max_volume_share is not None:
            self._shares_left[bar.symbol] = bar.volume * self._max_volume_share // 1
        if (in_reach := self._in_reach(bar)) > 0:
            self._bar, self._price = bar, bar.open
            executions = 0
            try:
                for target in self._path(bar)[1:]:
                    while hit := self._next_reached(bar, target):
                        resting, order, self._price = hit
                        execution = self._reached(resting, order, bar)
                        if execution:
                            executions += 1
                            yield execution
                    if bar.symbol not in self._resting:
                        break
                    self._price = target
            finally:
                self._bar = None
            # One order alone fills at one price whichever way the market goes; a second one could come first or never.
            if in_reach > 1 or executions > 1 or self._in_reach(bar):
                self.path_mattered = True
        self.last_close[bar.symbol] = bar.close

    @property
    def limits_volume(self) -> bool:
        """Whether a bar's volume limits how much is executed in it."""
        return self._max_volume_share is not None

    def price_against_us(self, price: Decimal, *, buys: bool) -> Decimal:
        """What an order without a limit gets where the market is at `price`."""
        if buys:
            return price + self._slippage
        # A sale never costs money, however cheap the share.
        return max(price - self._slippage, min(price, SUB_DOLLAR_TICK))

    def commission_on(self, qty: Decimal) -> Decimal:
        """Dollars for the execution of so many shares."""
        return self._commission * qty

    def limit_volume(self, share: Decimal) -> None:
        """From the next bar on no more than `share` of its volume can be had."""
        self._max_volume_share = share

    def lift_volume_limit(self) -> None:
        """From now on a bar's volume limits nothing: at the end of the data what is open is closed whole."""
        self._max_volume_share = None
        self._shares_left.clear()

    def working(self, symbol: str | None = None) -> list[WorkingOrder]:
        """The working orders, oldest first within a symbol."""
        found = self._resting.get(symbol, []) if symbol else [r for orders in self._resting.values() for r in orders]
        return [resting.newest for resting in found]

    def reach(self, symbol: str) -> tuple[Decimal | None, Decimal | None]:
        """The prices a bar must reach to have any effect: at or below the first, or at or above the second.

        None where no price on that side has one. It may name prices that have none after all, never the other way.
        """
        falling: Decimal | None = None
        rising: Decimal | None = None
        for resting in self._resting.get(symbol, ()):
            for _, order in resting.versions:
                price = order.stop_price
                if price is None or order.is_elected or self._max_volume_share is not None:
                    return ANY_PRICE, None
                if order.buys:
                    if rising is None or price < rising:
                        rising = price
                elif falling is None or price > falling:
                    falling = price
        return falling, rising

    def _in_reach(self, bar: Bar) -> int:
        """How many orders some path of the bar would reach."""
        count = 0
        for resting in self._resting.get(bar.symbol, ()):
            order = resting.seen_by(bar)
            if order is not None and _is_in_reach(order, bar):
                count += 1
        return count

    def _path(self, bar: Bar) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        if self.path_rule is PathRule.NEUTRAL:
            return path(bar)
        ours = {order.buys for resting in self._resting[bar.symbol] if (order := resting.seen_by(bar)) is not None}
        if len(ours) != 1:
            return path(bar)
        high_first = ours.pop() is (self.path_rule is PathRule.PESSIMISTIC)
        return path_through(bar, high_first=high_first)

    def _next_reached(self, bar: Bar, target: Decimal) -> "tuple[_Resting, WorkingOrder, Decimal] | None":
        """The order that the path meets first on its way to `target`, and where; the older one of two at one price."""
        start = self._price
        best: tuple[_Resting, WorkingOrder, Decimal] | None = None
        for resting in self._resting.get(bar.symbol, ()):
            order = resting.seen_by(bar)
            if order is None:
                continue
            price = _meeting_price(order, start=start, target=target)
            if price is None or (best is not None and abs(price - start) >= abs(best[2] - start)):
                continue
            if order.awaits_stop or not self._is_used_up(bar.symbol):
                best = resting, order, price
        return best

    def _reached(self, resting: "_Resting", order: WorkingOrder, bar: Bar) -> Execution | None:
        if order.awaits_stop:
            # A replacement that is not live yet comes too late: the old price was reached.
            if order is not resting.newest:
                order = replace(order, order_id=resting.newest.order_id)
                resting.versions = [(resting.versions[0][0], order)]
            if order.order_type is OrderType.STOP_LIMIT or self._is_limited(order.symbol):
                order = replace(order, is_elected=True)
                resting.versions = [(resting.versions[0][0], order)]
            if order.order_type is OrderType.STOP_LIMIT:
                return None
        return self._execute(resting, order, price=self._price, at=bar.timestamp)

    def _execute(self, resting: "_Resting", order: WorkingOrder, *, price: Decimal, at: datetime) -> Execution | None:
        qty = min(order.qty, self._shares_left[order.symbol]) if self._is_limited(order.symbol) else order.qty
        if qty <= 0:
            return None
        if self._is_limited(order.symbol):
            self._shares_left[order.symbol] -= qty
        newest = resting.newest
        leaves = newest.qty - qty
        if leaves > 0:
            resting.take(qty)
        else:
            self._remove(resting)
        return _execution(
            order_id=newest.order_id,
            symbol=order.symbol,
            qty=qty,
            price=self._against_us(order, price),
            at=at,
            commission=self.commission_on(qty),
            leaves=max(leaves, ZERO),
        )

    def _against_us(self, order: WorkingOrder, price: Decimal) -> Decimal:
        got = self.price_against_us(price, buys=order.buys)
        if order.limit_price is None:
            return got
        return min(got, order.limit_price) if order.buys else max(got, order.limit_price)

    def _is_limited(self, symbol: str) -> bool:
        return symbol in self._shares_left

    def _is_used_up(self, symbol: str) -> bool:
        return self._is_limited(symbol) and self._shares_left[symbol] <= 0

    def _paused_bar(self, symbol: str) -> Bar | None:
        return self._bar if self._bar is not None and self._bar.symbol == symbol else None

    def _find(self, order_id: str) -> "_Resting | None":
        symbol = self._symbols.get(order_id)
        if symbol is None:
            return None
        for resting in self._resting[symbol]:
            if resting.versions[-1][1].order_id == order_id:
                return resting
        return None

    def _remove(self, resting: "_Resting") -> None:
        order = resting.newest
        del self._symbols[order.order_id]
        others = self._resting[order.symbol]
        others.remove(resting)
        if not others:
            del self._resting[order.symbol]


class _Resting:
    """One order with its versions, oldest first, each with the time from which bars see it."""

    __slots__ = ("versions",)

    def __init__(self, order: WorkingOrder, *, live_from: datetime) -> None:
        self.versions: list[tuple[datetime, WorkingOrder]] = [(live_from, order)]

    @property
    def newest(self) -> WorkingOrder:
        return self.versions[-1][1]

    def seen_by(self, bar: Bar) -> WorkingOrder | None:
        """The version that counts for this bar; None if the order came later. Bars come in time order: older go."""
        versions = self.versions
        while len(versions) > 1 and versions[1][0] <= bar.timestamp:
            del versions[0]
        live_from, order = versions[0]
        return order if live_from <= bar.timestamp else None

    def take(self, qty: Decimal) -> None:
        """The shares are executed; an old version without any left makes room for its replacement."""
        rest = [(live_from, replace(order, qty=order.qty - qty)) for live_from, order in self.versions]
        self.versions = [version for version in rest[:-1] if version[1].qty > 0] + rest[-1:]


def path(bar: Bar) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The four prices a bar runs through, in order."""
    return path_through(bar, high_first=bar.high - bar.open <= bar.open - bar.low)


def path_through(bar: Bar, *, high_first: bool) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The four prices of a bar in one of the two orders."""
    return (bar.open, bar.high, bar.low, bar.close) if high_first else (bar.open, bar.low, bar.high, bar.close)


def _is_in_reach(order: WorkingOrder, bar: Bar) -> bool:
    level = order.stop_price if order.awaits_stop else order.limit_price
    if level is None:
        return True
    return level <= bar.high if order.buys is order.awaits_stop else level >= bar.low


def _meeting_price(order: WorkingOrder, *, start: Decimal, target: Decimal) -> Decimal | None:
    """Where a straight move from `start` to `target` meets the order: `start` itself if it is there or beyond."""
    level, is_above = order.stop_price, order.buys
    if level is None or order.is_elected:
        level, is_above = order.limit_price, not is_above
    if level is None or (level <= start if is_above else level >= start):
        return start
    return level if (level <= target if is_above else level >= target) else None
