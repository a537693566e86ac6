"""The broker's desk: takes, checks, routes, executes, replaces and ends orders, as Alpaca does. No clock, no I/O.

A request is answered at once and carried out afterwards, by `route`: until then a new order is `pending_new`, a
cancelled one `pending_cancel`, a replaced one `pending_replace`. What happens is collected as updates for the stream,
and what changed for the account's file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from uuid import UUID, uuid5

from orders.lifecycle import OrderType, TimeInForce
from trading.exchange import Exchange, Execution, WorkingOrder
from trading.simulator import checks
from trading.simulator.account import ZERO, Account
from trading.simulator.families import Families
from trading.simulator.faults import Faults, On
from trading.simulator.orders import BrokerOrder, Fill, Json, OrderClass, Status, order_json
from trading.simulator.tickets import Changes, Ticket, forbidden, invalid, not_found

GTC_LIFE = timedelta(days=90)
FRACTION_STEP = Decimal("0.000000001")

# A request is on its way in these: neither working as asked nor ended, and nothing more may be asked of the order.
ON_ITS_WAY = frozenset({Status.PENDING_NEW, Status.ACCEPTED, Status.PENDING_CANCEL, Status.PENDING_REPLACE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One message of the trade update stream: the event, its time, the order as it was then, and the execution."""

    event: str
    at: datetime
    order: Json
    fill: Fill | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """The account's configuration as far as it restricts orders."""

    suspend_trade: bool = False
    no_shorting: bool = False
    fractional_trading: bool = True


class Book:
    """All orders of one account on one exchange.

    `families` tells which orders belong together. `account_id` seeds the ids. `knows` tells whether a symbol is traded
    here. `day_end` is when a day order sent now would expire; the market sets it and `is_open` as its sessions come
    and go. `prices` are the last prices.
    """

    def __init__(
        self,
        *,
        account_id: str,
        account: Account,
        exchange: Exchange,
        knows: Callable[[str], bool],
        day_end: datetime,
        faults: Faults | None = None,
    ) -> None:
        self.account = account
        self.restrictions = Restrictions()
        self.orders: dict[str, BrokerOrder] = {}
        self.families = Families(self.orders)
        self.fills: list[Fill] = []
        self.halted: set[str] = set()
        self.is_open = False
        self.day_end = day_end
        self._exchange = exchange
        self._knows = knows
        self._faults = faults or Faults()
        self._ids = UUID(account_id)
        self._open: dict[str, BrokerOrder] = {}
        self._by_client_id: dict[str, str] = {}
        self._to_route: list[Callable[[datetime], None]] = []
        self._updates: list[Update] = []
        self._changed: dict[str, BrokerOrder] = {}
        self._new_fills: list[Fill] = []

    @property
    def prices(self) -> dict[str, Decimal]:
        """The last price of each symbol."""
        return self._exchange.last_close

    @property
    def has_requests(self) -> bool:
        """Whether something was answered and not carried out yet."""
        return bool(self._to_route)

    def open_orders(self, symbol: str | None = None) -> list[BrokerOrder]:
        """Orders of which something can still come, oldest first."""
        return [order for order in self._open.values() if symbol is None or order.symbol == symbol]

    def find(self, order_id: str) -> BrokerOrder:
        """The order of that id. Raises Refused."""
        order = self.orders.get(order_id)
        if order is None:
            raise not_found(f"order not found for {order_id}")
        return order

    def by_client_id(self, client_order_id: str) -> BrokerOrder | None:
        """The order of that client id."""
        return self.orders.get(self._by_client_id.get(client_order_id, ""))

    def to_json(self, order: BrokerOrder, *, nested: bool = True) -> Json:
        """The order as Alpaca shows it, with its legs if it is a group's parent and they are wanted."""
        legs = [order_json(leg) for leg in self.families.legs(order)] if nested else []
        return order_json(order, legs or None)

    def buying_power(self) -> Decimal:
        """What may still be opened, in dollars."""
        return self.account.buying_power(self.prices, self._open.values())

    def held_for_orders(self, symbol: str) -> Decimal:
        """Shares of a position that working orders would close; the exits of one group count once."""
        held = ZERO
        for order in self.open_orders(symbol):
            if not order.opens and not order.is_dormant:
                old = self.orders[order.replaces] if order.replaces and self.families.replaces_open(order) else None
                if old is None:
                    held += order.leaves
                elif not order.keeps_qty:
                    held += max(order.leaves - old.leaves, ZERO)
        return held

    # --- requests -----------------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket, *, now: datetime) -> BrokerOrder:
        """Takes a new order, and the legs of a group with it. Raises Refused."""
        checks.client_id(self, ticket.client_order_id)
        if not self._knows(ticket.symbol):
            raise invalid(f'asset "{ticket.symbol}" not found')
        if self.restrictions.suspend_trade:
            raise forbidden("new orders are rejected by user request")
        if ticket.is_fractional and not self.restrictions.fractional_trading:
            raise forbidden("fractional trading is disabled for the account")
        qty = self._quantity(ticket)
        is_oco = ticket.order_class is OrderClass.OCO
        order = self._create(
            symbol=ticket.symbol,
            buys=ticket.buys,
            order_type=ticket.order_type,
            time_in_force=ticket.time_in_force,
            qty=qty,
            notional=ticket.notional,
            limit_price=ticket.take_profit if is_oco else ticket.limit_price,
            stop_price=ticket.stop_price,
            order_class=ticket.order_class,
            client_order_id=ticket.client_order_id,
            extended_hours=ticket.extended_hours,
            status=Status.PENDING_NEW if self.is_open else Status.ACCEPTED,
            now=now,
        )
        checks.wash_trade(self, order)
        checks.group(self, ticket, order)
        checks.means(self, order)
        legs = self._create_legs(ticket, order, now)
        for each in (order, *legs):
            self._keep(each)
        self._to_route.append(lambda at: self._route_new(order, at))
        return order

    def cancel(self, order_id: str, *, now: datetime) -> None:
        """Asks for the end of an order and of the rest of its group. Raises Refused."""
        order = self.find(order_id)
        if order.status in (Status.CANCELED, Status.PENDING_CANCEL):
            return
        if not order.is_open:
            raise invalid(f'order is already in "{order.status}" state')
        if order.status is Status.PENDING_REPLACE:
            raise invalid("cannot cancel order in pending_replace status")
        for each in self.families.group(order):
            each.status = Status.PENDING_CANCEL
            each.cancel_requested_at = now
            self._touch(each, now)
            self._to_route.append(lambda at, each=each: self._route_cancel(each, at))  # type: ignore[misc]

    def replace(self, order_id: str, changes: Changes, *, now: datetime) -> BrokerOrder:
        """Asks for an order in place of another; the answer is the new one. Raises Refused."""
        old = self.find(order_id)
        if not old.is_open:
            raise invalid("order is not open")
        if old.status in ON_ITS_WAY:
            raise invalid(f"cannot replace order in {old.status} status")
        if old.notional is not None or old.qty != old.qty.to_integral_value():
            raise invalid("fractional and notional orders cannot be replaced")
        checks.changes(old, changes)
        checks.client_id(self, changes.client_order_id)
        new = self._create(
            symbol=old.symbol,
            buys=old.buys,
            order_type=old.order_type,
            time_in_force=changes.time_in_force or old.time_in_force,
            qty=old.leaves if changes.qty is None else changes.qty,
            limit_price=old.limit_price if changes.limit_price is None else changes.limit_price,
            stop_price=old.stop_price if changes.stop_price is None else changes.stop_price,
            order_class=old.order_class,
            client_order_id=changes.client_order_id,
            extended_hours=old.extended_hours,
            status=Status.HELD if old.status is Status.HELD else Status.PENDING_NEW,
            now=now,
        )
        new.parent_id, new.is_dormant, new.opens = old.parent_id, old.is_dormant, old.opens
        new.replaces, new.keeps_qty = old.id, changes.qty is None
        if old.status is not Status.HELD:
            checks.wash_trade(self, new)
            checks.means(self, new)
        was, old.status = old.status, Status.PENDING_REPLACE
        self._touch(old, now)
        self._keep(new)
        self._to_route.append(lambda at: self._route_replace(old, new, was=was, at=at))
        return new

    # --- what happens -------------------------------------------------------------------------------------------------

    def route(self, now: datetime) -> None:
        """Carries out what was asked for, in the order in which it was asked."""
        requests, self._to_route = self._to_route, []
        for request in requests:
            request(now)

    def executed(self, execution: Execution, *, now: datetime) -> None:
        """Books an execution of the exchange, and lets its group follow."""
        order = self.orders[execution.order_id]
        is_watched = order.order_class in (OrderClass.BRACKET, OrderClass.OCO) and order.stop_price is not None
        if is_watched and not order.is_elected:
            self._stop_leg_triggers(order, now)
        order.filled_qty += execution.qty
        order.filled_value += execution.qty * execution.price
        order.filled_at = execution.at
        order.is_elected = order.stop_price is not None
        if order.leaves <= 0:
            self._end(order, Status.FILLED, now)
        elif order.status not in ON_ITS_WAY:
            order.status = Status.PARTIALLY_FILLED
        fill = self._book(order, execution, now)
        self._say("fill" if order.leaves <= 0 else "partial_fill", order, execution.at, fill)
        self._follow_fill(order, now)

    def open_session(self, now: datetime) -> None:
        """The market opens: what was accepted meanwhile starts to work."""
        self.is_open = True
        for order in self.open_orders():
            if order.status is Status.ACCEPTED:
                self._start(order, now, at_next_open=True)

    def close_session(self, now: datetime, *, day_end: datetime) -> None:
        """The market closes: orders whose time is over expire."""
        self.is_open = False
        self.day_end = day_end
        for order in self.open_orders():
            if order.expires_at <= now:
                self._exchange.cancel(order.id)
                order.expired_at = now
                self._end(order, Status.EXPIRED, now)
                self._say("expired", order, now)
        self.account.last_equity = self.account.equity(self.prices)

    def take_updates(self) -> list[Update]:
        """What has happened since the last call."""
        updates, self._updates = self._updates, []
        return updates

    def changes(self) -> tuple[list[BrokerOrder], list[Fill]]:
        """Orders that changed and executions that came since `changes_kept` was called last."""
        return list(self._changed.values()), list(self._new_fills)

    def changes_kept(self) -> None:
        """All changes so far are in the account's file."""
        self._changed.clear()
        self._new_fills.clear()

    def restore(self, orders: Iterable[BrokerOrder], fills: Iterable[Fill], *, now: datetime) -> None:
        """Takes up an account where it was left; orders under way when that happened are carried out at once."""
        for fill in fills:
            self.fills.append(fill)
            self.account.apply(fill)
        for order in orders:
            self.orders[order.id] = order
            self._by_client_id[order.client_order_id] = order.id
            if order.is_open:
                self._open[order.id] = order
        for order in self.open_orders():
            self._resume(order, now)

    # --- making orders ------------------------------------------------------------------------------------------------

    def _quantity(self, ticket: Ticket) -> Decimal:
        if ticket.qty is not None:
            return ticket.qty
        price = self.prices.get(ticket.symbol)
        if ticket.notional is None or price is None:
            raise forbidden(f"no available quote for {ticket.symbol}")
        return (ticket.notional / price).quantize(FRACTION_STEP, rounding=ROUND_DOWN)

    def _create(
        self,
        *,
        symbol: str,
        buys: bool,
        order_type: OrderType,
        time_in_force: TimeInForce,
        qty: Decimal,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
        order_class: OrderClass,
        client_order_id: str | None,
        extended_hours: bool,
        status: Status,
        now: datetime,
        notional: Decimal | None = None,
        ahead: int = 0,
    ) -> BrokerOrder:
        """An order that nobody knows of yet; `ahead` counts those made and not kept before it."""
        number = len(self.orders) + 1 + ahead
        held = self.account.qty(symbol)
        return BrokerOrder(
            id=str(uuid5(self._ids, f"order/{number}")),
            number=number,
            client_order_id=client_order_id or _given_id(self._ids, number),
            symbol=symbol,
            buys=buys,
            order_type=order_type,
            time_in_force=time_in_force,
            qty=qty,
            notional=notional,
            limit_price=limit_price,
            stop_price=stop_price,
            order_class=order_class,
            extended_hours=extended_hours,
            status=status,
            opens=not held or (held > 0) == buys,
            created_at=now,
            updated_at=now,
            expires_at=self.day_end if time_in_force is TimeInForce.DAY else now + GTC_LIFE,
        )

    def _create_legs(self, ticket: Ticket, parent: BrokerOrder, now: datetime) -> list[BrokerOrder]:
        is_oco = ticket.order_class is OrderClass.OCO
        exits: list[tuple[OrderType, Decimal | None, Decimal | None]] = []
        if ticket.take_profit is not None and not is_oco:
            exits.append((OrderType.LIMIT, ticket.take_profit, None))
        if ticket.stop_loss is not None:
            stop_type = OrderType.STOP if ticket.stop_loss_limit is None else OrderType.STOP_LIMIT
            exits.append((stop_type, ticket.stop_loss_limit, ticket.stop_loss))
        legs = []
        for ahead, (order_type, limit_price, stop_price) in enumerate(exits, start=1):
            leg = self._create(
                symbol=parent.symbol,
                buys=parent.buys if is_oco else not parent.buys,
                order_type=order_type,
                time_in_force=parent.time_in_force,
                qty=parent.qty,
                limit_price=limit_price,
                stop_price=stop_price,
                order_class=parent.order_class,
                client_order_id=None,
                extended_hours=False,
                status=Status.HELD,
                now=now,
                ahead=ahead,
            )
            leg.parent_id, leg.is_dormant, leg.opens = parent.id, True, False
            legs.append(leg)
        return legs

    def _keep(self, order: BrokerOrder) -> None:
        self.orders[order.id] = self._open[order.id] = self._changed[order.id] = order
        self._by_client_id[order.client_order_id] = order.id

    # --- carrying out -------------------------------------------------------------------------------------------------

    def _route_new(self, order: BrokerOrder, now: datetime) -> None:
        if order.status is Status.ACCEPTED:
            self._say("accepted", order, now)
        elif order.status is Status.PENDING_NEW:
            self._start(order, now)

    def _route_cancel(self, order: BrokerOrder, now: datetime) -> None:
        if order.is_open and (fault := self._faults.strike(On.CANCELING)) is not None:
            self._fill_late(order, fault.share, now)
        if order.is_open:  # an execution may have come first
            self._exchange.cancel(order.id)
            order.canceled_at = now
            self._end(order, Status.CANCELED, now)
            self._say("canceled", order, now)

    def _fill_late(self, order: BrokerOrder, share: Decimal, now: datetime) -> None:
        """The market reaches an order while its cancellation is on the way."""
        working = next((each for each in self._exchange.working(order.symbol) if each.order_id == order.id), None)
        qty = max(order.leaves * share // 1, Decimal(1))
        price = order.price or self.prices.get(order.symbol)
        if working is None or price is None or qty > order.leaves:
            return
        if qty == order.leaves:
            self._exchange.cancel(order.id)
        execution = Execution(
            order_id=order.id, symbol=order.symbol, qty=qty, price=price, at=now, commission=ZERO,
            leaves=order.leaves - qty,
        )  # fmt: skip
        self.executed(execution, now=now)

    def _route_replace(self, old: BrokerOrder, new: BrokerOrder, *, was: Status, at: datetime) -> None:
        if new.keeps_qty and old.is_open:
            new.qty = old.leaves
        is_too_late = old.is_open and self._faults.strike(On.REPLACING) is not None
        if not old.is_open or is_too_late or not self._exchange_replaces(old, new, at):
            # Filled, or its stop was reached, before the replacement could get there.
            if old.is_open:
                old.status = Status.PARTIALLY_FILLED if old.filled_qty else was
                self._touch(old, at)
            new.failed_at = at
            self._end(new, Status.REJECTED, at)
            self._say("rejected", new, at)
            return
        old.replaced_at, old.replaced_by = at, new.id
        self._end(old, Status.REPLACED, at)
        self._say("replaced", old, at)
        new.is_dormant = old.is_dormant
        new.status = Status.HELD if new.is_dormant else Status.NEW
        self._touch(new, at)
        if not new.is_dormant:
            self._say("new", new, at)

    def _exchange_replaces(self, old: BrokerOrder, new: BrokerOrder, now: datetime) -> bool:
        if any(working.order_id == old.id for working in self._exchange.working(old.symbol)):
            return self._exchange.replace(
                old.id, now=now, stop_price=new.stop_price, limit_price=new.limit_price, qty=new.qty, new_id=new.id
            )
        return True  # a held leg waits here, not at the exchange

    def _start(self, order: BrokerOrder, now: datetime, *, at_next_open: bool = False) -> None:
        order.status, order.is_dormant = Status.NEW, False
        self._touch(order, now)
        self._say("new", order, now)
        self._to_exchange(order, now, at_next_open=at_next_open)
        if order.order_class is OrderClass.OCO:
            for leg in self.families.waiting_legs(order):
                self._to_exchange(leg, now)

    def _to_exchange(self, order: BrokerOrder, now: datetime, *, at_next_open: bool = False) -> None:
        working = WorkingOrder(
            order_id=order.id,
            symbol=order.symbol,
            buys=order.buys,
            order_type=order.order_type,
            qty=order.leaves,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            is_elected=order.is_elected,
        )
        waits = at_next_open or order.symbol in self.halted
        for execution in self._exchange.submit(working, now=now, at_next_open=waits):
            self.executed(execution, now=now)

    def _book(self, order: BrokerOrder, execution: Execution, now: datetime) -> Fill:
        number = len(self.fills) + 1
        change = execution.qty if order.buys else -execution.qty
        fill = Fill(
            id=str(uuid5(self._ids, f"fill/{number}")),
            number=number,
            order_id=order.id,
            symbol=order.symbol,
            buys=order.buys,
            qty=execution.qty,
            price=execution.price,
            at=execution.at,
            booked_at=now,
            commission=execution.commission,
            cum_qty=order.filled_qty,
            leaves=order.leaves,
            position_qty=self.account.qty(order.symbol) + change,
            order_status=Status.FILLED if order.leaves <= 0 else Status.PARTIALLY_FILLED,
        )
        self.fills.append(fill)
        self._new_fills.append(fill)
        self.account.apply(fill)
        self._touch(order, now)
        return fill

    # --- groups -------------------------------------------------------------------------------------------------------

    def _follow_fill(self, order: BrokerOrder, now: datetime) -> None:
        """What an execution means for the rest of its group."""
        if order.order_class is OrderClass.SIMPLE:
            return
        is_entry = order.parent_id is None and order.order_class is not OrderClass.OCO
        if is_entry:
            if order.status is Status.FILLED:
                self._activate_legs(order, now)
            return
        for other in self.families.relatives(order):
            if not other.is_open or other.opens:
                continue
            if order.leaves <= 0:
                # Users report that this cancellation is missing from Alpaca's stream: REST alone tells of it.
                self._exchange.cancel(other.id)
                other.canceled_at = now
                self._end(other, Status.CANCELED, now)
            elif other.status is Status.HELD:
                other.qty = order.leaves
                self._exchange.replace(other.id, now=now, qty=other.qty)
                self._touch(other, now)

    def _activate_legs(self, parent: BrokerOrder, now: datetime) -> None:
        """The take-profit goes to work; the stop is watched by the broker and stays `held` until it triggers."""
        legs = self.families.waiting_legs(parent)
        filled = parent.filled_qty + sum((old.filled_qty for old in self.families.forebears(parent)), ZERO)
        # Other orders may have closed a part, or be about to, while the entry was still being filled.
        free = abs(self.account.qty(parent.symbol)) - self.held_for_orders(parent.symbol)
        qty = min(filled, free)
        for leg in legs:
            if qty <= 0:
                self._route_cancel(leg, now)
                continue
            leg.qty = qty
            if leg.order_type is OrderType.LIMIT or len(legs) == 1:
                self._start(leg, now)
            else:
                self._to_exchange(leg, now)

    def _stop_leg_triggers(self, stop: BrokerOrder, now: datetime) -> None:
        for other in self.families.relatives(stop):
            if other.is_open and not other.opens:
                self._exchange.cancel(other.id)
                other.canceled_at = now
                self._end(other, Status.CANCELED, now)
                self._say("canceled", other, now)
        stop.is_dormant = False
        if stop.status is Status.HELD:
            stop.status = Status.NEW
            self._say("new", stop, now)

    # --- records ------------------------------------------------------------------------------------------------------

    def _end(self, order: BrokerOrder, status: Status, now: datetime) -> None:
        order.status = status
        self._open.pop(order.id, None)
        self._touch(order, now)

    def _touch(self, order: BrokerOrder, now: datetime) -> None:
        order.updated_at = now
        self._changed[order.id] = order

    def _say(self, event: str, order: BrokerOrder, at: datetime, fill: Fill | None = None) -> None:
        self._updates.append(Update(event=event, at=at, order=self.to_json(order), fill=fill))

    def _resume(self, order: BrokerOrder, now: datetime) -> None:
        """Takes up one open order where it was left."""
        if self.families.replaces_open(order):
            old = self.orders[order.replaces or ""]
            was = Status.HELD if old.is_dormant else Status.NEW
            self._to_route.append(lambda at: self._route_replace(old, order, was=was, at=at))
        elif order.status is Status.PENDING_NEW:
            self._to_route.append(lambda at: self._route_new(order, at))
        elif order.status is not Status.ACCEPTED and self._is_due(order):
            self._to_exchange(order, now, at_next_open=True)
        if order.status is Status.PENDING_CANCEL:
            self._to_route.append(lambda at: self._route_cancel(order, at))

    def _is_due(self, order: BrokerOrder) -> bool:
        """Whether the order is for the exchange: all are but legs whose parent has not come so far."""
        parent = self.families.parent(order)
        if not order.is_dormant or parent is None:
            return True
        if order.order_class is OrderClass.OCO:
            return parent.status in (Status.NEW, Status.PARTIALLY_FILLED, Status.PENDING_REPLACE)
        return parent.status is Status.FILLED


def _given_id(ids: UUID, number: int) -> str:
    """The client id of an order that came without one: a version 4 UUID as Alpaca gives, not of an engine's kind."""
    return str(UUID(bytes=uuid5(ids, f"client/{number}").bytes, version=4))
