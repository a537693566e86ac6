"""Which orders belong together: the legs of a group, and the orders that replaced one another."""

from collections.abc import Iterator, Mapping

from trading.simulator.orders import BrokerOrder, OrderClass, Status


class Families:
    """Questions about relations among all orders, which are by their ids."""

    def __init__(self, orders: Mapping[str, BrokerOrder]) -> None:
        self._orders = orders

    def legs(self, parent: BrokerOrder) -> list[BrokerOrder]:
        """The legs of a group's parent, replaced ones left out."""
        if parent.order_class is OrderClass.SIMPLE or parent.parent_id is not None:
            return []
        ids = {parent.id, *(order.id for order in self.forebears(parent))}
        return [leg for leg in self._orders.values() if leg.parent_id in ids and leg.status is not Status.REPLACED]

    def waiting_legs(self, parent: BrokerOrder) -> list[BrokerOrder]:
        """The legs that have not started yet; of one that is being replaced the old one."""
        waiting = (leg for leg in self.legs(parent) if leg.status in (Status.HELD, Status.PENDING_REPLACE))
        return [leg for leg in waiting if not self.replaces_open(leg)]

    def group(self, order: BrokerOrder) -> list[BrokerOrder]:
        """The open orders that end together with this one, itself first."""
        return [order, *(other for other in self.relatives(order) if other.is_open)]

    def relatives(self, order: BrokerOrder) -> Iterator[BrokerOrder]:
        """The other orders of its group, as they are now."""
        if order.order_class is OrderClass.SIMPLE:
            return
        parent = self.parent(order) or order
        yield from (each for each in (parent, *self.legs(parent)) if each.id != order.id)

    def parent(self, order: BrokerOrder) -> BrokerOrder | None:
        """The order a leg belongs to, or the one that has replaced that; None for what is no leg."""
        if order.parent_id is None:
            return None
        parent = self._orders[order.parent_id]
        while parent.replaced_by is not None:
            parent = self._orders[parent.replaced_by]
        return parent

    def replaces_open(self, order: BrokerOrder) -> bool:
        """Whether the order is a replacement that is still on its way: until then the old one counts."""
        return order.replaces is not None and self._orders[order.replaces].is_open

    def forebears(self, order: BrokerOrder) -> Iterator[BrokerOrder]:
        """The orders this one has replaced, the latest first."""
        while order.replaces is not None:
            order = self._orders[order.replaces]
            yield order
