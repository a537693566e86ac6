"""The tables come from the migrations alone, carry the names that users rely on, and never go back."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from orders import guards
from orders.models import Trade
from tests.db.samples import record_trade, trade, uuid_of

MOMENT = "2026-03-02T14:30:00.000000Z"
OUR_APPS = {"orders", "risk", "trading", "backtests"}
COLUMNS = {
    "order_state": "local_id broker_id correlation_id symbol side role order_type qty_requested qty_filled limit_price"
    " stop_price avg_fill_price state version parent_id strategy submit_attempts last_error created_at updated_at"
    " account_id run_id recorded_real_at",
    "order_event": "order_local_id event_type old_state new_state qty_filled fill_price broker_id detail recorded_at"
    " execution_id recorded_real_at account_id run_id",
    "trade": "trade_id correlation_id symbol side qty entry_price exit_price entry_at exit_at pnl pnl_pct strategy"
    " duration_seconds commission exit_reason initial_stop_price planned_risk estimated corrects_trade_id settings_hash"
    " account_id run_id",
    "trade_note": "trade_id note created_at updated_at",
    "backtest_run": "strategy symbols start_date end_date initial_capital params total_return win_rate profit_factor"
    " sharpe_ratio max_drawdown total_trades equity_curve created_at account_id sweep_id lease_until attempts",
    "backtest_trade": "run_id symbol side qty entry_price exit_price entry_at exit_at pnl duration_seconds account_id",
    "backtest_sweep": "sweep_id strategy symbols start_date end_date initial_capital params grid points status",
    "backtest_sweep_chunk": "sweep_id first end status token lease_until attempts",
    "backtest_sweep_point": "sweep_id number params metrics moments error worker finished_at",
    "backtest_walk_forward": "strategy symbols start_date end_date initial_capital params grid status result",
    "settings_override": "key value updated_at previous_value",
    "trading_session": "account_id date start_equity breaker tripped_at halted run_id",
    "activity": "type symbol message correlation_id account_id run_id",
    "decision": "symbol conditions checks account_id run_id settings_hash",
    "notification_channel": "name url events is_enabled sent failed last_sent_at last_error",
    "engine_run": "settings settings_hash account_id",
    "engine_lease": "token pid host port run_id account_id state started_at heartbeat_at",
    "position_cover": "symbol correlation_id naked_seconds longest_seconds most_dollars stretches",
    "operator_request": "kind payload lease_token requested_by created_at expires_at claimed_at done_at result error",
    "asked_once": "asked_by key fingerprint answer_id asked_at",
    "settings_change": "key old_value new_value changed_by changed_at",
}
INDEXES = {
    "order_state": "broker_id correlation_id state symbol_created",
    "order_event": "local_id recorded",
    "trade": "symbol_exit correlation strategy_exit",
    "backtest_trade": "run",
}


def test_no_model_has_changed_without_a_migration(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("makemigrations", dry_run=True)
    assert capsys.readouterr().out == "No changes detected\n"


@pytest.mark.parametrize("table", COLUMNS)
def test_tables_have_the_columns_that_users_rely_on(each_ledger: str, table: str) -> None:
    with connection.cursor() as cursor:
        present = {column.name for column in connection.introspection.get_table_description(cursor, table)}
    assert set(COLUMNS[table].split()) <= present


@pytest.mark.parametrize("table", INDEXES)
def test_tables_have_the_indexes_that_users_rely_on(each_ledger: str, table: str) -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, table)
    present = {name for name, constraint in constraints.items() if constraint["index"]}
    assert {f"ix_{table}_{name}" for name in INDEXES[table].split()} <= present


def test_defaults_hold_for_rows_that_come_from_elsewhere(each_ledger: str) -> None:
    values = {
        "account_id": "paper:ELSEWHERE", "local_id": uuid_of("entry"), "correlation_id": uuid_of("signal"),
        "client_order_id": uuid_of("entry"), "symbol": "AAPL", "side": "long", "role": "entry", "order_type": "stop",
        "qty_requested": "10", "created_at": MOMENT, "updated_at": MOMENT, "recorded_real_at": MOMENT,
    }  # fmt: skip
    placeholders = ", ".join(["%s"] * len(values))
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO order_state ({', '.join(values)}) VALUES ({placeholders})", list(values.values()))
        cursor.execute("SELECT qty_filled, state, version, submit_attempts, time_in_force FROM order_state")
        qty_filled, *others = cursor.fetchone()
    assert (str(qty_filled), *others) == ("0", "pending_submit", 0, 0, "day")


@pytest.mark.parametrize("app", sorted(OUR_APPS))
def test_migrations_do_not_go_backwards(each_ledger: str, app: str) -> None:
    record_trade(trade())
    with pytest.raises(CommandError, match="migrations do not go backwards") as refusal:
        call_command("migrate", app, "zero", verbosity=0)
    assert isinstance(refusal.value, IrreversibleError)
    with pytest.raises(IrreversibleError):
        MigrationExecutor(connection).migrate([(app, None)])
    assert Trade.objects.count() == 1
    guards.require()


def test_going_backwards_is_one_line_for_the_user(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "manage.py", "migrate", "-v0"]
    environment = {"ALGO_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=120)
    command += ["trading", "zero"]
    back = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert back.returncode == 1
    assert len(back.stderr.strip().splitlines()) == 1
    assert "Restore a backup" in back.stderr


def test_every_migration_of_ours_refuses_to_go_backwards() -> None:
    ours = [m for (app, _), m in MigrationLoader(None).disk_migrations.items() if app in OUR_APPS]
    assert {migration.app_label for migration in ours} == OUR_APPS
    for migration in ours:
        assert isinstance(migration.operations[0], guards.ForwardOnly), f"{migration} lacks ForwardOnly"


def test_migrating_again_changes_nothing(each_ledger: str) -> None:
    record_trade(trade())
    call_command("migrate", verbosity=0)
    assert Trade.objects.count() == 1
    guards.require()


def test_tables_are_named_as_users_know_them() -> None:
    tables = {model._meta.db_table for app in OUR_APPS for model in apps.get_app_config(app).get_models()}
    assert tables == set(COLUMNS)
