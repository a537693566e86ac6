"""Bars that can be true, the tick grid, and what belongs to a session."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.market import Bar, Session, round_down, round_up, tick, to_four_decimals

OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
PRICES = st.decimals(min_value="0.0001", max_value="99999", places=6)


def bar(prices: str, volume: int = 100) -> Bar:
    opened, high, low, close = (Decimal(word) for word in prices.split())
    return Bar(symbol="AAPL", timestamp=OPEN, open=opened, high=high, low=low, close=close, volume=volume)


class TestBar:
    @pytest.mark.parametrize(
        ("prices", "volume"),
        [("10 11 9 10", 100), ("10 10 10 10", 0), ("9 11 9 11", 1), ("0.0001 0.0001 0.0001 0.0001", 1)],
    )
    def test_a_bar_that_can_be_true_has_no_fault(self, prices: str, volume: int) -> None:
        assert bar(prices, volume).fault is None

    @pytest.mark.parametrize(
        ("prices", "volume", "fault"),
        [
            ("10 11 0 10", 100, "not above 0"),
            ("10 11 -1 10", 100, "not above 0"),
            ("8 11 9 10", 100, "outside low and high"),
            ("12 11 9 10", 100, "outside low and high"),
            ("10 11 9 8.99", 100, "outside low and high"),
            ("10 11 9 11.01", 100, "outside low and high"),
            ("10 9 11 10", 100, "outside low and high"),
            ("10 11 9 10", -1, "volume is negative"),
        ],
    )
    def test_what_cannot_be_true_is_named(self, prices: str, volume: int, fault: str) -> None:
        assert fault in (bar(prices, volume).fault or "")

    def test_nobody_can_know_a_bar_before_its_minute_is_over(self) -> None:
        assert bar("10 11 9 10").delivered_at == OPEN + timedelta(seconds=60)


class TestSession:
    @pytest.mark.parametrize(
        ("seconds", "inside"), [(-60, False), (0, True), (389 * 60, True), (390 * 60, False), (390 * 60 - 1, True)]
    )
    def test_a_session_holds_its_open_and_not_its_close(self, seconds: int, *, inside: bool) -> None:
        session = Session(date=date(2024, 3, 4), open=OPEN, close=OPEN + timedelta(minutes=390))
        assert session.contains(OPEN + timedelta(seconds=seconds)) is inside


class TestTicks:
    @pytest.mark.parametrize(
        ("price", "up", "down"),
        [
            ("10.011", "10.02", "10.01"),
            ("10.01", "10.01", "10.01"),
            ("1", "1.00", "1.00"),
            ("1.0001", "1.01", "1.00"),
            ("0.99991", "1.0000", "0.9999"),
            ("0.12345", "0.1235", "0.1234"),
            ("0.1234", "0.1234", "0.1234"),
        ],
    )
    def test_orders_are_priced_in_cents_from_a_dollar_up_and_in_hundredths_of_cents_below(
        self, price: str, up: str, down: str
    ) -> None:
        assert (str(round_up(Decimal(price))), str(round_down(Decimal(price)))) == (up, down)

    @given(price=PRICES)
    def test_rounding_moves_a_price_by_less_than_a_tick_and_onto_the_grid(self, price: Decimal) -> None:
        up, down = round_up(price), round_down(price)
        assert down <= price <= up
        assert up - price < tick(price)
        assert price - down < tick(price)
        assert up % tick(price) == down % tick(price) == 0
        assert (round_up(up), round_down(down)) == (up, down)


class TestInputPrices:
    @pytest.mark.parametrize(
        ("price", "kept"),
        [
            ("10.12345", "10.1234"),
            ("10.12355", "10.1236"),
            ("10.123450001", "10.1235"),
            ("10.1234", "10.1234"),
            ("10", "10"),
        ],
    )
    def test_more_than_four_decimals_are_rounded_to_the_even_one(self, price: str, kept: str) -> None:
        assert str(to_four_decimals(Decimal(price))) == kept
