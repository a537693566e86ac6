"""The orders of one account that matter now: new ones get their ids here, facts change them here, and nowhere else."""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha1
from uuid import UUID

from orders.events import Created, Fact
from orders.lifecycle import TERMINAL, WORKING, Order, OrderType, Role, Side, TimeInForce, apply, apply_in_place
from orders.values import quick
from trading.journal import Journal
from trading.messages import CancelOrder, OrderRecorded

_order = quick(Order)
ENTRY = Role.ENTRY
MOST_IDS = 10_000  # that are kept: runs on the same bars ask for the same ones
INTENTS = UUID("7f1c3b52-6a0e-4c5d-9d8e-2f6b1a4c7e90").hex  # namespace of all ids


class UnknownOrder(Exception):
    """A fact names an order that is not ours."""


@lru_cache(maxsize=MOST_IDS)
def intent_id(*words: str) -> str:
    """The id of an intent: the same words always give the same one, in any process."""
    return _uuid5(INTENTS, "|".join(words))


class Blotter:
    """Orders by local id, and which entries are working."""

    def __init__(self, journal: Journal) -> None:
        self.orders: dict[str, Order] = {}
        self.entries: dict[str, Order] = {}
        self._live: dict[str, Order] = {}
        # The order of that id, as long as anything can still come of it.
        self.live: Callable[[str], Order | None] = self._live.get
        self._cancel_wanted: set[str] = set()
        self._counts: Counter[tuple[str, Role]] = Counter()
        self._journal = journal

    def write(
        self,
        *,
        symbol: str,
        role: Role,
        side: Side,
        order_type: OrderType,
        qty: Decimal,
        correlation_id: str,
        strategy: str,
        stop_price: Decimal | None = None,
        planned_stop_price: Decimal | None = None,
        expires_at: datetime | None = None,
        parent_id: str | None = None,
        exit_reason: str = "",
        time_in_force: TimeInForce = TimeInForce.DAY,
        moved_at: datetime | None = None,
    ) -> Order:
        """A new order, written down and not sent. A crash before the broker's answer cannot make two of one intent."""
        now = self._journal.now
        number = self._counts[correlation_id, role]
        order = _order(
            local_id=_uuid5(correlation_id.replace("-", ""), f"{role}|{number}"),
            correlation_id=correlation_id,
            symbol=symbol,
            side=side,
            role=role,
            order_type=order_type,
            qty_requested=qty,
            strategy=strategy,
            created_at=now,
            updated_at=now,
            time_in_force=time_in_force,
            stop_price=stop_price,
            planned_stop_price=planned_stop_price,
            parent_id=parent_id,
            exit_reason=exit_reason,
            expires_at=expires_at,
            moved_at=moved_at,
        )
        self.keep(order)
        self._journal.record(
            lambda: OrderRecorded(order=order, fact=Created(local_id=order.local_id, at=now), before=None)
        )
        return order

    def apply(self, fact: Fact) -> Order:
        """The order after the fact.

        Raises:
            UnknownOrder: it is not ours.
            IllegalTransition: the fact contradicts what is known; nothing was changed.
        """
        before = self.orders.get(fact.local_id)
        if before is None:
            raise UnknownOrder(fact.local_id)
        if self._journal.keeps_records:
            order = apply(before, fact)
            self._journal.add(OrderRecorded(order=order, fact=fact, before=before))
            self.keep(order)
            return order
        apply_in_place(before, fact)  # nobody else keeps it
        if before.state in TERMINAL:
            self.keep(before)
        return before

    def keep(self, order: Order) -> None:
        """Takes an order in as it is now."""
        local_id = order.local_id
        if local_id not in self.orders:
            self._counts[order.correlation_id, order.role] += 1
        self.orders[local_id] = order
        if order.state in TERMINAL:
            self._live.pop(local_id, None)
            self.entries.pop(local_id, None)
            self._cancel_wanted.discard(local_id)
        else:
            self._live[local_id] = order
            if order.role is ENTRY:
                self.entries[local_id] = order

    def cancel(self, order: Order) -> None:
        """Asks for a cancellation once; one the broker has not confirmed yet is cancelled as soon as it has."""
        if order.local_id not in self._cancel_wanted:
            self._cancel_wanted.add(order.local_id)
            self.cancel_if_wanted(order)

    def cancel_if_wanted(self, order: Order) -> None:
        """If the order was to be cancelled it is, once the broker has it and no replacement of it is under way.

        Alpaca refuses to cancel an order in `pending_replace`.
        """
        if self.is_being_canceled(order) and order.state in WORKING and order.requested_stop_price is None:
            self._journal.add(CancelOrder(order=order))

    def cancel_failed(self, local_id: str) -> None:
        """The order is as it was; it may be asked for again."""
        self._cancel_wanted.discard(local_id)

    def is_being_canceled(self, order: Order) -> bool:
        """Whether a cancellation was asked for and has not been answered."""
        return order.local_id in self._cancel_wanted

    def working_symbols(self) -> set[str]:
        """Symbols with an order of which something can still come."""
        return {order.symbol for order in self._live.values()}

    def prune(self, held: Collection[str]) -> None:
        """Forgets ended orders, but not those of the round trips with these correlation ids: the ledger keeps them."""
        self.orders = {k: o for k, o in self.orders.items() if not o.is_terminal or o.correlation_id in held}
        self._counts = Counter((order.correlation_id, order.role) for order in self.orders.values())


def _uuid5(namespace_hex: str, name: str) -> str:
    """The text of `uuid.uuid5` (RFC 9562, 5.5), which takes four times as long; a backtest makes thousands of ids."""
    digest = sha1(bytes.fromhex(namespace_hex) + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
