"""The proof that an account is flat, in words, and what is said when it is not."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from trading.broker import BrokerOrderStatus, BrokerPosition, OrderStatus
from trading.holdings import UNKNOWN, Holdings, not_flat, proof

NOW = datetime(2024, 3, 4, tzinfo=UTC)
AAPL = BrokerPosition(symbol="AAPL", qty=Decimal(10), avg_entry_price=Decimal("100.01"), current_price=None)
TSLA = BrokerPosition(symbol="TSLA", qty=Decimal(-5), avg_entry_price=Decimal(200), current_price=None)


def order(symbol: str, kind: str, qty: int, **changes: Any) -> OrderStatus:
    values: dict[str, Any] = {
        "broker_order_id": "b",
        "client_order_id": "c",
        "symbol": symbol,
        "buys": False,
        "order_type": kind,
        "status": BrokerOrderStatus.NEW,
        "broker_status": "new",
        "qty": Decimal(qty),
        "filled_qty": Decimal(0),
        "avg_fill_price": None,
        "limit_price": None,
        "stop_price": None,
        "submitted_at": NOW,
        "updated_at": NOW,
    }
    return OrderStatus(**{**values, **changes})


STOP = order("AAPL", "stop", 10, stop_price=Decimal("98.00"))
EXITS = (order("AAPL", "market", 10), order("TSLA", "market", 8, filled_qty=Decimal(3), buys=True))


def test_the_proof_shows_both_sides() -> None:
    before = Holdings(positions=(AAPL, TSLA), orders=(STOP,))
    assert proof(before, Holdings(foreign=2)) == [
        "Before: 2 positions, 1 working order at the broker.",
        "  10 AAPL long at 100.01",
        "  5 TSLA short at 200",
        "  sell 10 AAPL stop at 98.00 (new)",
        "After: 0 positions, 0 working orders at the broker; 2 of somebody else's are left alone.",
    ]


def test_a_broker_that_does_not_answer_proves_nothing() -> None:
    assert not UNKNOWN.is_flat
    assert proof(UNKNOWN, UNKNOWN)[1] == "After: the broker does not answer."
    assert not_flat(UNKNOWN).startswith("The broker does not answer, so what it holds is not known:")


@pytest.mark.parametrize(
    ("holdings", "flat"),
    [
        (Holdings(), True),
        (Holdings(foreign=3), True),
        (Holdings(positions=(AAPL,)), False),
        (Holdings(orders=(STOP,)), False),
    ],
)
def test_flat_is_neither_shares_nor_orders(holdings: Holdings, flat: bool) -> None:
    assert holdings.is_flat is flat


def test_what_is_left_is_named() -> None:
    left = Holdings(positions=(TSLA,), orders=(STOP,))
    assert not_flat(left).startswith(
        "Not flat, 5 TSLA short, a working order in AAPL left: run `manage.py flatten` again"
    )


@pytest.mark.parametrize(
    ("positions", "orders", "waits"),
    [
        ((AAPL, TSLA), EXITS, True),
        ((AAPL, TSLA), EXITS[:1], False),  # nothing is on its way for the other one
        ((AAPL,), (STOP,), False),
        ((AAPL,), (EXITS[0], STOP), False),  # an order that would sell them again
        ((), (), False),
    ],
)
def test_with_the_market_closed_a_market_order_for_every_share_waits_for_the_open(
    positions: tuple[BrokerPosition, ...], orders: tuple[OrderStatus, ...], waits: bool
) -> None:
    holdings = Holdings(positions=positions, orders=orders)
    assert holdings.waits_for_the_open is waits
    assert not_flat(holdings).startswith("The market is closed") is waits
