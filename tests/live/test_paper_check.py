"""The check list for Alpaca's paper account, tried against the built-in market over Alpaca's protocol."""

import asyncio

import pytest

from risk.config import Config, resolve
from tests.built_in_market import KEYS, Conductor, script
from trading.live import paper_check

PRICES = "|".join(["100"] * 60)


def settings_of(conductor: Conductor, **changes: str) -> Config:
    """An engine's settings that trade at the test's market."""
    urls = {f"ALGO_BROKER__{name.upper()}": url for name, url in conductor.market.urls.items()}
    keys = {"ALGO_BROKER__API_KEY": KEYS[0], "ALGO_BROKER__SECRET_KEY": KEYS[1], "ALGO_WATCHLIST": "AAPL"}
    return resolve([("env", {**urls, **keys, "ALGO_BROKER__PROVIDER": "alpaca", **changes})])


async def keep_settling(conductor: Conductor) -> None:
    """The market carries out what it is asked, as one that waits for nobody does."""
    while True:
        await conductor.settled()
        await asyncio.sleep(0.05)


async def test_every_step_turns_green_and_leaves_nothing_behind() -> None:
    async with Conductor(script(PRICES)) as conductor:
        await conductor.minute(40)
        config = settings_of(conductor)
        going_on = asyncio.create_task(keep_settling(conductor))
        outcomes = {step: await paper_check.run(step, config) for step in paper_check.STEPS}
        going_on.cancel()
        assert {step: outcome.is_done for step, outcome in outcomes.items()} == dict.fromkeys(outcomes, True), str(
            outcomes
        )
        assert outcomes["account"].detail == "Equity $25,000.00, buying power $25,000.00."
        assert outcomes["order"].detail == "Asked for 1 AAPL at 50.00, and cancelled it: 0 filled."
        (order,) = conductor.market.book.orders.values()
        assert (str(order.status), int(order.filled_qty)) == ("canceled", 0)


async def test_wrong_keys_are_said_so_and_nothing_else_is_tried() -> None:
    async with Conductor(script(PRICES)) as conductor:
        config = settings_of(conductor, ALGO_BROKER__SECRET_KEY="wrong")
        outcome = await paper_check.run("keys", config)
        assert (outcome.is_done, "refuses the keys" in outcome.detail) == (False, True)
        assert "wrong" not in outcome.detail


@pytest.mark.parametrize("step", paper_check.STEPS)
async def test_without_keys_every_step_says_where_to_get_them(step: str) -> None:
    outcome = await paper_check.run(step, resolve([]))
    assert (outcome.is_done, "Make keys on Alpaca's paper page" in outcome.detail) == (False, True)


@pytest.mark.parametrize("step", paper_check.STEPS)
async def test_an_account_of_real_money_is_never_touched(step: str) -> None:
    live = {"ALGO_BROKER__PAPER": "false", "ALGO_ALLOW_LIVE_TRADING": "true"}
    config = resolve([("env", {"ALGO_BROKER__API_KEY": "a", "ALGO_BROKER__SECRET_KEY": "b", **live})])
    outcome = await paper_check.run(step, config)
    assert (outcome.is_done, "real money" in outcome.detail) == (False, True)
