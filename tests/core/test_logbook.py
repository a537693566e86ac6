"""What a Trader was told comes back from its line as it was."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from orders.events import Filled
from orders.lifecycle import Order, OrderState, OrderType, Role, Side, TimeInForce
from risk.config import resolve
from trading.live import calendar
from trading.logbook import Entry, Standing, config_of, from_line, is_told, to_line
from trading.market import MINUTE, Bar
from trading.messages import (
    BarDelivered,
    CloseRequested,
    DataEnded,
    Event,
    ExecutionCorrected,
    Halted,
    HistoryDelivered,
    PositionAdopted,
    PositionGone,
    Resumed,
    SessionStarted,
    SettingsChanged,
    ShuttingDown,
    StopMoveRequested,
    SymbolBlocked,
    TimerFired,
    WatchlistChanged,
)
from trading.settings import trader_settings

SESSION = calendar.sessions(date(2024, 3, 4), date(2024, 3, 4))[0]
NOW = SESSION.open + timedelta(minutes=7, microseconds=250_000)
REAL = datetime(2026, 11, 20, 9, 15, 2, 123456, tzinfo=UTC)
CONFIG = resolve([("env", {"ALGO_RISK__MAX_OPEN_POSITIONS": "3", "ALGO_STRATEGIES": "velez,opening_range"})])
BAR = Bar(
    symbol="AAPL",
    timestamp=SESSION.open,
    open=Decimal("0.1234"),
    high=Decimal("170.50"),
    low=Decimal("0.0001"),
    close=Decimal(170),
    volume=12,
)
STOP = Order(
    local_id="f2d8a3c6-0a7b-5c39-8f8e-3f7a64f0f9a1",
    correlation_id="d248f687-5f73-5853-912d-a88701c82bf6",
    symbol="AAPL",
    side=Side.SHORT,
    role=Role.STOP_LOSS,
    order_type=OrderType.STOP,
    qty_requested=Decimal(12),
    strategy="velez",
    created_at=NOW,
    updated_at=NOW,
    time_in_force=TimeInForce.GTC,
    stop_price=Decimal("171.50"),
    state=OrderState.ACCEPTED,
    broker_id="b",
    replacements=2,
)
FILL = Filled(
    local_id=STOP.local_id, at=NOW, qty=Decimal(5), price=Decimal("170.333333"), filled_at=NOW, execution_id="x"
)
ENTRIES: list[Entry] = [
    Standing(
        now=NOW,
        settings=CONFIG.as_texts(),
        symbols=("AAPL", "BRK.B"),
        cash=Decimal("24986.560000000000000000001"),
        orders=(STOP,),
        fills=((STOP, FILL),),
        halted="halted by me",
        blocked={"BRK.B": {"halt": "halted by the exchange: T1"}, "": {"clock": "12 s off"}},
    ),
    SessionStarted(now=NOW, session=SESSION),
    SessionStarted(
        now=NOW,
        session=SESSION,
        start_equity=Decimal("25000.5"),
        breaker="daily_loss,consecutive_losses",
        tripped_at=NOW,
        losses_in_a_row=3,
        entries={"AAPL": 20},
    ),
    HistoryDelivered(now=NOW, symbol="AAPL", bars=(BAR, BAR), rebuilds=True, sessions=(SESSION, SESSION)),
    HistoryDelivered(now=NOW, symbol="AAPL", bars=(), interval_minutes=2, window_start=SESSION.open + 2 * MINUTE),
    SettingsChanged(now=NOW, settings=trader_settings(CONFIG)),
    WatchlistChanged(now=NOW, symbols=("AAPL", "TSLA")),
    Halted(now=NOW, reason='"quoted", and a\nnew line', is_alarm=True),
    Resumed(now=NOW),
    ShuttingDown(now=NOW),
    CloseRequested(now=NOW),
    CloseRequested(now=NOW, symbol="AAPL", reason="end_of_day"),
    StopMoveRequested(now=NOW, symbol="AAPL", stop_price=Decimal("99.5")),
    SymbolBlocked(now=NOW, symbol="AAPL", reason=""),
    PositionAdopted(now=NOW, symbol="AAPL", side=Side.SHORT, qty=Decimal(3), price=Decimal("1.23")),
    PositionGone(now=NOW, symbol="AAPL", qty=Decimal(3), price=Decimal("1.23")),
    PositionGone(now=NOW, symbol="AAPL", qty=Decimal(3), price=Decimal("1.23"), detail="a bust", estimated=False),
    ExecutionCorrected(
        now=NOW,
        symbol="AAPL",
        side=Side.LONG,
        buys=True,
        strategy="velez",
        qty=Decimal(3),
        old_price=Decimal("1.23"),
        price=Decimal("1.2"),
        execution_id="e",
    ),
    DataEnded(now=NOW),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    line = to_line(entry, real_at=REAL, settings=CONFIG.as_texts())
    assert "\n" not in line
    assert from_line(line) == (REAL, entry)
    assert not isinstance(entry, Event) or is_told(entry)


def test_bars_and_timers_are_no_part_of_it() -> None:
    assert not is_told(BarDelivered(now=NOW, bar=BAR))
    assert not is_told(TimerFired(now=NOW))


def test_settings_come_back_as_far_as_they_say_what_is_traded() -> None:
    elsewhere = {"ALGO_BROKER__PROVIDER": "alpaca", "ALGO_BROKER__API_KEY": "k", "ALGO_BROKER__SECRET_KEY": "s"}
    traded = resolve([("env", {**elsewhere, "ALGO_WEB__PORT": "9000", "ALGO_VELEZ__SMA_FAST": "9"})])
    config = config_of({**traded.as_texts(), "a.key_of_long_ago": "1"})
    assert trader_settings(config) == trader_settings(traded)
    assert (config["broker.provider"], config["web.port"], config["velez.sma_fast"]) == ("simulator", 8000, 9)


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"told":"Unheard","real_at":"x"}', '{"told":"DataEnded"}'])
def test_what_is_no_entry_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  any of them will do
        from_line(line)
