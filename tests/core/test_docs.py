"""The documents say what the code does, where a machine can tell."""

import re
from dataclasses import fields
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from backtests.metrics import Metrics
from backtests.runner import days_of, run
from orders.lifecycle import TRANSITIONS
from trading.exchange import Exchange
from trading.live import calendar
from trading.market import MINUTE, Bar
from trading.settings import TraderSettings
from trading.strategy import Strategy
from trading.trader import Trader

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_of_an_orders_life_is_the_table_in_the_code() -> None:
    text = (DOCS / "life-of-an-order.md").read_text()
    rows = text.split("<!-- transitions -->")[1].split("<!-- end of transitions -->")[0].strip().splitlines()[2:]
    told = {row.split("|")[1].strip(): {state.strip() for state in row.split("|")[2].split(",")} for row in rows}
    assert told == {str(state): {str(each) for each in after} for state, after in TRANSITIONS.items() if after}


def test_every_figure_of_a_backtest_is_explained() -> None:
    rows = [line for line in (DOCS / "backtesting.md").read_text().splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {figure.name for figure in fields(Metrics)} <= explained


def test_the_strategy_of_the_recipe_trades_as_the_recipe_says() -> None:
    source = (DOCS / "write-a-strategy.md").read_text().split("```python\n")[1].split("```")[0]
    written: dict[str, Any] = {}
    exec(source, written)
    session = calendar.sessions(date(2024, 3, 4), date(2024, 3, 4))[0]
    rises = [*range(10), 9, 10, 11, 12, *range(13, 20)]  # a fall before the last three
    bars = []
    for minute, cents in enumerate(rises):
        price = 100 + Decimal(cents) / 100
        stamp = session.open + minute * MINUTE
        bars.append(Bar(symbol="AAPL", timestamp=stamp, open=price, high=price, low=price, close=price, volume=1000))
    small = {"candle_interval_minutes": 1, "sma_fast": 2, "sma_slow": 9, "hold_candles": 4}
    parameters = {**written["ThreeRises"].hyperparameters, **small}
    try:
        trader = Trader(
            settings=TraderSettings(strategies={"three_rises": parameters}),
            symbols=("AAPL",),
            cash=Decimal(25_000),
            account_id="test",
            asks_broker=False,
        )
        result = run(trader=trader, exchange=Exchange(), days=days_of({"AAPL": bars}, [session]), warm_ups={})
    finally:
        del Strategy.registry["three_rises"]
    (trade,) = result.trades
    # Three rises are complete at minute 13; filled in the next one, which is the first of four candles.
    assert trade.entry_at == session.open + 14 * MINUTE
    assert (trade.exit_reason, trade.exit_at) == ("held_long_enough", session.open + 18 * MINUTE)
