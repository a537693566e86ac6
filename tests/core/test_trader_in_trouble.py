"""The Trader when the market or the broker does what it should not: halts, exits that do not fill, orders come back."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from orders.events import Accepted, Canceled, Filled, SubmitFailed, Submitted
from orders.lifecycle import Order, OrderState, Role, Side
from tests.core.test_trader import SESSION, ByClose, Floor
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.messages import (
    ActivityRecorded,
    ActivityType,
    CancelFailed,
    CloseRequested,
    CompareWithBroker,
    EntriesBlocked,
    ForeignHeld,
    Halted,
    OrderRecorded,
    PositionAdopted,
    PositionGone,
    Reconciled,
    StopAdopted,
    SymbolBlocked,
)
from trading.strategy import Condition

TEN_BEFORE_CLOSE = SESSION.close - timedelta(seconds=10)


class Fragile(ByClose):
    """Breaks where it explains itself and where it is told of a closed position."""

    name = "fragile"
    hyperparameters: ClassVar[Mapping[str, Any]] = ByClose.hyperparameters

    def conditions(self, candle: Candle, indicators: IndicatorSet) -> list[Condition]:
        raise KeyError("nothing to say")

    def position_closed(self) -> None:
        raise KeyError("nothing to forget")


def block(floor: Floor, reason: str, *, cause: str, symbol: str = "AAPL") -> None:
    floor.tell(SymbolBlocked(now=floor.now, symbol=symbol, reason=reason, cause=cause))


def leaving(floor: Floor) -> Order:
    """A position whose exit is working: the stop is gone."""
    _, stop = floor.long()
    floor.bar(1, "102.33")
    assert floor.canceled() == [stop.local_id]
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    floor.accept(exit_order)
    return floor.trader.orders[exit_order.local_id]


# --- why a symbol takes no entries ------------------------------------------------------------------------------------


def test_each_cause_that_stops_a_symbols_entries_is_lifted_for_itself() -> None:
    floor = Floor("AAPL", "TSLA")
    block(floor, "halted: T1", cause="halt")
    block(floor, "foreign shares", cause="foreign")
    block(floor, "", cause="halt")
    floor.bar(0, "102.11")
    assert floor.refusals() == ["symbol_state"]
    assert floor.trader.block_of("AAPL") == "foreign shares"
    floor.bar(0, "102.11", symbol="TSLA")
    assert len(floor.sent()) == 1
    block(floor, "", cause="foreign")
    floor.bar(1, "102.11")
    assert len(floor.sent()) == 1


def test_a_block_is_said_once_and_so_is_its_end() -> None:
    floor = Floor()
    said = [
        [answer.message for answer in floor.tell(event) if isinstance(answer, ActivityRecorded)]
        for event in [
            SymbolBlocked(now=floor.now, symbol="AAPL", reason=reason, cause="halt")
            for reason in ("news pending", "news pending", "", "")
        ]
    ]
    assert said == [["AAPL takes no entries: news pending"], [], ["AAPL takes entries again"], []]


def test_a_block_of_a_symbol_that_is_not_traded_holds_when_it_comes_onto_the_watchlist() -> None:
    floor = Floor("TSLA")
    block(floor, "foreign orders", cause="foreign")
    floor.tell(PositionAdopted(now=floor.now, symbol="AAPL", side=Side.LONG, qty=Decimal(5), price=Decimal(10)))
    assert floor.trader.books["AAPL"].blocked == "foreign orders"


def test_while_the_broker_is_not_to_be_trusted_no_symbol_takes_entries() -> None:
    floor = Floor("AAPL", "TSLA")
    entry = floor.entry()
    floor.tell(EntriesBlocked(now=floor.now, cause="clock", reason="the clock is 12 s off"))
    assert floor.canceled() == []  # what works goes on
    floor.bar(0, "102.11", symbol="TSLA")
    assert floor.refusals() == ["halted"]
    floor.tell(EntriesBlocked(now=floor.now, cause="clock", reason=""))
    floor.bar(1, "102.11", symbol="TSLA")
    assert len(floor.sent()) == 1
    assert floor.trader.entry_of("AAPL") == floor.trader.orders[entry.local_id]


def test_a_strategy_that_breaks_while_it_explains_itself_costs_only_its_symbols_next_entries() -> None:
    floor = Floor(strategies=["fragile"])
    _, stop = floor.long()
    assert floor.trader.block_of("AAPL").startswith("Fragile.conditions failed")
    floor.fill(stop, 12, "99")
    assert floor.trader.portfolio.positions == {}
    floor.bar(3, "102.11")
    assert floor.refusals() == ["symbol_state"]


# --- halts and the close ----------------------------------------------------------------------------------------------


def test_a_halted_symbols_exit_waits_under_its_stop_until_it_trades_again() -> None:
    floor = Floor()
    _, stop = floor.long()
    block(floor, "halted by the exchange", cause="halt")
    floor.bar(1, "102.33")
    assert floor.canceled() == []
    assert floor.trader.stop_of("AAPL") is not None
    block(floor, "", cause="halt")
    assert floor.canceled() == [stop.local_id]
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    assert exit_order.exit_reason == "max_run"


def test_a_halt_that_comes_when_the_stop_is_gone_already_brings_it_back() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.33")
    block(floor, "halted by the exchange", cause="halt")
    floor.fact(Canceled, stop)
    (back,) = floor.sent()
    assert (back.role, back.qty_requested, back.stop_price) == (Role.STOP_LOSS, Decimal(12), Decimal("99.00"))


def test_an_exit_that_does_not_fill_is_cancelled_ten_seconds_before_the_close_and_the_stop_goes_back() -> None:
    floor = Floor()
    exit_order = leaving(floor)
    while floor.now < TEN_BEFORE_CLOSE:
        floor.timer()
    assert floor.now == TEN_BEFORE_CLOSE
    assert floor.canceled() == [exit_order.local_id]
    assert "could not be closed" in floor.critical()[0]
    assert floor.sent() == []  # never both
    floor.fact(Canceled, exit_order)
    (stop,) = floor.sent()
    assert (stop.role, stop.stop_price, str(stop.time_in_force)) == (Role.STOP_LOSS, Decimal("99.00"), "gtc")


def test_what_an_exit_sold_before_it_was_given_up_needs_no_stop() -> None:
    floor = Floor()
    exit_order = leaving(floor)
    floor.fill(exit_order, 5, "102")
    while floor.now < TEN_BEFORE_CLOSE:
        floor.timer()
    floor.fact(Canceled, exit_order)
    (stop,) = floor.sent()
    assert stop.qty_requested == Decimal(7)


def test_in_the_last_seconds_nothing_is_left_any_more() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.now = TEN_BEFORE_CLOSE + timedelta(seconds=1)
    floor.tell(CloseRequested(now=floor.now))
    assert floor.canceled() == []
    assert floor.trader.stop_of("AAPL") == stop


def test_an_exit_that_filled_in_time_leaves_nothing_to_give_up() -> None:
    floor = Floor()
    exit_order = leaving(floor)
    floor.fill(exit_order, 12, "102")
    while floor.trader.next_due() is not None:
        floor.timer()
        assert floor.critical() == []


# --- orders that were given up, shares that do not add up -------------------------------------------------------------


def test_an_entry_that_was_given_up_and_works_after_all_is_cancelled_when_there_is_another() -> None:
    floor = Floor()
    floor.bar(0, "102.11")
    (lost,) = floor.sent()
    floor.fact(Submitted, lost)
    floor.fact(SubmitFailed, lost)
    entry = floor.entry(1)
    floor.fact(Accepted, lost, broker_id="late", forced=True)
    assert floor.canceled() == [lost.local_id]
    assert floor.trader.entry_of("AAPL") == floor.trader.orders[entry.local_id]


def test_an_entry_that_works_after_all_takes_its_place_again_until_it_expires() -> None:
    floor = Floor()
    floor.bar(0, "102.11")
    (lost,) = floor.sent()
    floor.fact(Submitted, lost)
    floor.fact(SubmitFailed, lost)
    floor.trader.books["AAPL"].entry_id = ""
    floor.fact(Accepted, lost, broker_id="late", forced=True)
    assert floor.canceled() == []
    assert floor.trader.entry_of("AAPL") is not None
    floor.bar(2, "102")
    assert floor.canceled() == [lost.local_id]


def test_a_stop_that_was_given_up_and_works_after_all_is_not_a_second_one() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, 12, "103")
    (lost,) = floor.sent()
    floor.fact(Submitted, lost)
    floor.fact(SubmitFailed, lost)
    floor.timer()
    (stop,) = floor.sent()
    floor.accept(stop)
    floor.fact(Accepted, lost, broker_id="late", forced=True)
    assert floor.canceled() == [lost.local_id]


def test_a_sale_of_more_than_is_held_is_written_down_and_the_broker_is_asked() -> None:
    floor = Floor()
    entry, stop = floor.long()
    floor.tell(PositionGone(now=floor.now, symbol="AAPL", qty=Decimal(12), price=Decimal(101)))
    answers = floor.fill(stop, 12, "99")
    assert any(isinstance(answer, OrderRecorded) and isinstance(answer.fact, Filled) for answer in answers)
    assert any(isinstance(answer, CompareWithBroker) for answer in answers)
    assert floor.critical()
    floor.bar(3, "102.11")
    assert floor.refusals() == ["symbol_state"]
    assert floor.trader.orders[entry.local_id].state is OrderState.FILLED


@pytest.mark.parametrize("held", ["0", "11", "-12"])
def test_a_difference_that_is_explained_by_now_changes_nothing(held: str) -> None:
    floor = Floor()
    floor.long()
    event = PositionGone(now=floor.now, symbol="AAPL", qty=Decimal(12), price=Decimal(101), held=Decimal(held))
    assert floor.tell(event) == []
    assert floor.trader.portfolio.positions["AAPL"].qty == Decimal(12)


def test_a_difference_that_still_stands_is_booked() -> None:
    floor = Floor()
    floor.long()
    floor.tell(PositionGone(now=floor.now, symbol="AAPL", qty=Decimal(12), price=Decimal(101), held=Decimal(12)))
    assert floor.trader.portfolio.positions == {}


def test_adopted_shares_are_protected_where_it_is_known_where() -> None:
    floor = Floor()
    floor.tell(
        PositionAdopted(
            now=floor.now, symbol="AAPL", side=Side.LONG, qty=Decimal(48), price=Decimal("25.75"),
            held=Decimal(0), stop_price=Decimal("24.75"), detail="a split",
        )
    )  # fmt: skip
    floor.tell(Reconciled(now=floor.now))
    stop = floor.trader.stop_of("AAPL")
    assert stop is not None
    assert (stop.qty_requested, stop.stop_price) == (Decimal(48), Decimal("24.75"))


def test_a_stop_found_at_the_broker_is_the_positions_own_from_then_on() -> None:
    floor = Floor()
    floor.tell(PositionAdopted(now=floor.now, symbol="AAPL", side=Side.LONG, qty=Decimal(10), price=Decimal(100)))
    floor.tell(StopAdopted(now=floor.now, symbol="AAPL", broker_id="leg", qty=Decimal(10), stop_price=Decimal(95)))
    floor.tell(Reconciled(now=floor.now))
    assert floor.sent() == []
    stop = floor.trader.stop_of("AAPL")
    assert stop is not None
    assert (stop.broker_id, stop.stop_price) == ("leg", Decimal(95))
    floor.fill(stop, 10, "95")
    assert floor.trader.portfolio.positions == {}


def test_of_two_stops_for_the_same_shares_one_is_cancelled() -> None:
    floor = Floor()
    _, stop = floor.long()
    surplus = floor.trader._blotter.write(
        symbol="AAPL", role=Role.STOP_LOSS, side=Side.LONG, order_type=stop.order_type, qty=Decimal(12),
        correlation_id=stop.correlation_id, strategy="by_close", stop_price=Decimal(98),
    )  # fmt: skip
    floor.accept(surplus)
    assert floor.canceled() == [surplus.local_id]


def test_foreign_shares_count_in_equity_and_nowhere_else() -> None:
    floor = Floor("AAPL")
    floor.tell(ForeignHeld(now=floor.now, symbol="AAPL", qty=Decimal(10), price=Decimal(100)))
    assert floor.trader.equity() == Decimal(26_000)
    floor.bar(0, "102")
    assert floor.trader.equity() == Decimal(26_020)
    assert floor.trader.portfolio.positions == {}
    floor.tell(ForeignHeld(now=floor.now, symbol="AAPL", qty=Decimal(0), price=Decimal(100)))
    assert floor.trader.equity() == Decimal(25_000)


def test_an_entry_that_a_halt_could_not_cancel_is_cancelled_later() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.tell(Halted(now=floor.now, reason="operator"))
    assert floor.canceled() == [entry.local_id]
    floor.tell(CancelFailed(now=floor.now, local_id=entry.local_id))
    floor.timer()
    assert floor.canceled() == [entry.local_id]


def test_an_alarm_is_critical() -> None:
    floor = Floor()
    floor.tell(SymbolBlocked(now=floor.now, symbol="AAPL", reason="a split?", cause="split", is_alarm=True))
    assert floor.critical() == ["AAPL takes no entries: a split?"]
    assert [a.type for a in floor.answers if isinstance(a, ActivityRecorded)] == [ActivityType.HALTED]
