"""The settings page asks the broker whether it trades a symbol: the built-in market, over Alpaca's protocol."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from risk.config import resolve
from risk.symbols import CannotTell
from tests.built_in_market import KEYS, Conductor, script
from trading.live import assets


def at_market(trading_url: str) -> Any:
    """The settings of an engine that trades at this address."""
    variables = {"ALGO_BROKER__PROVIDER": "alpaca", "ALGO_BROKER__API_KEY": KEYS[0], "ALGO_BROKER__SECRET_KEY": KEYS[1]}
    urls = {
        "ALGO_BROKER__TRADING_URL": trading_url,
        "ALGO_BROKER__TRADING_STREAM_URL": trading_url.replace("http", "ws", 1),
        "ALGO_BROKER__DATA_URL": trading_url,
        "ALGO_BROKER__DATA_STREAM_URL": trading_url.replace("http", "ws", 1),
    }
    return resolve([("env", variables | urls)])


async def test_a_symbol_that_the_broker_does_not_trade_is_named(settings: Any) -> None:
    async with Conductor(script("100|101")) as conductor:
        settings.ALGO = at_market(conductor.market.urls["trading_url"])
        assert await sync_to_async(assets.not_tradable, thread_sensitive=False)(["AAPL", "ZZZZ"]) == ["ZZZZ"]


def test_a_broker_that_does_not_answer_is_no_refusal(settings: Any) -> None:
    settings.ALGO = at_market("http://127.0.0.1:9")
    with pytest.raises(CannotTell, match="could not be asked"):
        assets.not_tradable(["AAPL"])


def test_the_built_in_market_in_the_engine_trades_any_symbol(settings: Any) -> None:
    settings.ALGO = resolve([])
    assert assets.not_tradable(["ZZZZ"]) == ()
