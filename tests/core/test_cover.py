"""The naked-seconds meter against a plain account of the same events, second by second."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.events import Accepted, Canceled, Fact, Filled
from orders.lifecycle import Order, OrderType, Role, Side
from trading.cover import Cover, CoverMeter

OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
ENTRY = Order(
    local_id="entry",
    correlation_id="signal",
    symbol="AAPL",
    side=Side.LONG,
    role=Role.ENTRY,
    order_type=OrderType.STOP,
    qty_requested=Decimal(10),
    strategy="velez",
    created_at=OPEN,
    updated_at=OPEN,
)
EXIT = replace(ENTRY, local_id="exit", role=Role.EXIT)


def stop(number: int = 0, qty: int = 10) -> Order:
    return replace(ENTRY, local_id=f"stop-{number}", role=Role.STOP_LOSS, qty_requested=Decimal(qty))


def at(second: float) -> datetime:
    return OPEN + timedelta(seconds=second)


def fill(order: Order, second: float, qty: int = 10, *, learned: float | None = None) -> tuple[Order, Filled]:
    known_at = at(second if learned is None else learned)
    return order, Filled(
        local_id=order.local_id,
        at=known_at,
        qty=Decimal(qty),
        price=Decimal(100),
        filled_at=at(second),
        execution_id=f"{order.local_id} {second}",
    )


def accepted(order: Order, second: float) -> tuple[Order, Accepted]:
    return order, Accepted(local_id=order.local_id, at=at(second), broker_id="b")


def canceled(order: Order, second: float) -> tuple[Order, Canceled]:
    return order, Canceled(local_id=order.local_id, at=at(second))


def measure(*events: tuple[Order, Fact], times_fills: bool = True) -> Cover:
    """The measurement of the position that the last event closed."""
    meter = CoverMeter(times_fills=times_fills)
    closed = [meter.take(*event) for event in events]
    assert closed[:-1] == [None] * (len(events) - 1)
    assert closed[-1] is not None
    assert meter.open(at(10_000)) == {}
    return closed[-1]


def test_from_the_fill_until_the_broker_has_the_stop() -> None:
    cover = measure(fill(ENTRY, 0), accepted(stop(), 0.4), fill(stop(), 60))
    assert (cover.seconds, cover.longest_seconds, cover.stretches) == (0.4, 0.4, 1)
    assert cover.most_dollars == 1000


def test_a_fill_learned_of_late_counts_from_when_it_was() -> None:
    cover = measure(fill(ENTRY, 0, learned=70), accepted(stop(), 71), fill(stop(), 90))
    assert cover.seconds == 71
    assert cover.latest_seconds == 71
    cover = measure(fill(ENTRY, 0, learned=70), accepted(stop(), 71), fill(stop(), 90), times_fills=False)
    assert cover.seconds == 1


def test_a_partly_covered_position_is_naked_for_the_rest() -> None:
    meter = CoverMeter(times_fills=True)
    for event in (fill(ENTRY, 0, 6), accepted(stop(qty=6), 1), fill(ENTRY, 5, 4)):
        meter.take(*event)
    cover = meter.open(at(8))["AAPL"]
    assert (cover.uncovered_qty, cover.dollars, cover.since) == (Decimal(4), Decimal(400), at(5))
    assert (cover.seconds, cover.longest_seconds, cover.most_dollars) == (4.0, 3.0, Decimal(600))


def test_a_position_that_is_left_is_naked_until_it_is_sold() -> None:
    cover = measure(fill(ENTRY, 0), accepted(stop(), 0), canceled(stop(), 30), fill(EXIT, 32.5))
    assert (cover.seconds, cover.stretches) == (2.5, 2)


def test_an_entry_that_never_filled_leaves_nothing() -> None:
    meter = CoverMeter(times_fills=True)
    meter.take(*accepted(ENTRY, 0))
    meter.take(*canceled(ENTRY, 5))
    meter.forget("signal")
    assert meter.open(at(9)) == {}


# --- against a plain account ------------------------------------------------------------------------------------------

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["buy", "protect", "cancel"]), st.integers(1, 5), st.integers(0, 7)), max_size=12
)


def story(steps: Sequence[Step]) -> tuple[list[tuple[Order, Fact]], list[tuple[int, int]]]:
    """Events in time, and how many shares are naked from which second on."""
    events: list[tuple[Order, Fact]] = []
    naked: list[tuple[int, int]] = []
    second = held = number = 0
    working: dict[int, int] = {}
    for kind, qty, later in steps:
        second += later
        if kind == "buy":
            events.append(fill(ENTRY, second, qty))
            held += qty
        elif kind == "protect":
            number += 1
            events.append(accepted(stop(number, qty), second))
            working[number] = qty
        elif working:
            gone, size = working.popitem()
            events.append(canceled(stop(gone, size), second))
        naked.append((second, max(held - sum(working.values()), 0)))
    return events, naked


@given(STEPS)
def test_it_counts_what_a_plain_account_counts(steps: Sequence[Step]) -> None:
    events, naked = story(steps)
    end = (naked[-1][0] if naked else 0) + 3
    by_second = [0] * (end + 1)
    for number, (start, qty) in enumerate(naked):
        until = naked[number + 1][0] if number + 1 < len(naked) else end
        for second in range(start, until):
            by_second[second] = qty
    meter = CoverMeter(times_fills=True)
    for event in events:
        meter.take(*event)
    cover: Any = meter.open(at(end)).get("AAPL")
    if cover is None:
        assert not any(by_second)
        return
    assert cover.seconds == sum(qty > 0 for qty in by_second)
    assert cover.most_dollars == 100 * max([qty for _, qty in naked], default=0)
    assert cover.uncovered_qty == (naked[-1][1] if naked else 0)
    assert cover.longest_seconds <= cover.seconds + 1e-9


@given(STEPS, st.randoms())
def test_it_never_counts_more_than_the_time_that_passed_whatever_the_order_of_news(
    steps: Sequence[Step], random: Any
) -> None:
    events, naked = story(steps)
    random.shuffle(events)
    end = (naked[-1][0] if naked else 0) + 3
    meter = CoverMeter(times_fills=True)
    for event in events:
        meter.take(*event)
    for cover in meter.open(at(end)).values():
        assert 0 <= cover.longest_seconds <= cover.seconds <= end
        assert (cover.since is None) == (cover.uncovered_qty == 0)
        assert cover.most_dollars >= cover.dollars


@pytest.mark.parametrize("times_fills", [True, False])
def test_a_stop_that_fills_in_part_keeps_covering_the_rest(times_fills: bool) -> None:
    meter = CoverMeter(times_fills=times_fills)
    for event in (fill(ENTRY, 0), accepted(stop(), 0), fill(stop(), 5, 4)):
        meter.take(*event)
    assert meter.open(at(9))["AAPL"].seconds == 0
