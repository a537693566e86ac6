"""Ledger against broker: what differs, what it costs, and which orders are whose."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.lifecycle import Side
from orders.portfolio import Position
from orders.reports import BrokerOrderStatus
from trading.broker import BrokerPosition, OrderStatus
from trading.reconcile import Findings, compare, covers, is_our_pattern

NOW = datetime(2024, 3, 4, 15, tzinfo=UTC)


def ours(qty: int, price: str = "100", side: Side = Side.LONG, stop: str | None = "95") -> Position:
    return Position(
        symbol="AAPL", side=side, correlation_id="c", strategy="velez", entry_order_id="o", entry_at=NOW,
        entry_qty=Decimal(qty), entry_value=Decimal(qty) * Decimal(price),
        initial_stop_price=Decimal(stop) if stop else None,
    )  # fmt: skip


def theirs(qty: str, price: str = "100") -> BrokerPosition:
    return BrokerPosition(symbol="AAPL", qty=Decimal(qty), avg_entry_price=Decimal(price), current_price=None)


def order(client_id: str = "x", **changes: Any) -> OrderStatus:
    plain = OrderStatus(
        broker_order_id="b", client_order_id=client_id, symbol="AAPL", buys=False, order_type="stop",
        status=BrokerOrderStatus.NEW, broker_status="new", qty=Decimal(10), filled_qty=Decimal(0), avg_fill_price=None,
        limit_price=None, stop_price=Decimal(95), submitted_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return replace(plain, **changes)


def found(here: Position | None, there: BrokerPosition | None, *orders: OrderStatus) -> Findings:
    return compare(
        positions={"AAPL": here} if here else {},
        last_prices={"AAPL": Decimal(101)},
        our_order_ids={"known"},
        broker_positions=[there] if there else [],
        broker_orders=orders,
    )


def test_the_same_on_both_sides_is_no_finding() -> None:
    assert found(ours(10), theirs("10")).shares_agree
    assert found(ours(10, side=Side.SHORT), theirs("-10")).shares_agree
    assert found(None, None).shares_agree


def test_shares_there_alone_are_unknown_and_shares_here_alone_are_gone() -> None:
    (unknown,) = found(None, theirs("-7", "50")).unknown
    assert (unknown.side, unknown.qty, unknown.price, unknown.held) == (Side.SHORT, Decimal(7), Decimal(50), Decimal(0))
    (gone,) = found(ours(10), None).gone
    assert (gone.qty, gone.price, gone.held) == (Decimal(10), Decimal(101), Decimal(10))  # at the last price


def test_more_shares_cost_what_makes_the_whole_cost_what_the_broker_says() -> None:
    (more,) = found(ours(10), theirs("15", "104")).unknown
    assert (more.qty, more.price, more.held) == (Decimal(5), Decimal(112), Decimal(10))
    assert found(ours(10), theirs("15", "104")).gone == ()


def test_a_price_that_would_not_be_one_is_the_brokers_average() -> None:
    (more,) = found(ours(10), theirs("15", "60")).unknown
    assert more.price == Decimal(60)


def test_fewer_shares_are_gone_in_part() -> None:
    (gone,) = found(ours(10), theirs("4")).gone
    assert (gone.qty, gone.held) == (Decimal(6), Decimal(10))


def test_on_the_other_side_everything_is_gone_first_and_then_unknown() -> None:
    findings = found(ours(10), theirs("-3", "99"))
    assert findings.gone[0].qty == Decimal(10)
    assert (findings.unknown[0].qty, findings.unknown[0].side, findings.unknown[0].held) == (
        Decimal(3),
        Side.SHORT,
        Decimal(0),
    )


@pytest.mark.parametrize(
    ("qty", "price", "stop"),
    [("40", "25", "23.75"), ("5", "200", "190.00"), ("15", "66.6667", "63.33")],
)
def test_the_same_money_in_another_number_of_shares_is_a_split(qty: str, price: str, stop: str) -> None:
    findings = found(ours(10), theirs(qty, price))
    (split,) = findings.splits
    assert (split.qty, split.held, split.stop_price) == (Decimal(qty), Decimal(10), Decimal(stop))
    assert findings.unknown == findings.gone == ()


def test_the_stop_of_a_short_is_rounded_the_other_way() -> None:
    (split,) = found(ours(10, side=Side.SHORT, stop="105"), theirs("-15", "66.6667")).splits
    assert (split.stop_price, split.held) == (Decimal("70.00"), Decimal(-10))


def test_other_money_is_no_split() -> None:
    assert found(ours(10), theirs("40", "26")).splits == ()
    assert found(ours(10), theirs("40", "100")).splits == ()


@given(here=st.integers(-50, 50), there=st.integers(-50, 50), price=st.integers(1, 400))
def test_working_the_findings_in_makes_both_sides_agree(here: int, there: int, price: int) -> None:
    position = ours(abs(here), side=Side.LONG if here > 0 else Side.SHORT) if here else None
    findings = found(position, theirs(str(there), str(price)))
    held = Decimal(here)
    for split in findings.splits:
        held = split.qty if split.side is Side.LONG else -split.qty
    for gone in findings.gone:
        held -= gone.qty if gone.side is Side.LONG else -gone.qty
    for unknown in findings.unknown:
        held += unknown.qty if unknown.side is Side.LONG else -unknown.qty
    assert held == there


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_order_is_a_stray_unless_its_id_is_ours() -> None:
    assert found(None, None, order("known"), order("known-r2"), order("other")).strays == (order("other"),)


@pytest.mark.parametrize("status", [BrokerOrderStatus.NEW, BrokerOrderStatus.PENDING, BrokerOrderStatus.ACCEPTED])
def test_a_stop_for_the_whole_position_covers_it(status: BrokerOrderStatus) -> None:
    assert covers(order(status=status), ours(10))
    assert covers(order(buys=True, status=status), ours(10, side=Side.SHORT))


@pytest.mark.parametrize(
    "other",
    [
        {"qty": Decimal(9)}, {"buys": True}, {"order_type": "limit"}, {"stop_price": None}, {"symbol": "TSLA"},
        {"status": BrokerOrderStatus.CANCELED}, {"filled_qty": Decimal(1)},
    ],
)  # fmt: skip
def test_nothing_else_does(other: dict[str, Any]) -> None:
    assert not covers(order(**other), ours(10))


@pytest.mark.parametrize(
    ("client_id", "is_ours"),
    [
        ("0b3d5a86-52e1-5d0f-9d5c-6c2f8f3f1a44", True),
        ("0b3d5a86-52e1-5d0f-9d5c-6c2f8f3f1a44-r12", True),
        ("0b3d5a86-52e1-4d0f-9d5c-6c2f8f3f1a44", False),  # version 4: as the broker gives
        ("0b3d5a86-52e1-5d0f-9d5c-6c2f8f3f1a44-r", False),
        ("bot7-e-1", False),
        ("", False),
    ],
)
def test_an_engines_ids_are_known_by_their_shape(client_id: str, is_ours: bool) -> None:
    assert is_our_pattern(client_id) is is_ours


def test_only_what_two_looks_show_alike_counts() -> None:
    gone, fewer, split = found(ours(10), None), found(ours(10), theirs("4")), found(ours(10), theirs("20", "50"))
    for looks in (gone, fewer, split):
        assert looks.confirmed_by(looks) == looks
    moved = found(ours(10, price="99"), None)  # the same shares, worth something else
    assert moved.confirmed_by(gone) == moved
    # Between the questions of the second look another order was filled, or another part of it.
    assert found(ours(10), None).confirmed_by(found(None, theirs("-7"))).shares_agree
    assert gone.confirmed_by(fewer).shares_agree
    assert split.confirmed_by(gone).shares_agree


def test_orders_of_nobody_need_no_second_look() -> None:
    stray = found(None, None, order())
    assert stray.confirmed_by(found(None, None)).strays == stray.strays != ()
