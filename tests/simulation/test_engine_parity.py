"""The engine and the backtester come to the same trades on the same bars, one by one, to the last digit."""

import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.management import call_command

from orders import store as order_store
from orders.encoding import encode
from tests.simulation.engines import PATIENCE_SECONDS, REPLAYS, Engine
from trading.live import recording
from trading.simulator.synthetic import FIRST_DATE


def backtest(shared_data: Path, name: str) -> list[dict[str, Any]]:
    """The trades of the same bars and settings as `manage.py backtest --json` prints them."""
    strategies, symbols, start, end, settings = REPLAYS[name]
    printed = StringIO()
    call_command(
        "backtest", strategy=strategies, symbols=symbols, start_date=start, end_date=end,
        data=str(shared_data / "stockbot2018"), params=[f"{key}={text}" for key, text in settings.items()],
        json=True, no_save=True, stdout=printed,
    )  # fmt: skip
    trades: list[dict[str, Any]] = json.loads(printed.getvalue())["trades"]
    return trades


def test_on_days_with_missing_minutes(replays: dict[str, Engine], shared_data: Path) -> None:
    expected = backtest(shared_data, "missing minutes")
    assert len(expected) > 3
    assert replays["missing minutes"].ended().trades() == expected


def test_with_shorts_two_strategies_and_positions_held_over_a_night(
    replays: dict[str, Engine], shared_data: Path
) -> None:
    expected = backtest(shared_data, "shorts over a night")
    assert {(trade["strategy"], trade["side"]) for trade in expected} >= {
        ("velez", "short"),
        ("velez", "long"),
        ("opening_range", "long"),
    }
    assert any(trade["entry_at"][:10] < trade["exit_at"][:10] for trade in expected)
    assert replays["shorts over a night"].ended().trades() == expected


def test_with_orders_that_are_filled_in_part(replays: dict[str, Engine], shared_data: Path) -> None:
    expected = backtest(shared_data, "partial fills")
    assert len(expected) > 3
    engine = replays["partial fills"].ended()
    assert engine.trades() == expected
    assert "partial_fill" in engine.event_types()


# --- the synthetic market ---------------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_run_twice(migrated_sqlite: Path, tmp_path: Path) -> None:
    settings = {"velez.allow_short": "true", "risk.consecutive_loss_pause": "10"}
    market = ("--symbols", "TSLA,AMD", "--seed", "7")
    engines = [Engine(migrated_sqlite, tmp_path / name, *market, settings=settings) for name in ("one", "two")]
    try:
        first, second = map(first_day, engines)
    finally:
        for engine in engines:
            engine.process.kill()
            engine.process.wait()
    assert len(first) > 100
    assert first == second


def first_day(engine: Engine) -> list[tuple[Any, ...]]:
    """Every event of every order of the first session, without what the wall clock and the broker's ids put in."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(days := [day for day in recording.days(1, data_dir=engine.folder) if day >= FIRST_DATE]) < 2:
        assert engine.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    engine.stopped()
    events = [
        (event.fact.at, order.local_id, order.symbol, event.event_type, event.new_state, _without_ids(event.fact))
        for order in engine.read(order_store.recent_orders, limit=10_000)
        if order.created_at.date() == days[0]
        for event in engine.read(order_store.events_of, order.local_id)
    ]
    return sorted(events, key=lambda event: event[:2])


def _without_ids(fact: Any) -> Any:
    given_by_the_broker = {"broker_id", "old_broker_id", "execution_id"}
    return {name: value for name, value in encode(fact).items() if name not in given_by_the_broker}
