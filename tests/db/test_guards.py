"""History cannot be changed, and nothing works on a database where it could be."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import Error, IntegrityError, connection, models, transaction

from orders import guards
from orders.fields import DecimalField
from orders.models import OrderEvent, Trade
from risk.models import SettingsChange
from tests.db.samples import REAL, order, record_new, record_trade, record_working, trade, uuid_of

TABLES = ["order_event", "trade", "settings_change"]
SQLITE_TRIGGERS = [f"no_{verb}_{table}" for table in TABLES for verb in ("update", "delete", "replace")]
POSTGRES_TRIGGERS = [f"no_{verb}_{table}" for table in TABLES for verb in ("update", "delete", "truncate")]


def run(sql: str) -> None:
    """SQL behind Django's back."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def rows(table: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        return list(cursor.fetchall())


@pytest.fixture
def history(each_ledger: str) -> None:
    """A working order, a trade and a change of settings."""
    record_working(order())
    record_trade(trade())
    SettingsChange.objects.create(key="watchlist", new_value="AAPL", changed_by="ann", changed_at=REAL)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET id = id",
        "UPDATE {table} SET id = id + 100 WHERE id = 1",
        "DELETE FROM {table}",
        "DELETE FROM {table} WHERE id = 1",
    ],
)
def test_rows_of_history_never_change_and_never_vanish(table: str, statement: str) -> None:
    before = rows(table)
    with pytest.raises(IntegrityError, match="append-only"):
        run(statement.format(table=table))
    assert rows(table) == before != []


@pytest.mark.usefixtures("history")
def test_django_cannot_change_history_either() -> None:
    attempts: list[Callable[[], object]] = [
        lambda: OrderEvent.objects.update(event_type="fill"),
        lambda: Trade.objects.update(pnl=1),
        lambda: Trade.objects.get().save(),
        lambda: Trade.objects.get().delete(),
        lambda: OrderEvent.objects.all().delete(),
        lambda: SettingsChange.objects.all().delete(),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            attempt()


@pytest.mark.parametrize("table", TABLES)
def test_postgresql_cannot_empty_a_table_of_history(postgres_ledger: str, table: str) -> None:
    record_trade(trade())
    for statement in (f"TRUNCATE {table}", f"TRUNCATE {table} CASCADE", "TRUNCATE order_state CASCADE"):
        with pytest.raises(Error, match=r"append-only|referenced in a foreign key"):
            run(statement)
    assert Trade.objects.count() == 1


def test_sqlite_cannot_replace_a_row_of_history(sqlite_ledger: str) -> None:
    record_working(order())
    record_trade(trade())
    SettingsChange.objects.create(key="watchlist", new_value="AAPL", changed_by="ann", changed_at=REAL)
    before = {table: rows(table) for table in TABLES}
    for table in TABLES:
        with pytest.raises(IntegrityError, match="append-only"):
            run(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE id = 1")
    copies = {
        "order_event": ("order_local_id", "version"),
        "trade": ("trade_id",),
    }
    for table, keys in copies.items():
        columns = [column.name for column in connection.introspection.get_table_description(connection.cursor(), table)]
        names = ", ".join(column for column in columns if column != "id")
        with pytest.raises(IntegrityError, match="append-only"):
            run(f"INSERT OR REPLACE INTO {table} ({names}) SELECT {names} FROM {table} WHERE id = 1")
        assert set(keys) <= set(columns)
    assert {table: rows(table) for table in TABLES} == before


def test_history_goes_on_growing(each_ledger: str) -> None:
    record_working(order())
    record_working(order("second", signal="second"))
    record_trade(trade())
    record_trade(trade("second"))
    assert OrderEvent.objects.count() == 6
    assert Trade.objects.count() == 2


# --- missing triggers -------------------------------------------------------------------------------------------------


def drop(trigger: str) -> None:
    table = next(table for table in TABLES if trigger.endswith(table))
    run(f"DROP TRIGGER {trigger} ON {table}" if connection.vendor == "postgresql" else f"DROP TRIGGER {trigger}")


def test_a_migrated_database_is_guarded(each_ledger: str) -> None:
    assert guards.missing_triggers(connection) == []
    guards.require()


def assert_missed_and_made_again(trigger: str) -> None:
    drop(trigger)
    assert guards.missing_triggers(connection) == [trigger]
    with pytest.raises(guards.UnguardedLedger, match=f"{trigger} missing: run `manage.py migrate`"):
        guards.require()
    guards.make_triggers(connection)
    assert guards.missing_triggers(connection) == []


@pytest.mark.parametrize("trigger", SQLITE_TRIGGERS)
def test_every_trigger_that_is_gone_from_sqlite_is_missed(sqlite_ledger: str, trigger: str) -> None:
    assert_missed_and_made_again(trigger)


@pytest.mark.parametrize("trigger", POSTGRES_TRIGGERS)
def test_every_trigger_that_is_gone_from_postgresql_is_missed(postgres_ledger: str, trigger: str) -> None:
    assert_missed_and_made_again(trigger)


def test_a_trigger_that_does_nothing_is_missed(sqlite_ledger: str) -> None:
    drop("no_update_trade")
    run("CREATE TRIGGER no_update_trade BEFORE UPDATE ON trade BEGIN SELECT 1; END")
    assert guards.missing_triggers(connection) == ["no_update_trade"]


@pytest.mark.parametrize("how", ["DISABLE TRIGGER", "ENABLE REPLICA TRIGGER", "ENABLE TRIGGER"])
def test_a_trigger_that_does_not_always_fire_is_missed(postgres_ledger: str, how: str) -> None:
    run(f"ALTER TABLE trade {how} no_delete_trade")
    assert "no_delete_trade" in guards.missing_triggers(connection)
    guards.make_triggers(connection)
    guards.require()


def test_replication_does_not_get_around_the_triggers(postgres_ledger: str) -> None:
    record_trade(trade())
    with pytest.raises(IntegrityError, match="append-only"):
        run("SET LOCAL session_replication_role = replica; DELETE FROM trade")


def test_a_function_that_was_emptied_is_missed(postgres_ledger: str) -> None:
    run("CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    assert guards.missing_triggers(connection) == POSTGRES_TRIGGERS


def test_migrate_is_the_cure_and_the_system_check_says_so(each_ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    drop("no_update_order_event")
    call_command("check", databases=["default"])
    shown = capsys.readouterr().err
    assert "orders.W001" in shown
    assert "no_update_order_event" in shown
    call_command("migrate", verbosity=0)
    guards.require()
    call_command("check", databases=["default"])
    assert "orders.W001" not in capsys.readouterr().err


def test_rebuilding_a_table_loses_its_triggers_and_migrate_brings_them_back(sqlite_ledger: str) -> None:
    record_trade(trade())
    old = Trade._meta.get_field("commission")
    new = DecimalField(null=True)
    new.set_attributes_from_name("commission")
    with connection.schema_editor() as editor:
        editor.alter_field(Trade, old, new)
    assert guards.missing_triggers(connection) == [f"no_{verb}_trade" for verb in ("update", "delete", "replace")]
    call_command("migrate", verbosity=0)
    guards.require()
    with pytest.raises(IntegrityError, match="append-only"):
        run("DELETE FROM trade")


def test_altering_a_table_keeps_its_triggers_on_postgresql(postgres_ledger: str) -> None:
    new = models.TextField(null=True)
    new.set_attributes_from_name("settings_hash")
    with connection.schema_editor() as editor:
        editor.alter_field(Trade, Trade._meta.get_field("settings_hash"), new)
    assert guards.missing_triggers(connection) == []
    record_trade(trade())
    with pytest.raises(IntegrityError, match="append-only"):
        run("DELETE FROM trade")


def test_a_database_without_tables_says_what_to_do(ledger: str) -> None:
    run("DROP TABLE settings_change")
    with pytest.raises(guards.UnguardedLedger, match="no tables yet"):
        guards.require()


class Writes(guards.GuardedCommand):
    """A command that writes."""

    def handle(self, **options: object) -> None:
        record_new(order("from a command", signal=uuid_of("command")))


def test_a_command_that_writes_refuses_to_start_without_a_trigger(each_ledger: str) -> None:
    drop("no_delete_order_event")
    with pytest.raises(guards.UnguardedLedger):
        call_command(Writes())
    assert not OrderEvent.objects.exists()
    call_command("migrate", verbosity=0)
    call_command(Writes())
    assert OrderEvent.objects.exists()


BACKTEST = "backtest --strategy velez --symbols AAPL --start-date 2026-03-02 --end-date 2026-03-02"


@pytest.mark.parametrize("command", ["runengine --no-web", "qcluster", BACKTEST])
def test_engine_worker_and_commands_refuse_in_one_line(ledger: str, command: str) -> None:
    drop("no_delete_trade")
    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"ALGO_DATABASE_URL": ledger},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "UnguardedLedger: the database does not protect its history, no_delete_trade missing: run `manage.py migrate`"
    ]


def test_who_changed_which_setting_cannot_be_forgotten(each_ledger: str) -> None:
    SettingsChange.objects.create(key="watchlist", new_value="AAPL", changed_by="ann", changed_at=REAL)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        SettingsChange.objects.update(changed_by="nobody")
    assert SettingsChange.objects.get().changed_by == "ann"
