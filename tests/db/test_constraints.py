"""What the database itself refuses, whoever asks: unknown words, impossible amounts, second copies of one thing."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from backtests.models import BacktestRun, BacktestTrade
from orders.lifecycle import OrderState, OrderType, Role, Side, TimeInForce
from orders.models import EVENT_TYPES, OrderEvent, Trade, TradeNote
from orders.models import OrderState as OrderRow
from risk.models import BREAKERS, SettingsOverride, TradingSession
from tests.db.samples import ACCOUNT, at, fill, order, record, record_new, record_trade, record_working, trade, uuid_of
from trading.messages import ActivityType, Level
from trading.models import REQUEST_KINDS, Activity, Decision, EngineLease, EngineRun, OperatorRequest


def set_column(table: str, column: str, value: str) -> None:
    """Changes all rows of a table behind Django's back, to be forgotten again."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s", [value])
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone()[0] == 1
        transaction.set_rollback(True)


def an_order() -> None:
    record_new(order())


def a_session() -> None:
    TradingSession.objects.create(account_id=ACCOUNT, date=at(0).date(), start_equity=25000)


def a_run() -> EngineRun:
    return EngineRun.objects.create(
        account_id=ACCOUNT, provider="simulator", account_mode="built_in", settings_hash="abc", started_at=at(0)
    )


def a_lease() -> None:
    EngineLease.objects.create(
        token=uuid_of("lease"), pid=1, host="here", state="running", started_at=at(0), heartbeat_at=at(0)
    )


def a_request() -> None:
    OperatorRequest.objects.create(
        kind="halt", lease_token=uuid_of("lease"), account_id=ACCOUNT, requested_by="ann", expires_at=at(1)
    )


def an_activity() -> None:
    Activity.objects.create(account_id=ACCOUNT, recorded_at=at(0), type="signal", level="info", message="a signal")


def a_decision() -> None:
    Decision.objects.create(
        account_id=ACCOUNT,
        recorded_at=at(0),
        symbol="AAPL",
        strategy="velez",
        side="long",
        candle={},
        conditions=[],
        checks=[],
        qty=10,
        entry_price=100,
        stop_price=99,
    )


def a_backtest() -> BacktestRun:
    return BacktestRun.objects.create(
        strategy="velez", symbols=["AAPL"], start_date="2026-03-02", end_date="2026-03-06", initial_capital=25000
    )


def a_backtest_trade() -> None:
    BacktestTrade.objects.create(
        run=a_backtest(),
        symbol="AAPL",
        side="long",
        qty=10,
        entry_price=100,
        exit_price=101,
        entry_at=at(0),
        exit_at=at(1),
        pnl=10,
        pnl_pct=1,
        duration_seconds=60,
        exit_reason="stop_loss",
    )


def a_note() -> None:
    TradeNote.objects.create(trade_id=record_trade(trade()), note="too early")


KNOWN_WORDS: list[tuple[Any, str, str, list[str]]] = [
    (an_order, "order_state", "side", list(Side)),
    (an_order, "order_state", "role", list(Role)),
    (an_order, "order_state", "order_type", list(OrderType)),
    (an_order, "order_state", "time_in_force", list(TimeInForce)),
    (an_order, "order_state", "state", list(OrderState)),
    (a_session, "trading_session", "breaker", list(BREAKERS)),
    (a_run, "engine_run", "account_mode", ["built_in", "paper", "live"]),
    (a_run, "engine_run", "outcome", ["running", "stopped", "failed"]),
    (a_lease, "engine_lease", "state", ["starting", "running", "stopping"]),
    (a_request, "operator_request", "kind", list(REQUEST_KINDS)),
    (an_activity, "activity", "type", list(ActivityType)),
    (an_activity, "activity", "level", list(Level)),
    (a_decision, "decision", "side", list(Side)),
    (a_backtest, "backtest_run", "status", ["queued", "running", "done", "failed"]),
    (a_backtest_trade, "backtest_trade", "side", list(Side)),
]


@pytest.mark.parametrize(("make", "table", "column", "words"), KNOWN_WORDS, ids=lambda value: str(value)[:20])
def test_columns_of_words_take_the_known_ones_only(
    each_ledger: str, make: Any, table: str, column: str, words: list[str]
) -> None:
    make()
    for word in words:
        set_column(table, column, str(word))
    for word in ("unheard_of", words[-1].upper()):
        with pytest.raises(IntegrityError):
            set_column(table, column, word)


REFUSED: list[tuple[Any, str, str, list[str | int | None]]] = [
    (an_order, "order_state", "symbol", [""]),
    (an_order, "order_state", "version", [-1]),
    (an_order, "order_state", "replacements", [-1]),
    (an_order, "order_state", "submit_attempts", [-1]),
    (an_order, "order_state", "qty_requested", ["0", "-1", "-0.5", None]),
    (an_order, "order_state", "qty_filled", ["-1", None]),
    (an_order, "order_state", "filled_value", ["-0.01"]),
    (an_order, "order_state", "filled_before", ["-1"]),
    (an_order, "order_state", "limit_price", ["0", "-1"]),
    (an_order, "order_state", "stop_price", ["0", "-0.0001"]),
    (an_order, "order_state", "planned_stop_price", ["0"]),
    (an_order, "order_state", "requested_stop_price", ["0"]),
    (an_order, "order_state", "avg_fill_price", ["0"]),
    (an_order, "order_state", "local_id", ["entry", None]),
    (an_order, "order_state", "correlation_id", ["", None]),
    (an_order, "order_state", "account_id", [None]),
    (a_lease, "engine_lease", "id", [2]),
    (a_decision, "decision", "qty", ["-1"]),
    (a_backtest, "backtest_run", "initial_capital", ["0"]),
    (a_backtest, "backtest_run", "progress", [101]),
    (a_backtest, "backtest_run", "end_date", ["2026-03-01"]),
    (a_backtest, "backtest_run", "max_drawdown", ["-0.1"]),
    (a_backtest_trade, "backtest_trade", "exit_reason", [""]),
    (a_backtest_trade, "backtest_trade", "qty", ["0"]),
    (a_note, "trade_note", "note", [""]),
    (a_note, "trade_note", "trade_id", [uuid_of("no such trade")]),
]


@pytest.mark.parametrize(("make", "table", "column", "values"), REFUSED, ids=lambda value: str(value)[:20])
def test_impossible_values_are_refused(
    each_ledger: str, make: Any, table: str, column: str, values: list[str | int | None]
) -> None:
    make()
    for value in values:
        with pytest.raises(IntegrityError):
            _set_for_good(table, column, value)


def _set_for_good(table: str, column: str, value: str | int | None) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s", [value])
        connection.check_constraints()


def _insert(row: Trade | OrderEvent) -> None:
    with transaction.atomic():
        row.save(force_insert=True)
        connection.check_constraints()


TRADE_REFUSED: list[tuple[str, object]] = [
    ("side", "buy"),
    ("symbol", ""),
    ("exit_reason", ""),
    ("qty", 0),
    ("entry_price", 0),
    ("exit_price", -1),
    ("initial_stop_price", 0),
    ("planned_risk", -1),
    ("duration_seconds", -1),
    ("corrects_trade_id", uuid_of("no such trade")),
]


@pytest.mark.parametrize(("column", "value"), TRADE_REFUSED)
def test_impossible_trades_are_refused(each_ledger: str, column: str, value: object) -> None:
    record_trade(trade())
    row = Trade.objects.get()
    row.pk, row.trade_id = None, uuid_of("another")
    setattr(row, column, value)
    with pytest.raises(IntegrityError):
        _insert(row)


EVENT_REFUSED: list[tuple[str, object]] = [
    ("event_type", "unheard_of"),
    ("event_type", ""),
    ("old_state", "open"),
    ("new_state", "open"),
    ("qty_filled", 0),
    ("fill_price", -1),
    ("version", -1),
    ("order_local_id", uuid_of("no such order")),
]


@pytest.mark.parametrize(("column", "value"), EVENT_REFUSED)
def test_impossible_events_are_refused(each_ledger: str, column: str, value: object) -> None:
    record_new(order())
    row = OrderEvent.objects.get()
    row.pk, row.version = None, 1
    setattr(row, column, value)
    with pytest.raises(IntegrityError):
        _insert(row)


@pytest.mark.parametrize("word", EVENT_TYPES)
def test_every_kind_of_event_can_be_written(each_ledger: str, word: str) -> None:
    record_new(order())
    row = OrderEvent.objects.get()
    row.pk, row.version, row.event_type = None, 1, word
    row.save(force_insert=True)
    assert OrderEvent.objects.count() == 2


def test_one_local_id_is_one_order(each_ledger: str) -> None:
    record_new(order())
    with pytest.raises(IntegrityError):
        record_new(order(symbol="TSLA"))
    assert OrderRow.objects.get().symbol == "AAPL"


def test_one_execution_is_written_once_per_account(each_ledger: str) -> None:
    working = record_working(order())
    partly = record(working, fill(working, "4", "100.01", execution="e1"))
    with pytest.raises(IntegrityError):
        record(partly, fill(working, "6", "100.02", execution="e1"))
    assert OrderRow.objects.get().qty_filled == 4
    other = record_working(order("other", signal="other"), account_id="paper:OTHER")
    record(other, fill(other, "4", "100.01", execution="e1"), account_id="paper:OTHER")
    assert OrderEvent.objects.filter(execution_id="e1").count() == 2


def test_a_trade_is_corrected_once(each_ledger: str) -> None:
    first = record_trade(trade())
    record_trade(trade(pnl=1), corrects_trade_id=first)
    with pytest.raises(IntegrityError):
        record_trade(trade(pnl=2), corrects_trade_id=first)


def test_a_session_is_there_once_per_account_and_day(each_ledger: str) -> None:
    a_session()
    with pytest.raises(IntegrityError), transaction.atomic():
        a_session()
    TradingSession.objects.create(account_id="paper:OTHER", date=at(0).date(), start_equity=1)


def test_there_is_one_lease(each_ledger: str) -> None:
    a_lease()
    with pytest.raises(IntegrityError), transaction.atomic():
        a_lease()


def test_a_setting_is_overridden_once(each_ledger: str) -> None:
    SettingsOverride.objects.create(key="watchlist", value="AAPL")
    with pytest.raises(IntegrityError), transaction.atomic():
        SettingsOverride.objects.create(key="watchlist", value="TSLA")
