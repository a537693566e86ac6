"""The backtester and a second, plain telling of the rules come to the same trades, on random and on real bars."""

import random
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backtests.runner import days_of, run
from risk.rules import RiskSettings
from tests.core.plain_backtest import PlainBacktest
from tests.real_bars import real_days
from trading.exchange import Exchange
from trading.live import calendar
from trading.market import Bar, Session
from trading.settings import TraderSettings
from trading.strategies.velez import Velez
from trading.trader import Trader

CAPITAL = Decimal(25000)
# A half day, a weekend, and the change of the clocks lie within.
SESSIONS = calendar.sessions(date(2023, 11, 24), date(2023, 11, 27)) + calendar.sessions(
    date(2024, 3, 8), date(2024, 3, 11)
)


def random_bars(symbol: str, randomness: random.Random, *, missing: float, volatility: int) -> list[Bar]:
    """A random walk in cents with every kind of candle, gaps between minutes, and missing minutes."""
    bars: list[Bar] = []
    price = randomness.choice([150, 2000, 10000])
    for session in SESSIONS:
        for minute in range((session.close - session.open) // timedelta(minutes=1)):
            price = max(price + randomness.choice([0, 0, 0, randomness.randint(-volatility, volatility)]), 50)
            opened, close = price, max(price + randomness.randint(-volatility, volatility), 50)
            high = max(opened, close) + randomness.choice([0, randomness.randint(0, volatility)])
            low = max(min(opened, close) - randomness.choice([0, randomness.randint(0, volatility)]), 1)
            price = close
            if randomness.random() >= missing:
                bars.append(
                    Bar(
                        symbol=symbol,
                        timestamp=session.open + timedelta(minutes=minute),
                        open=Decimal(opened) / 100,
                        high=Decimal(high) / 100,
                        low=Decimal(low) / 100,
                        close=Decimal(close) / 100,
                        volume=1000,
                    )
                )
    return bars


def both_ways(
    bars: Mapping[str, Sequence[Bar]],
    sessions: Sequence[Session],
    *,
    velez: Mapping[str, Any],
    risk: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trades and equity of the product and of the plain loop, in the same words."""
    settings = RiskSettings(**risk)
    parameters = {**Velez.hyperparameters, **velez}
    trader = Trader(
        settings=TraderSettings(risk=settings, strategies={"velez": parameters}),
        symbols=bars,
        cash=CAPITAL,
        account_id="test",
        asks_broker=False,
    )
    result = run(trader=trader, exchange=Exchange(), days=days_of(bars, sessions), warm_ups={})
    plain = PlainBacktest(
        capital=CAPITAL,
        velez=parameters,
        risk={name: getattr(settings, name) for name in RiskSettings.__slots__},
    )
    plain.run(bars, sessions)
    ours = {
        "trades": [
            (t.symbol, str(t.side), t.qty, t.entry_price, t.exit_price, t.entry_at, t.exit_at, t.exit_reason, t.pnl)
            for t in result.trades
        ],
        "daily": list(result.daily_equity),
        "drawdown": result.max_drawdown,
    }
    sides = {1: "long", -1: "short"}
    ordered = sorted(plain.trades, key=lambda trade: (trade.exit_at, trade.symbol, trade.entry_at))
    theirs = {
        "trades": [
            (t.symbol, sides[t.direction], t.qty, t.entry_price, t.exit_price, t.entry_at, t.exit_at, t.reason, t.pnl)
            for t in ordered
        ],
        "daily": plain.daily,
        "drawdown": plain.drawdown,
    }
    return ours, theirs


@pytest.mark.parametrize("seed", range(12))
def test_random_bars_give_the_same_trades(seed: int) -> None:
    randomness = random.Random(seed)
    missing = randomness.choice([0, 0.02, 0.2])
    volatility = randomness.choice([4, 12, 40])
    bars = {
        name: random_bars(name, randomness, missing=missing, volatility=volatility) for name in ("AAPL", "MSFT", "F")
    }
    ours, theirs = both_ways(
        bars,
        SESSIONS,
        velez={
            "sma_fast": 3,
            "sma_slow": 10,
            "candle_interval_minutes": randomness.choice([1, 2, 5]),
            "allow_short": randomness.choice([False, True]),
            "buy_stop_expiry_candles": randomness.choice([1, 3]),
            "max_run_candles": 2,
            "tightness_threshold_pct": Decimal(5),
        },
        risk={
            "consecutive_loss_pause": randomness.choice([2, 10]),
            "max_open_positions": randomness.choice([1, 2, 5]),
            "max_position_pct": randomness.choice([Decimal("0.05"), Decimal("0.6")]),
            "flatten_minutes_before_close": randomness.choice([0, 5]),
        },
    )
    assert ours == theirs
    assert ours["trades"]


def test_real_bars_give_the_same_trades() -> None:
    bars = {
        name: [bar for day in real_days(f"stockbot2018/{name}.csv.gz").values() for bar in day]
        for name in ("AMD", "AOBC")
    }
    sessions = calendar.sessions(date(2018, 2, 16), date(2018, 4, 20))
    ours, theirs = both_ways(bars, sessions, velez={}, risk={})
    assert ours == theirs
    assert len(ours["trades"]) > 50
