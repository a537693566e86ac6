"""Engines that lack one safeguard each. They exist to show that the simulation would notice.

A part is replaced by a weaker one when the engine is put together; the product has no switch for any of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orders.events import Fact, Filled
from orders.lifecycle import Order, local_id_of
from orders.reports import OrderReport
from tests.simulation.world import SIMULATED, PacedEngine
from trading.books import Book
from trading.broker import BrokerUnavailable, OrderRefused, OrderRequest, OrderStatus
from trading.live.calls import BrokerCalls
from trading.live.lock import EngineLock
from trading.live.process import Parts
from trading.messages import OrderChanged, Reconciled, Record, Restored
from trading.trader import Trader


class WritesBehind(PacedEngine):
    """Acts first and writes down what it did when there is time."""

    async def _write(self, records: Sequence[Record], *, urgent: bool) -> None:
        self.spawn(super()._write(records, urgent=urgent))


class BelievesErrors(BrokerCalls):
    """Takes no answer for a no: it never asks whether an order got there after all."""

    async def submit(self, order: OrderRequest, *, protective: bool = False) -> OrderStatus:
        try:
            return await self.broker.submit_order(order)
        except BrokerUnavailable as error:
            raise OrderRefused(f"no answer: {error}", status=0) from error


class BooksEveryMessage(PacedEngine):
    """Books an execution whenever one is told of."""

    async def _facts(self, report: OrderReport, *, reconciling: bool) -> Sequence[Any]:
        order = self.trader.orders.get(local_id_of(report.client_order_id))
        told = report.execution
        if order is None or told is None or not await self._is_known(order, told.execution_id):
            return await super()._facts(report, reconciling=reconciling)
        return [
            Filled(
                local_id=order.local_id,
                at=self.clock(),
                qty=told.qty,
                price=told.price,
                filled_at=report.at,
                execution_id=f"{told.execution_id}-again",
                broker_id=report.broker_id,
                forced=True,
            )
        ]

    async def _is_known(self, order: Order, execution_id: str) -> bool:
        known: Sequence[Fact] = self._history.get(order.local_id, ())
        return any(isinstance(fact, Filled) and fact.execution_id == execution_id for fact in known)


class LeavesPositionsNaked(Trader):
    """Places a stop for what it saw filled, and none for what it finds when it starts or compares."""

    _found: frozenset[str] = frozenset()
    _is_starting = False

    def _on_restored(self, event: Restored) -> None:
        self._is_starting = True
        super()._on_restored(event)

    def _on_reconciled(self, event: Reconciled) -> None:
        if self._is_starting:
            self._found, self._is_starting = frozenset(self.portfolio.positions), False
        super()._on_reconciled(event)

    def _on_order(self, event: OrderChanged) -> None:
        super()._on_order(event)
        self._found &= frozenset(self.portfolio.positions)

    def _place_stop(self, book: Book, position: Any) -> None:
        if not self._is_starting and book.symbol not in self._found:
            super()._place_stop(book, position)


class WaitsForTheRest(Trader):
    """Has no deadline for an entry that was filled in part."""

    def _schedule_protection(self, book: Book, entry: Order) -> None:
        return


class OpenLock(EngineLock):
    """Lets everybody in."""

    def acquire(self) -> None:
        return

    def is_held(self) -> bool:
        return True


MUTATIONS: Mapping[str, Parts] = {
    "write-ahead": replace(SIMULATED, engine=WritesBehind),
    "look-up by id": replace(SIMULATED, calls=BelievesErrors),
    "one booking an execution": replace(SIMULATED, engine=BooksEveryMessage),
    "stops for what is found": replace(SIMULATED, trader=LeavesPositionsNaked),
    "deadline of partial fills": replace(SIMULATED, trader=WaitsForTheRest),
    "lock": replace(SIMULATED, lock=OpenLock),
}
