"""How the simulated exchange fills: every rule worked out by hand, then properties over random bars and orders."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.lifecycle import OrderType
from trading.exchange import DuplicateOrder, Exchange, Execution, PathRule, WorkingOrder, path
from trading.market import Bar

T0 = datetime(2024, 3, 4, 15, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SLIPPAGE = Decimal("0.01")


def bar(prices: str, *, minute: int = 0, volume: int = 10_000, symbol: str = "AAPL") -> Bar:
    """A bar from `open high low close`."""
    opened, high, low, close = (Decimal(word) for word in prices.split())
    stamp = T0 + minute * MINUTE
    return Bar(symbol=symbol, timestamp=stamp, open=opened, high=high, low=low, close=close, volume=volume)


def order(words: str, *, order_id: str = "a", symbol: str = "AAPL") -> WorkingOrder:
    """An order from words like `buy 100 stop 10.50 limit 10.60`."""
    side, qty, *rest = words.split()
    names, values = ([], []) if rest == ["market"] else (rest[::2], rest[1::2])
    prices = {name: Decimal(value) for name, value in zip(names, values, strict=True)}
    order_type = OrderType("_".join(name for name in ("stop", "limit") if name in prices) or "market")
    return WorkingOrder(
        order_id=order_id,
        symbol=symbol,
        buys=side == "buy",
        order_type=order_type,
        qty=Decimal(qty),
        stop_price=prices.get("stop"),
        limit_price=prices.get("limit"),
    )


def told(executions: Iterable[Execution]) -> list[str]:
    """Executions as `id qty@price`."""
    return [f"{execution.order_id} {execution.qty}@{execution.price}" for execution in executions]


def fills(prices: str, *orders: str, exchange: Exchange | None = None) -> list[str]:
    """What one bar executes of fresh orders a, b, c ..."""
    exchange = exchange or Exchange()
    for order_id, words in zip("abcdef", orders, strict=False):
        exchange.submit(order(words, order_id=order_id), now=T0)
    return told(exchange.match(bar(prices)))


class TestPath:
    def test_an_open_nearer_to_the_high_goes_to_the_high_first(self) -> None:
        assert path(bar("10.3 10.4 10 10.2")) == tuple(map(Decimal, ("10.3", "10.4", "10", "10.2")))

    def test_an_open_nearer_to_the_low_goes_to_the_low_first(self) -> None:
        assert path(bar("10.1 10.4 10 10.2")) == tuple(map(Decimal, ("10.1", "10", "10.4", "10.2")))

    def test_an_open_exactly_between_goes_to_the_high_first(self) -> None:
        assert path(bar("10.2 10.4 10 10.1")) == tuple(map(Decimal, ("10.2", "10.4", "10", "10.1")))


class TestStops:
    def test_a_stop_reached_inside_the_bar_fills_at_the_stop_against_us(self) -> None:
        assert fills("10 11 9.8 10.5", "buy 100 stop 10.50") == ["a 100@10.51"]
        assert fills("10 10.2 9 9.5", "sell 100 stop 9.50") == ["a 100@9.49"]

    def test_a_touch_is_enough(self) -> None:
        assert fills("10 10.5 9.8 10", "buy 100 stop 10.50") == ["a 100@10.51"]
        assert fills("10 10.2 9.5 10", "sell 100 stop 9.50") == ["a 100@9.49"]

    def test_a_tick_short_of_it_is_not(self) -> None:
        assert fills("10 10.49 9.51 10", "buy 100 stop 10.50", "sell 100 stop 9.50") == []

    def test_a_gap_fills_at_the_open_never_better_than_the_market_was(self) -> None:
        assert fills("10.8 11 10.6 10.9", "buy 100 stop 10.50") == ["a 100@10.81"]
        assert fills("9.2 9.4 9 9.3", "sell 100 stop 9.50") == ["a 100@9.19"]

    def test_an_open_exactly_at_the_stop_fills_at_the_open(self) -> None:
        assert fills("10.5 11 10.4 10.9", "buy 100 stop 10.50") == ["a 100@10.51"]

    def test_a_penny_stock_is_never_sold_for_less_than_nothing(self) -> None:
        assert fills("0.02 0.02 0.005 0.006", "sell 100 stop 0.0080") == ["a 100@0.0001"]

    def test_the_fill_carries_the_bars_time_and_the_commission(self) -> None:
        exchange = Exchange(commission_per_share=Decimal("0.005"))
        exchange.submit(order("buy 100 stop 10.50"), now=T0)
        (execution,) = exchange.match(bar("10 11 9.8 10.5"))
        assert (execution.at, execution.commission, execution.leaves) == (T0, Decimal("0.5"), Decimal(0))
        assert exchange.working() == []

    def test_several_orders_fill_in_the_order_of_the_path(self) -> None:
        # 10.1 is nearer to the low: 10.1 -> 9.9 -> 10.6 -> 10.2
        orders = ("buy 1 stop 10.50", "buy 2 stop 10.30", "sell 3 stop 10.00", "sell 4 limit 10.40")
        assert fills("10.1 10.6 9.9 10.2", *orders) == ["c 3@9.99", "b 2@10.31", "d 4@10.40", "a 1@10.51"]

    def test_two_orders_at_one_price_fill_oldest_first(self) -> None:
        assert fills("10 11 9.8 10.5", "buy 1 stop 10.50", "buy 2 stop 10.50") == ["a 1@10.51", "b 2@10.51"]


class TestLimits:
    def test_a_limit_fills_at_the_limit_without_slippage(self) -> None:
        assert fills("10 10.2 9.5 10", "buy 100 limit 9.60") == ["a 100@9.60"]
        assert fills("10 10.5 9.9 10", "sell 100 limit 10.40") == ["a 100@10.40"]

    def test_a_touch_is_enough(self) -> None:
        assert fills("10 10.2 9.6 10", "buy 100 limit 9.60") == ["a 100@9.60"]

    def test_a_gap_through_the_limit_fills_at_the_open(self) -> None:
        assert fills("9 9.2 8.9 9.1", "buy 100 limit 9.60") == ["a 100@9.01"]
        assert fills("11 11.2 10.9 11", "sell 100 limit 10.40") == ["a 100@10.99"]

    def test_slippage_stops_at_the_limit(self) -> None:
        assert fills("9.6 9.8 9.5 9.7", "buy 100 limit 9.60") == ["a 100@9.60"]

    def test_a_stop_limit_becomes_a_limit_where_its_stop_is_reached(self) -> None:
        assert fills("10 11 9.8 10.5", "buy 100 stop 10.50 limit 10.55") == ["a 100@10.51"]
        assert fills("10 11 9.8 10.5", "buy 100 stop 10.50 limit 10.50") == ["a 100@10.50"]

    def test_a_stop_limit_that_gaps_over_its_limit_waits_for_the_market_to_come_back(self) -> None:
        # 10.8 -> 11 -> 10.4 -> 10.9: elected at the open, filled on the way down
        assert fills("10.8 11 10.4 10.9", "buy 100 stop 10.50 limit 10.55") == ["a 100@10.55"]
        exchange = Exchange()
        assert fills("10.8 11 10.7 10.9", "buy 100 stop 10.50 limit 10.55", exchange=exchange) == []
        assert told(exchange.match(bar("10.9 11 10.5 10.8", minute=1))) == ["a 100@10.55"]


class TestMarketOrders:
    def test_a_market_order_fills_at_once_at_the_last_close(self) -> None:
        exchange = Exchange()
        list(exchange.match(bar("10 11 9.8 10.5")))
        now = T0 + 5 * MINUTE
        (bought,) = exchange.submit(order("buy 100 market"), now=now)
        (sold,) = exchange.submit(order("sell 100 market"), now=now)
        assert (bought.price, sold.price, bought.at) == (Decimal("10.51"), Decimal("10.49"), now)

    def test_before_the_first_bar_it_waits_for_the_open(self) -> None:
        exchange = Exchange()
        assert exchange.submit(order("buy 100 market"), now=T0) == []
        assert told(exchange.match(bar("10 11 9.8 10.5"))) == ["a 100@10.01"]

    def test_an_order_of_the_night_fills_at_the_next_open(self) -> None:
        exchange = Exchange()
        list(exchange.match(bar("10 11 9.8 10.5")))
        assert exchange.submit(order("sell 100 market"), now=T0 + MINUTE, at_next_open=True) == []
        assert told(exchange.match(bar("12 12.1 11.9 12", minute=1))) == ["a 100@11.99"]

    def test_in_a_pause_it_fills_where_the_path_is(self) -> None:
        exchange = Exchange()
        list(exchange.match(bar("9 9 9 9")))
        exchange.submit(order("buy 100 stop 10.50"), now=T0 + MINUTE)
        matching = exchange.match(bar("10 11 9.8 10.6", minute=1))
        next(matching)
        (sold,) = exchange.submit(order("sell 100 market", order_id="b"), now=T0 + 2 * MINUTE)
        assert (sold.price, sold.at) == (Decimal("10.49"), T0 + MINUTE)
        assert list(matching) == []


class TestPauses:
    def answer(self, prices: str, entry: str, stop: str) -> list[str]:
        """An entry whose fill is answered at once with a stop."""
        exchange = Exchange()
        exchange.submit(order(entry, order_id="entry"), now=T0)
        told_so_far = []
        for execution in exchange.match(bar(prices)):
            told_so_far += told([execution])
            if execution.order_id == "entry":
                assert exchange.submit(order(stop, order_id="stop"), now=T0 + MINUTE) == []
        return told_so_far

    def test_high_first_the_stop_fills_on_the_way_down(self) -> None:
        filled = self.answer("10.3 10.6 9.4 10", "buy 100 stop 10.50", "sell 100 stop 9.50")
        assert filled == ["entry 100@10.51", "stop 100@9.49"]

    def test_low_first_the_low_is_over_when_the_entry_fills(self) -> None:
        # 9.6 -> 9.4 -> 10.6 -> 10
        assert self.answer("9.6 10.6 9.4 10", "buy 100 stop 10.50", "sell 100 stop 9.50") == ["entry 100@10.51"]

    def test_the_close_can_still_reach_the_stop(self) -> None:
        # 9.6 -> 9.4 -> 10.6 -> 9.45
        filled = self.answer("9.6 10.6 9.4 9.45", "buy 100 stop 10.50", "sell 100 stop 9.50")
        assert filled == ["entry 100@10.51", "stop 100@9.49"]

    def test_a_tie_is_the_pessimistic_one_for_a_long(self) -> None:
        filled = self.answer("10 10.6 9.4 10", "buy 100 stop 10.50", "sell 100 stop 9.50")
        assert filled == ["entry 100@10.51", "stop 100@9.49"]

    def test_shorts_are_mirrored_but_for_the_tie(self) -> None:
        # 9.7 -> 9.4 -> 10.6 -> 10
        filled = self.answer("9.7 10.6 9.4 10", "sell 100 stop 9.50", "buy 100 stop 10.50")
        assert filled == ["entry 100@9.49", "stop 100@10.51"]
        # 10 -> 10.6 -> 9.4 -> 10: the high is over when the entry fills
        assert self.answer("10 10.6 9.4 10", "sell 100 stop 9.50", "buy 100 stop 10.50") == ["entry 100@9.49"]

    def test_a_stop_already_beyond_the_path_fills_where_the_path_is(self) -> None:
        filled = self.answer("10.3 10.6 9.4 10", "buy 100 stop 10.50", "sell 100 stop 10.55")
        assert filled == ["entry 100@10.51", "stop 100@10.49"]

    def test_a_cancel_in_the_pause_counts_from_there(self) -> None:
        exchange = Exchange()
        exchange.submit(order("buy 1 stop 10.20", order_id="a"), now=T0)
        exchange.submit(order("buy 1 stop 10.40", order_id="b"), now=T0)
        matching = exchange.match(bar("10 10.6 9.9 10"))
        assert told([next(matching)]) == ["a 1@10.21"]
        assert exchange.cancel("b")
        assert not exchange.cancel("b")
        assert list(matching) == []

    def test_a_replacement_in_the_pause_counts_from_there(self) -> None:
        exchange = Exchange()
        exchange.submit(order("buy 1 stop 10.20", order_id="a"), now=T0)
        exchange.submit(order("sell 1 stop 9.00", order_id="b"), now=T0)
        matching = exchange.match(bar("10.3 10.6 9.4 10"))
        assert told([next(matching)]) == ["a 1@10.31"]
        assert exchange.replace("b", now=T0 + MINUTE, stop_price=Decimal("9.50"), new_id="c")
        assert told(matching) == ["c 1@9.49"]

    def test_another_symbols_pause_changes_nothing(self) -> None:
        exchange = Exchange()
        list(exchange.match(bar("50 50 50 50", symbol="TSLA", minute=-1)))
        exchange.submit(order("buy 1 stop 10.20"), now=T0)
        matching = exchange.match(bar("10 10.6 9.9 10"))
        next(matching)
        (bought,) = exchange.submit(order("buy 1 market", order_id="t", symbol="TSLA"), now=T0 + MINUTE)
        exchange.submit(order("buy 1 stop 50", order_id="s", symbol="TSLA"), now=T0 + MINUTE)
        assert bought.price == Decimal("50.01")
        assert list(matching) == []
        assert list(exchange.match(bar("50 60 40 50", symbol="TSLA"))) == []


class TestOtherPaths:
    """The same bar, with the worse or the better of its two paths taken on purpose."""

    def answer(self, prices: str, entry: str, exits: list[str], path_rule: PathRule) -> list[str]:
        exchange = Exchange(path_rule=path_rule)
        exchange.submit(order(entry, order_id="entry"), now=T0)
        told_so_far = []
        for execution in exchange.match(bar(prices)):
            told_so_far += told([execution])
            if execution.order_id == "entry":
                for number, words in enumerate(exits):
                    exchange.submit(order(words, order_id=f"exit{number}"), now=T0 + MINUTE)
        return told_so_far

    @pytest.mark.parametrize("prices", ["9.6 10.6 9.4 10", "10.3 10.6 9.4 10"])
    def test_a_bought_entry_meets_its_stop_on_the_pessimistic_path_alone(self, prices: str) -> None:
        long = ("buy 100 stop 10.50", ["sell 100 stop 9.50"])
        assert self.answer(prices, *long, PathRule.PESSIMISTIC) == ["entry 100@10.51", "exit0 100@9.49"]
        assert self.answer(prices, *long, PathRule.OPTIMISTIC) == ["entry 100@10.51"]

    @pytest.mark.parametrize("prices", ["9.7 10.6 9.4 10", "10.3 10.6 9.4 10"])
    def test_a_short_is_the_mirror_image(self, prices: str) -> None:
        short = ("sell 100 stop 9.50", ["buy 100 stop 10.50"])
        assert self.answer(prices, *short, PathRule.PESSIMISTIC) == ["entry 100@9.49", "exit0 100@10.51"]
        assert self.answer(prices, *short, PathRule.OPTIMISTIC) == ["entry 100@9.49"]

    @pytest.mark.parametrize("prices", ["9.7 10.6 9.4 10", "10.3 10.6 9.4 10"])
    def test_of_stop_and_target_in_one_bar_the_pessimist_gets_the_stop_and_the_optimist_the_target(
        self, prices: str
    ) -> None:
        held = ("sell 100 stop 9.50", "sell 100 limit 10.50")
        assert fills(prices, *held, exchange=Exchange(path_rule=PathRule.PESSIMISTIC))[0] == "a 100@9.49"
        assert fills(prices, *held, exchange=Exchange(path_rule=PathRule.OPTIMISTIC))[0] == "b 100@10.50"

    def test_a_limit_entry_sees_its_target_on_the_optimistic_path_alone(self) -> None:
        bought = ("buy 100 limit 9.50", ["sell 100 limit 10.50"])
        assert self.answer("10 10.6 9.4 10", *bought, PathRule.PESSIMISTIC) == ["entry 100@9.50"]
        assert self.answer("10 10.6 9.4 10", *bought, PathRule.OPTIMISTIC) == ["entry 100@9.50", "exit0 100@10.50"]

    def test_orders_both_ways_have_no_worse_path(self) -> None:
        for path_rule in PathRule:
            both = fills(
                "10.3 10.6 9.4 10", "buy 1 stop 10.50", "sell 1 stop 9.50", exchange=Exchange(path_rule=path_rule)
            )
            assert both == ["a 1@10.51", "b 1@9.49"]

    def test_an_order_that_does_not_see_the_bar_yet_has_no_say(self) -> None:
        exchange = Exchange(path_rule=PathRule.OPTIMISTIC)
        exchange.submit(order("sell 1 stop 9.50", order_id="a"), now=T0)
        exchange.submit(order("buy 1 stop 10.50", order_id="b"), now=T0 + MINUTE)
        exchange.submit(order("sell 1 limit 10.50", order_id="c"), now=T0)
        assert told(exchange.match(bar("9.7 10.6 9.4 10"))) == ["c 1@10.50", "a 1@9.49"]


class TestTime:
    def test_an_order_sees_only_bars_that_start_at_or_after_it(self) -> None:
        exchange = Exchange()
        exchange.submit(order("buy 1 stop 10.50"), now=T0 + timedelta(seconds=1))
        assert list(exchange.match(bar("10 11 9.8 10.5"))) == []
        assert told(exchange.match(bar("10 11 9.8 10.5", minute=1))) == ["a 1@10.51"]

    def test_a_moved_stop_counts_from_the_next_bar(self) -> None:
        exchange = Exchange()
        exchange.submit(order("sell 1 stop 9.50"), now=T0)
        assert list(exchange.match(bar("10 10.2 9.8 10"))) == []
        assert exchange.replace("a", now=T0 + MINUTE, stop_price=Decimal("9.70"), new_id="b")
        assert told(exchange.match(bar("10 10.2 9.6 10", minute=1))) == ["b 1@9.69"]

    def test_until_the_replacement_is_live_the_old_price_is(self) -> None:
        exchange = Exchange()
        exchange.submit(order("sell 1 stop 9.50"), now=T0)
        late = T0 + timedelta(seconds=30)
        assert exchange.replace("a", now=late, stop_price=Decimal("9.00"), new_id="b")
        assert told(exchange.match(bar("10 10.2 9.4 10"))) == ["b 1@9.49"]
        assert exchange.working() == []

    def test_a_stop_moved_above_the_market_fills_at_the_next_open(self) -> None:
        exchange = Exchange()
        exchange.submit(order("sell 1 stop 9.50"), now=T0)
        list(exchange.match(bar("10 10.2 9.8 10")))
        exchange.replace("a", now=T0 + MINUTE, stop_price=Decimal("10.10"))
        assert told(exchange.match(bar("10.05 10.2 10 10.1", minute=1))) == ["a 1@10.04"]

    def test_a_replacement_that_comes_after_its_stop_was_reached_is_too_late(self) -> None:
        exchange = Exchange()
        exchange.submit(order("sell 100 stop 9.50"), now=T0)
        exchange.replace("a", now=T0 + timedelta(seconds=30), qty=Decimal(150))
        assert told(exchange.match(bar("10 10.2 9.4 10"))) == ["a 100@9.49"]
        assert exchange.working() == []

    def test_a_larger_limit_keeps_its_rest_when_the_old_quantity_fills_first(self) -> None:
        exchange = Exchange()
        exchange.submit(order("buy 100 limit 9.50"), now=T0)
        exchange.replace("a", now=T0 + timedelta(seconds=30), qty=Decimal(150))
        assert told(exchange.match(bar("10 10.2 9.4 10"))) == ["a 100@9.50"]
        assert told(exchange.match(bar("10 10.2 9.4 10", minute=1))) == ["a 50@9.50"]
        assert exchange.working() == []

    def test_nothing_is_known_of_orders_that_are_gone(self) -> None:
        exchange = Exchange()
        assert not exchange.replace("x", now=T0, stop_price=Decimal(1))
        exchange.submit(order("buy 1 stop 10.50"), now=T0)
        with pytest.raises(DuplicateOrder):
            exchange.submit(order("buy 1 stop 10.50"), now=T0)
        exchange.submit(order("buy 1 stop 10.60", order_id="b"), now=T0)
        with pytest.raises(DuplicateOrder):
            exchange.replace("a", now=T0, new_id="b")


class TestVolumeShare:
    def exchange(self) -> Exchange:
        return Exchange(max_volume_share=Decimal("0.1"))

    def test_a_bar_gives_at_most_its_share_in_whole_shares_over_all_orders(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 stop 10.30", order_id="a"), now=T0)
        exchange.submit(order("buy 60 stop 10.40", order_id="b"), now=T0)
        assert told(exchange.match(bar("10 10.6 9.9 10.5", volume=999))) == ["a 60@10.31", "b 39@10.41"]
        assert [(o.order_id, o.qty, o.is_elected) for o in exchange.working()] == [("b", Decimal(21), True)]

    def test_the_rest_of_an_elected_stop_is_a_market_order_at_the_next_open(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 stop 10.30"), now=T0)
        (first,) = exchange.match(bar("10 10.6 9.9 10", volume=100))
        assert (first.qty, first.leaves) == (Decimal(10), Decimal(50))
        assert told(exchange.match(bar("9.5 9.6 9.4 9.5", minute=1, volume=300))) == ["a 30@9.51"]
        assert told(exchange.match(bar("9.4 9.6 9.4 9.5", minute=2, volume=300))) == ["a 20@9.41"]

    def test_a_stop_that_found_no_shares_is_elected_all_the_same(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 stop 10.30"), now=T0)
        assert list(exchange.match(bar("10 10.6 9.9 10", volume=9))) == []
        assert told(exchange.match(bar("9.5 9.6 9.4 9.5", minute=1))) == ["a 60@9.51"]
        assert exchange.working("AAPL") == []

    def test_the_rest_of_a_limit_order_stays_at_its_limit(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 limit 9.90"), now=T0)
        assert told(exchange.match(bar("10 10.1 9.8 10", volume=100))) == ["a 10@9.90"]
        assert list(exchange.match(bar("10 10.1 9.95 10", minute=1))) == []
        assert told(exchange.match(bar("10 10.1 9.8 10", minute=2))) == ["a 50@9.90"]

    def test_a_market_order_takes_what_the_last_bar_left_and_the_rest_at_the_next_open(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 stop 10.30", order_id="s"), now=T0)
        assert told(exchange.match(bar("10 10.6 9.9 10.5", volume=800))) == ["s 60@10.31"]
        assert told(exchange.submit(order("sell 60 market"), now=T0 + MINUTE)) == ["a 20@10.49"]
        assert told(exchange.match(bar("10.4 10.6 9.9 10.5", minute=1))) == ["a 40@10.39"]

    def test_an_elected_order_keeps_its_price_and_can_be_cut_or_cancelled(self) -> None:
        exchange = self.exchange()
        exchange.submit(order("buy 60 stop 10.30"), now=T0)
        list(exchange.match(bar("10 10.6 9.9 10.5", volume=100)))
        assert not exchange.replace("a", now=T0 + MINUTE, stop_price=Decimal("10.70"))
        assert exchange.replace("a", now=T0 + MINUTE, qty=Decimal(20))
        assert [(o.qty, o.is_elected) for o in exchange.working()] == [(Decimal(20), True)]
        assert exchange.cancel("a")


def test_the_last_close_is_that_of_the_last_bar_once_it_is_worked_off() -> None:
    exchange = Exchange()
    exchange.submit(order("buy 1 stop 10.50"), now=T0)
    matching = exchange.match(bar("10 11 9.8 10.7"))
    next(matching)
    assert exchange.last_close == {}
    list(matching)
    assert exchange.last_close == {"AAPL": Decimal("10.7")}


# --- properties -------------------------------------------------------------------------------------------------------

cents = st.integers(min_value=900, max_value=1100).map(lambda n: Decimal(n) / 100)


@st.composite
def random_bars(draw: st.DrawFn) -> list[Bar]:
    bars = []
    for minute in range(draw(st.integers(1, 6))):
        a, b, c, d = (draw(cents) for _ in range(4))
        high, low = max(a, b, c, d), min(a, b, c, d)
        volume = draw(st.integers(0, 500))
        stamp = T0 + minute * MINUTE
        bars.append(Bar(symbol="AAPL", timestamp=stamp, open=a, high=high, low=low, close=b, volume=volume))
    return bars


@st.composite
def random_orders(draw: st.DrawFn) -> list[WorkingOrder]:
    return [
        order(
            f"{draw(st.sampled_from(['buy', 'sell']))} {draw(st.integers(1, 80))} "
            + draw(
                st.one_of(
                    st.just("market"),
                    cents.map("stop {}".format),
                    cents.map("limit {}".format),
                    st.builds("stop {} limit {}".format, cents, cents),
                )
            ),
            order_id=str(number),
        )
        for number in range(draw(st.integers(1, 6)))
    ]


shares = st.sampled_from([None, Decimal("0.1"), Decimal(1)])


@given(bars=random_bars(), orders=random_orders(), share=shares)
def test_no_fill_is_better_than_the_market_was_nor_more_than_was_asked(
    bars: list[Bar], orders: list[WorkingOrder], share: Decimal | None
) -> None:
    exchange = Exchange(max_volume_share=share)
    asked = {o.order_id: o for o in orders}
    executed = dict.fromkeys(asked, Decimal(0))
    for o in orders:
        assert exchange.submit(o, now=T0) == []
    for one in bars:
        taken = Decimal(0)
        for execution in exchange.match(one):
            o = asked[execution.order_id]
            executed[execution.order_id] += execution.qty
            taken += execution.qty
            assert execution.qty > 0
            assert execution.at == one.timestamp
            assert executed[execution.order_id] + execution.leaves == o.qty
            paid = execution.price - SLIPPAGE if o.buys else execution.price + SLIPPAGE
            if o.limit_price is None:
                assert one.low <= paid <= one.high
            else:
                assert (execution.price <= o.limit_price) if o.buys else (execution.price >= o.limit_price)
                assert one.low <= execution.price <= one.high or one.low <= paid <= one.high
            if o.order_type is OrderType.STOP and execution.leaves + execution.qty == o.qty and share is None:
                assert o.stop_price is not None
                assert (paid >= o.stop_price) if o.buys else (paid <= o.stop_price)
        if share is not None:
            assert taken <= int(one.volume * share)
    left = {o.order_id: o.qty for o in exchange.working()}
    assert {i: o.qty - executed[i] for i, o in asked.items() if o.qty > executed[i]} == left


@given(bars=random_bars(), stop=cents)
def test_a_stop_left_working_was_never_touched(bars: list[Bar], stop: Decimal) -> None:
    exchange = Exchange()
    exchange.submit(order(f"buy 10 stop {stop}"), now=T0)
    for one in bars:
        filled = list(exchange.match(one))
        assert bool(filled) == (one.high >= stop)
        if filled:
            break


@given(bars=random_bars(), entry=cents, distance=st.integers(1, 60))
def test_an_entry_answered_by_a_stop_ends_flat_or_protected(bars: list[Bar], entry: Decimal, distance: int) -> None:
    exchange = Exchange()
    exchange.submit(order(f"buy 10 stop {entry}", order_id="entry"), now=T0)
    held, stops = Decimal(0), 0
    for one in bars:
        for execution in exchange.match(one):
            held += execution.qty if execution.order_id == "entry" else -execution.qty
            if execution.order_id == "entry":
                words = f"sell 10 stop {entry - Decimal(distance) / 100}"
                exchange.submit(order(words, order_id="stop"), now=one.delivered_at)
            else:
                stops += 1
        assert 0 <= held <= 10
        assert stops <= 1
        assert [o.qty for o in exchange.working() if o.order_id == "stop"] == ([held] if held else [])
