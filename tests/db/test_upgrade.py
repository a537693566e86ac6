"""An old database with data in it is migrated: its triggers are there, and its ledger is the same."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import DjangoDbBlocker

from orders import guards
from orders import store as order_store
from tests import databases
from tests.db.samples import ACCOUNT, fill, order, record, record_trade, record_working, stop, trade
from tests.requirements_for_tests import require

FIRST_VERSION = {"auth": "0012", "orders": "0001", "risk": "0001", "trading": "0001", "backtests": "0001"}
MOMENT = "2026-03-02T14:30:00.000000Z"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Any, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Django's default database is a new one without tables."""
    if request.param == "sqlite":
        with django_db_blocker.unblock(), databases.default_database(f"sqlite:///{tmp_path / 'old.db'}") as url:
            yield url
        return
    require(databases.postgres_answers(), "no PostgreSQL server answers at ALGO_TEST_POSTGRES_URL")
    name = f"algotrader_test_{os.getpid()}_old"
    with (
        django_db_blocker.unblock(),
        databases.copied_postgres("template0", name) as url,
        databases.default_database(url),
    ):
        yield url


def rows_of_every_table() -> dict[str, dict[str, list[Any]]]:
    """What our tables hold, column by column, in the order of their rows."""
    found: dict[str, dict[str, list[Any]]] = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table.startswith(("django_", "auth_", "axes_", "sqlite_")):
                continue
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1")
            names = [column.name if hasattr(column, "name") else column[0] for column in cursor.description]
            found[table] = dict(zip(names, map(list, zip(*cursor.fetchall(), strict=True)), strict=False))
    return {table: columns for table, columns in found.items() if columns}


def insert(table: str, **values: Any) -> None:
    """A row as the old version wrote it."""
    with connection.cursor() as cursor:
        marks = ", ".join(["%s"] * len(values))
        cursor.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def test_an_old_ledger_comes_through_an_upgrade_unchanged_and_protected(empty_database: str) -> None:
    for app, version in FIRST_VERSION.items():
        call_command("migrate", app, version, verbosity=0)
    entry = record_working(order())
    entry = record(entry, fill(entry, "10", "100.01"))
    stopped = record_working(stop())
    record(stopped, fill(stopped, "10", "99.49", minute=5))
    record_trade(trade())
    insert("settings_override", key="watchlist", value="AAPL", updated_at=MOMENT, updated_by="admin")
    insert("trading_session", account_id=ACCOUNT, date="2026-03-02", start_equity="25000.0001", halted=True,
           recorded_real_at=MOMENT)  # fmt: skip
    before = rows_of_every_table()
    assert {"order_state", "order_event", "trade", "settings_override", "trading_session"} <= set(before)

    call_command("migrate", verbosity=0)

    guards.require()
    after = rows_of_every_table()
    for table, columns in before.items():
        assert {name: after[table][name] for name in columns} == columns, table
    assert [each.trade for each in order_store.recent_trades(ACCOUNT)] == [trade()]
    held = order_store.find_order(ACCOUNT, entry.local_id)
    assert held == entry
    with pytest.raises(Exception, match="append-only"), connection.cursor() as cursor:
        cursor.execute("UPDATE trade SET pnl = '0'")
