"""An engine on a built-in market in another process lives by that market's clock."""

import asyncio
from datetime import timedelta

import pytest

from orders.command import UserError
from trading.live.place import FollowedClock, clock_of, wall_clock
from trading.simulator.market import Market
from trading.simulator.synthetic import SyntheticBars


async def test_it_jumps_over_the_closed_hours_with_the_market_and_never_goes_back() -> None:
    market = Market(bars=SyntheticBars(seed=1), account_number="SIM-1", speed=1.0)
    url = await market.start()
    try:
        clock = await asyncio.to_thread(clock_of, url)
        assert isinstance(clock, FollowedClock)
        assert timedelta(0) <= clock() - market.now < timedelta(seconds=5)
        market.now += timedelta(hours=17, minutes=30)
        await asyncio.to_thread(clock.read)
        tomorrow = clock()
        assert timedelta(0) <= tomorrow - market.now < timedelta(seconds=5)
        market.now -= timedelta(hours=1)
        await asyncio.to_thread(clock.read)
        assert clock() >= tomorrow
    finally:
        await market.stop()


def test_alpacas_own_clock_is_the_real_one() -> None:
    assert clock_of("") is wall_clock
    assert clock_of("https://paper-api.alpaca.markets") is wall_clock


def test_a_market_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(UserError, match="runmarket"):
        clock_of("http://127.0.0.1:9")
