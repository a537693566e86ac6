"""Cash, positions and trades as the fold of fills, against the same numbers worked out directly."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.events import Filled
from orders.lifecycle import Order, OrderType, Role, Side
from orders.portfolio import ImpossibleFill, Trade, exit_reason_of, fold

T0 = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
CASH = Decimal(25000)
Fill = tuple[Order, Filled]


def order(role: Role = Role.ENTRY, *, side: Side = Side.LONG, symbol: str = "AAPL", moved: bool = False) -> Order:
    return Order(
        local_id=f"{symbol}-{role}",
        correlation_id=f"c-{symbol}",
        symbol=symbol,
        side=side,
        role=role,
        order_type=OrderType.STOP,
        qty_requested=Decimal(1000),
        strategy="velez",
        exit_reason="max_run" if role is Role.EXIT else "",
        created_at=T0 - timedelta(minutes=1),
        updated_at=T0,
        moved_at=T0 if moved else None,
    )


def fill(words: str, *, minute: int = 0, side: Side = Side.LONG, symbol: str = "AAPL", moved: bool = False) -> Fill:
    """An execution from `enter|stop|leave qty price [commission]`."""
    verb, qty, price, *commission = words.split()
    role = {"enter": Role.ENTRY, "stop": Role.STOP_LOSS, "leave": Role.EXIT}[verb]
    of = order(role, side=side, symbol=symbol, moved=moved)
    return of, Filled(
        local_id=of.local_id,
        at=T0,
        qty=Decimal(qty),
        price=Decimal(price),
        filled_at=T0 + timedelta(minutes=minute),
        execution_id=f"{symbol}-{minute}",
        commission=Decimal(commission[0] if commission else 0),
    )


def fills(script: str, *, side: Side = Side.LONG, moved: bool = False) -> list[Fill]:
    """Executions with commas between them, a minute apart."""
    return [fill(words, minute=number, side=side, moved=moved) for number, words in enumerate(script.split(","))]


def only_trade(script: str, *, side: Side = Side.LONG, moved: bool = False) -> Trade:
    portfolio, (trade,) = fold(fills(script, side=side, moved=moved), cash=CASH)
    assert not portfolio.positions
    assert portfolio.cash == CASH + trade.pnl
    return trade


class TestTrades:
    def test_a_long_earns_what_the_price_gains(self) -> None:
        trade = only_trade("enter 100 10, leave 100 10.50")
        assert (trade.pnl, trade.pnl_pct, trade.side) == (Decimal(50), Decimal(5), "long")

    def test_a_short_earns_what_the_price_loses(self) -> None:
        trade = only_trade("enter 100 10, leave 100 10.50", side=Side.SHORT)
        assert (trade.pnl, trade.pnl_pct, trade.side) == (Decimal(-50), Decimal(-5), "short")

    def test_commission_comes_off_the_profit(self) -> None:
        trade = only_trade("enter 100 10 1, leave 100 10.50 1.5")
        assert (trade.pnl, trade.commission, trade.pnl_pct) == (Decimal("47.5"), Decimal("2.5"), Decimal("4.75"))

    def test_prices_are_volume_weighted_over_all_fills_of_the_round_trip(self) -> None:
        trade = only_trade("enter 60 10, enter 40 11, leave 50 12, stop 50 9")
        assert (trade.entry_price, trade.exit_price) == (Decimal("10.4"), Decimal("10.5"))
        assert trade.qty == 100
        assert trade.pnl == 10

    def test_shares_bought_after_a_part_was_sold_belong_to_the_same_round_trip(self) -> None:
        trade = only_trade("enter 60 10, stop 50 9, enter 40 11, leave 50 12")
        assert trade.qty == 100
        assert trade.pnl == 50 * 9 + 50 * 12 - 60 * 10 - 40 * 11

    def test_it_lasts_from_the_first_entry_fill_to_the_last_exit_fill(self) -> None:
        trade = only_trade("enter 60 10, enter 40 10, leave 50 11, leave 50 11")
        assert (trade.entry_at, trade.exit_at, trade.duration_seconds) == (T0, T0 + timedelta(minutes=3), 180)

    @pytest.mark.parametrize(
        ("script", "moved", "reason"),
        [
            ("enter 10 10, stop 10 9", False, "stop_loss"),
            ("enter 10 10, stop 10 9", True, "trailing_stop"),
            ("enter 10 10, stop 4 9, leave 6 9", False, "max_run"),
            ("enter 10 10, leave 4 9, stop 6 9", False, "stop_loss"),
        ],
    )
    def test_its_reason_is_that_of_the_last_exit(self, script: str, reason: str, *, moved: bool) -> None:
        assert only_trade(script, moved=moved).exit_reason == reason

    def test_a_stop_is_a_trailing_stop_if_the_price_that_filled_had_been_moved(self) -> None:
        assert exit_reason_of(order(Role.STOP_LOSS), filled_at=T0) == "stop_loss"
        assert exit_reason_of(order(Role.STOP_LOSS, moved=True), filled_at=T0) == "trailing_stop"
        before = T0 - timedelta(minutes=1)  # a bar that the replacement was too late for
        assert exit_reason_of(order(Role.STOP_LOSS, moved=True), filled_at=before) == "stop_loss"

    def test_after_being_flat_a_new_round_trip_begins(self) -> None:
        _, trades = fold(fills("enter 10 10, leave 10 11, enter 10 20, leave 10 19"), cash=CASH)
        assert [trade.pnl for trade in trades] == [10, -10]

    def test_the_planned_risk_is_the_distance_to_the_first_stop(self) -> None:
        (entering, first), *rest = fills("enter 60 10, enter 30 10.10, leave 90 9")
        planned = replace(entering, planned_stop_price=Decimal("9.5"))
        _, (trade,) = fold([(planned, first), *rest], cash=CASH)
        assert (trade.initial_stop_price, trade.planned_risk) == (Decimal("9.5"), Decimal(48))
        assert only_trade("enter 10 10, leave 10 9").planned_risk is None

    def test_one_estimated_price_makes_the_trade_an_estimate(self) -> None:
        entry, (leaving, leave) = fills("enter 100 10, leave 100 9")
        _, (trade,) = fold([entry, (leaving, replace(leave, estimated=True))], cash=CASH)
        assert trade.estimated
        assert not only_trade("enter 100 10, leave 100 9").estimated


class TestPositions:
    def test_equity_is_cash_and_open_shares_at_the_last_price(self) -> None:
        portfolio, _ = fold(fills("enter 100 10"), cash=CASH)
        assert portfolio.cash == 24000
        assert portfolio.equity({"AAPL": Decimal(11)}) == 25100
        assert portfolio.positions["AAPL"].unrealized_pnl(Decimal(11)) == 100

    def test_a_short_owes_its_shares(self) -> None:
        portfolio, _ = fold(fills("enter 100 10", side=Side.SHORT), cash=CASH)
        assert portfolio.cash == 26000
        assert portfolio.equity({"AAPL": Decimal(11)}) == 24900
        assert portfolio.positions["AAPL"].unrealized_pnl(Decimal(11)) == -100

    def test_before_the_first_price_a_position_counts_at_its_entry(self) -> None:
        portfolio, _ = fold(fills("enter 100 10"), cash=CASH)
        assert portfolio.equity({}) == CASH

    @pytest.mark.parametrize(
        "script", ["leave 10 10", "enter 10 10, leave 11 10", "enter 10 10, leave 10 10, stop 10 9"]
    )
    def test_shares_that_are_not_held_cannot_be_closed(self, script: str) -> None:
        with pytest.raises(ImpossibleFill, match="held"):
            fold(fills(script), cash=CASH)

    def test_a_shorts_exit_cannot_close_a_long(self) -> None:
        with pytest.raises(ImpossibleFill, match="held"):
            fold([fill("enter 10 10"), fill("leave 10 10", side=Side.SHORT)], cash=CASH)

    def test_an_entry_cannot_turn_a_position_round(self) -> None:
        with pytest.raises(ImpossibleFill, match="fills while long"):
            fold([fill("enter 10 10"), fill("enter 10 10", side=Side.SHORT)], cash=CASH)

    def test_a_fill_that_is_refused_changes_nothing(self) -> None:
        portfolio, _ = fold(fills("enter 10 10"), cash=CASH)
        before = replace(portfolio.positions["AAPL"])
        for impossible in (fill("leave 11 10"), fill("enter 1 10", side=Side.SHORT), fill("leave 1 10", symbol="TSLA")):
            with pytest.raises(ImpossibleFill):
                portfolio.apply(*impossible)
        assert (portfolio.positions, portfolio.cash) == ({"AAPL": before}, CASH - 100)


MONEY = st.decimals(min_value="0.01", max_value="5000", places=4)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["AAPL", "TSLA"]),
        st.booleans(),  # an entry or an exit
        st.sampled_from(list(Side)),
        st.integers(min_value=1, max_value=50),
        MONEY,
        st.decimals(min_value=0, max_value=5, places=2),
    ),
    max_size=40,
)


@given(steps=STEPS, last=st.tuples(MONEY, MONEY))
def test_the_fold_of_any_fills_agrees_with_plain_sums(
    steps: list[tuple[str, bool, Side, int, Decimal, Decimal]], last: tuple[Decimal, Decimal]
) -> None:
    held = {"AAPL": 0, "TSLA": 0}  # signed shares
    cash, made = Fraction(CASH), list[Fill]()
    flat_at = [0]
    for minute, (symbol, enters, side, size, price, commission) in enumerate(steps):
        now_held = held[symbol]
        side = (Side.LONG if now_held > 0 else Side.SHORT) if now_held else side
        if not enters and not now_held:
            continue
        qty = size if enters else min(size, abs(now_held))
        verb = "enter" if enters else "leave"
        made.append(fill(f"{verb} {qty} {price} {commission}", minute=minute, side=side, symbol=symbol))
        bought = qty if enters == (side is Side.LONG) else -qty
        held[symbol] += bought
        cash -= bought * Fraction(price) + Fraction(commission)
        if not enters and not held[symbol]:
            flat_at.append(minute)

    portfolio, trades = fold(made, cash=CASH)

    prices = dict(zip(held, last, strict=True))
    assert {p.symbol: p.qty if p.side is Side.LONG else -p.qty for p in portfolio.positions.values()} == {
        symbol: shares for symbol, shares in held.items() if shares
    }
    assert Fraction(portfolio.cash) == cash
    worth = sum(shares * Fraction(prices[symbol]) for symbol, shares in held.items())
    assert Fraction(portfolio.equity(prices)) == cash + worth
    assert len(trades) == len(flat_at) - 1
    booked = sum((trade.pnl for trade in trades), Decimal(0))
    at_cost = sum(
        (
            (p.exit_value - p.entry_value) * (1 if p.side is Side.LONG else -1) - p.commission
            for p in portfolio.positions.values()
        ),
        Decimal(0),
    )
    assert portfolio.cash == CASH + booked + at_cost
