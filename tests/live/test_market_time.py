"""The built-in market's time: sessions, timers, speed, the end of the bars, and what a restart finds again."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from orders.lifecycle import OrderType, TimeInForce
from tests.built_in_market import KEYS, Conductor, ScriptedBars, at, script
from trading.exchange import Exchange
from trading.market import Bar
from trading.simulator.accountfile import AccountFileError
from trading.simulator.lockstep import Lockstep
from trading.simulator.market import Market
from trading.simulator.orders import BrokerOrder
from trading.simulator.synthetic import SyntheticBars
from trading.simulator.tickets import Refused, Ticket

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
FULL_DAY = "|".join(["100"] * 390)


def exchange(share: str | None = None) -> Exchange:
    return Exchange(slippage_per_share=Decimal(0), max_volume_share=Decimal(share) if share else None)


def submit(market: Market, words: str, **more: Any) -> BrokerOrder:
    """`buy 5 stop 105`, without going through the server."""
    side, qty, *price = words.split()
    kind, value = (price[0], Decimal(price[1])) if price else ("market", None)
    ticket = Ticket(
        symbol="AAPL",
        buys=side == "buy",
        order_type=OrderType(kind),
        time_in_force=more.pop("tif", TimeInForce.DAY),
        qty=Decimal(qty),
        limit_price=value if kind == "limit" else None,
        stop_price=value if kind == "stop" else None,
        **more,
    )
    order = market.book.submit(ticket, now=market.now)
    market.save()
    market.carry_out_soon()
    return order


def state(*orders: BrokerOrder) -> str:
    return " ".join(order.status for order in orders)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_day_orders_expire_at_the_close_and_later_ones_wait_for_the_open() -> None:
    async with Conductor(script(FULL_DAY), script("90|91", day=TUESDAY), exchange=exchange()) as conductor:
        market = conductor.market
        await conductor.minute(389)
        day, gtc = submit(market, "buy 5 stop 105"), submit(market, "buy 5 limit 95", tif=TimeInForce.GTC)
        await conductor.settled()
        assert (market.now, market.book.is_open, state(day, gtc)) == (at("20:59"), True, "new new")
        await conductor.minute()
        assert (market.now, state(day)) == (at("21:00"), "new")  # the timers of the close come first
        await conductor.minute()
        assert (market.now, market.book.is_open) == (at("14:30", TUESDAY), True)
        assert (state(day, gtc), day.expired_at) == ("expired new", at("21:00"))
        await conductor.minute()
        assert (state(gtc), gtc.filled_value / gtc.filled_qty) == ("filled", Decimal(90))
        assert market.book.account.last_equity == Decimal(25000)


async def test_an_order_sent_after_the_close_is_for_the_next_day() -> None:
    timers = [at("21:01")]
    async with Conductor(script(FULL_DAY), script("90|91", day=TUESDAY), exchange=exchange()) as conductor:
        market = conductor.market
        orders: list[BrokerOrder] = []

        async def fire(now: datetime) -> None:
            if now == at("21:01"):
                timers.clear()
                assert not market.book.is_open
                orders.append(submit(market, "buy 5"))
            elif now > at("21:00"):
                await conductor._end_of_step(now)

        conductor.lockstep.attach(next_due=lambda: min(timers, default=None), fire_timers=fire, is_idle=lambda: True)
        await conductor.minute()
        (order,) = orders
        assert (market.now, state(order), order.expires_at) == (at("14:30", TUESDAY), "new", at("21:00", TUESDAY))
        await conductor.minute()
        assert (order.filled_value, order.filled_at) == (Decimal(450), at("14:30", TUESDAY))


async def test_history_before_the_first_day_is_known_but_not_played() -> None:
    source = ScriptedBars(script("90|91"), script("100|101", day=TUESDAY), first_day=TUESDAY)
    async with Conductor(source=source) as conductor:
        market = conductor.market
        assert (market.now, market.book.prices) == (at("14:30", TUESDAY), {"AAPL": Decimal(91)})
        await conductor.to_the_end()
        assert market.now == at("14:32", TUESDAY)


async def test_a_minute_without_bars_is_skipped() -> None:
    async with Conductor(script("100|-|-|101")) as conductor:
        await conductor.minute(2)
        assert conductor.market.now == at("14:34")


async def test_after_the_last_bar_the_market_stays_open_and_fills_whole() -> None:
    async with Conductor(script("100|101", volume=100), exchange=exchange("0.1")) as conductor:
        market = conductor.market
        await conductor.minute()
        order = submit(market, "buy 10")
        await conductor.to_the_end()
        order = submit(market, "sell 10")
        await conductor.settled()
        for _ in range(3):
            await asyncio.sleep(0)
        assert (market.now, market.book.is_open, order.filled_value) == (at("14:32"), True, Decimal(1010))


# --- timers -----------------------------------------------------------------------------------------------------------


class Timers:
    """An engine that only has timers, and notes when they fire and what the market's clock says."""

    def __init__(self, *due: datetime) -> None:
        self.due = sorted(due)
        self.fired: list[tuple[datetime, Decimal | None]] = []
        self.market: Market | None = None

    def next_due(self) -> datetime | None:
        return min(self.due, default=None)

    async def fire(self, now: datetime) -> None:
        while self.market is not None and self.due and self.due[0] <= now:
            self.fired.append((self.due.pop(0), self.market.book.prices.get("AAPL")))


async def run_with_timers(bars: Sequence[Bar], *due: datetime, speed: float = 0) -> Timers:
    timers = Timers(*due)
    lockstep = Lockstep()
    market = Market(bars=ScriptedBars(bars), account_number="TEST", lockstep=lockstep, speed=speed)
    timers.market = market
    lockstep.attach(next_due=timers.next_due, fire_timers=timers.fire, is_idle=lambda: True)
    await market.start()
    market.begin()
    await asyncio.wait_for(market.run(), 10)
    await market.stop()
    return timers


async def test_a_timer_fires_at_its_time_before_later_bars_and_after_those_of_its_own_time() -> None:
    due = [at(f"14:3{minute}") for minute in (1, 2, 3, 4)]
    timers = await run_with_timers(script("100|101|-|103"), *due)
    assert timers.fired == list(zip(due, map(Decimal, (100, 101, 101, 103)), strict=True))


async def test_timers_after_the_last_bar_do_not_fire() -> None:
    timers = await run_with_timers(script("100|101"), at("14:32") + timedelta(seconds=1))
    assert timers.fired == []


async def test_a_timer_that_never_goes_away_does_not_stop_time() -> None:
    lockstep = Lockstep()
    market = Market(bars=ScriptedBars(script("100|101")), account_number="TEST", lockstep=lockstep, speed=0)

    async def ignore(now: datetime) -> None:
        return

    lockstep.attach(next_due=lambda: at("14:30"), fire_timers=ignore, is_idle=lambda: True)
    await market.start()
    market.begin()
    await asyncio.wait_for(market.run(), 5)
    assert market.now == at("14:32")
    await market.stop()


async def test_whoever_comes_between_two_steps_meets_a_minute_that_is_worked_off() -> None:
    lockstep = Lockstep()
    market = Market(bars=ScriptedBars(script(FULL_DAY)), account_number="T", speed=0, keys=KEYS, lockstep=lockstep)
    worked_off: list[datetime] = []
    met: list[tuple[datetime, datetime]] = []

    async def work_off(now: datetime) -> None:
        await asyncio.sleep(0.001)
        worked_off.append(now)

    async def come_by() -> None:
        while not market.ended.is_set():
            async with lockstep.between_steps():
                if worked_off:
                    met.append((market.now, worked_off[-1]))
            await asyncio.sleep(0.0007)

    await market.start()
    lockstep.attach(next_due=lambda: None, fire_timers=work_off, is_idle=lambda: True)
    market.begin()
    await asyncio.gather(market.run(), come_by())
    await market.stop()
    assert len(met) > 100
    assert [(now, done) for now, done in met if now != done] == []


# --- speed ------------------------------------------------------------------------------------------------------------


async def test_speed_is_market_time_per_real_time() -> None:
    started = time.monotonic()
    await run_with_timers(script("100|101|102"), speed=600)
    assert 0.3 <= time.monotonic() - started < 1.5


async def test_in_lockstep_and_fast_the_clock_stands_between_the_steps() -> None:
    async with running(speed=30, attached=True) as market:
        await asyncio.sleep(0.4)
        assert market.now == at("14:30")


async def test_at_real_time_the_clock_moves_every_second() -> None:
    async with running(speed=1, attached=True) as market:
        await asyncio.sleep(1.2)
        assert market.now == at("14:30") + timedelta(seconds=1)


async def test_alone_the_clock_moves_on_at_any_speed() -> None:
    async with running(speed=30, attached=False) as market:
        await asyncio.sleep(0.4)
        assert at("14:30") + timedelta(seconds=3) <= market.now <= at("14:31")


async def test_a_request_between_two_steps_is_carried_out_at_once() -> None:
    async with running(speed=1, attached=True) as market:
        await asyncio.sleep(0.05)
        order = submit(market, "buy 5 stop 105")
        await asyncio.sleep(0.1)
        assert (state(order), order.created_at) == ("new", at("14:30"))


@asynccontextmanager
async def running(*, speed: float, attached: bool) -> AsyncIterator[Market]:
    """A market that runs by the clock."""
    lockstep = Lockstep()
    market = Market(bars=ScriptedBars(script("100|100|100")), account_number="TEST", speed=speed, lockstep=lockstep)
    if attached:
        lockstep.attach(next_due=lambda: None, fire_timers=Timers().fire, is_idle=lambda: True)
    await market.start()
    market.begin()
    task = asyncio.create_task(market.run())
    try:
        yield market
    finally:
        task.cancel()
        await asyncio.wait({task})
        await market.stop()


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_restart_finds_account_orders_and_time_again(tmp_path: Path) -> None:
    path = tmp_path / "market" / "account.db"
    bars = script("100|101|102|103|94")
    async with Conductor(bars, exchange=exchange(), path=path) as conductor:
        market = conductor.market
        await conductor.minute(2)
        submit(market, "buy 5", client_order_id="entry")
        await conductor.settled()
        stop = submit(market, "sell 5 stop 95", tif=TimeInForce.GTC)
        await conductor.settled()
        ids = market.account_id, market.account_number
    async with Conductor(bars, exchange=exchange(), path=path, capital="1") as conductor:
        market = conductor.market
        assert (market.now, market.account_id, market.account_number) == (at("14:32"), *ids)
        assert market.book.account.cash == Decimal(25000 - 505)
        assert market.book.account.qty("AAPL") == 5
        assert market.book.orders[stop.id] == stop
        with pytest.raises(Refused, match="client_order_id must be unique"):
            submit(market, "buy 1", client_order_id="entry")
        await conductor.minute()
        assert (market.now, market.book.prices) == (at("14:33"), {"AAPL": Decimal(102)})
        await conductor.minute(2)
        assert market.book.account.positions == {}
        assert market.book.account.cash == Decimal(25000 - 505 + 470)


async def test_one_account_has_one_market(tmp_path: Path) -> None:
    path = tmp_path / "account.db"
    async with Conductor(script("100"), path=path):
        with pytest.raises(AccountFileError, match="another market is running on this account"):
            Market(bars=ScriptedBars(script("100")), account_number="OTHER", account_path=path)


async def test_a_replay_that_ended_or_plays_other_bars_starts_with_a_new_account(tmp_path: Path) -> None:
    path = tmp_path / "account.db"
    seen = []
    for source in (
        ScriptedBars(script("100|101|102")),
        ScriptedBars(script("100|101|102")),
        ScriptedBars(script("100|101|102"), description="others"),
    ):
        async with Conductor(source=source, path=path) as conductor:
            assert conductor.market.now == at("14:30")
            seen.append(conductor.market.account_id)
            if len(seen) == 1:
                await conductor.to_the_end()
            else:
                await conductor.minute()
    assert len(set(seen)) == 3


async def test_a_synthetic_account_is_never_given_up_for_another_seed(tmp_path: Path) -> None:
    path = tmp_path / "account.db"
    await Market(bars=SyntheticBars(seed=1), account_number="SIM-1", account_path=path).stop()
    with pytest.raises(AccountFileError, match="belongs to synthetic 1, not to synthetic 2"):
        Market(bars=SyntheticBars(seed=2), account_number="SIM-2", account_path=path)
    await Market(bars=SyntheticBars(seed=1), account_number="SIM-1", account_path=path).stop()


async def test_a_file_that_is_no_account(tmp_path: Path) -> None:
    path = tmp_path / "account.db"
    path.write_text("something else " * 100)
    with pytest.raises(AccountFileError, match="the account cannot be kept"):
        Market(bars=ScriptedBars(script("100")), account_number="TEST", account_path=path)


async def test_no_request_is_confirmed_that_could_not_be_written_down(tmp_path: Path) -> None:
    async with Conductor(script("100|101"), path=tmp_path / "account.db") as conductor:
        await conductor.minute()
        database = conductor.market._file._database
        database.execute("PRAGMA max_page_count=1")  # the disk is full
        url = f"{conductor.market.urls['trading_url']}/v2/orders"
        headers = {"APCA-API-KEY-ID": KEYS[0], "APCA-API-SECRET-KEY": KEYS[1]}
        order = {"symbol": "AAPL", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
        answers = [await asyncio.to_thread(requests.post, url, json=order, headers=headers) for _ in range(40)]
        assert answers[-1].status_code == 500
        assert answers[-1].json() == {"code": 50010000, "message": "internal server error occurred"}
        confirmed = {answer.json()["id"] for answer in answers if answer.ok}
        assert confirmed <= {kept.id for kept in conductor.market._file.orders()}
        database.execute("PRAGMA max_page_count=1000000")
        await conductor.settled()  # what was not confirmed may have happened all the same
        assert {kept.id for kept in conductor.market._file.orders()} == set(conductor.market.book.orders)
