"""Keeps history unchangeable: triggers on the append-only tables, and the refusal to work without them.

Django drops the triggers of a SQLite table whenever it rebuilds it, so they are made again after every `migrate`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from orders.command import OneLineCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendOnly:
    """A table that only grows, with the keys by which SQLite's INSERT OR REPLACE could overwrite one of its rows."""

    table: str
    keys: tuple[tuple[str, ...], ...]


APPEND_ONLY = (
    AppendOnly(table="order_event", keys=(("id",), ("order_local_id", "version"), ("account_id", "execution_id"))),
    AppendOnly(table="trade", keys=(("id",), ("trade_id",), ("corrects_trade_id",))),
    AppendOnly(table="settings_change", keys=(("id",),)),
)


class UnguardedLedger(CommandError):
    """History could be changed in this database: nothing may be written to it."""


def require(using: str = DEFAULT_DB_ALIAS) -> None:
    """Call before the first write.

    Raises:
        UnguardedLedger: a table or a trigger is missing; the text names it and says what to do.
    """
    connection = connections[using]
    if len(_existing(connection)) < len(APPEND_ONLY):
        raise UnguardedLedger("the database has no tables yet, or not all: run `manage.py migrate`")
    if missing := missing_triggers(connection):
        raise UnguardedLedger(
            f"the database does not protect its history, {', '.join(missing)} missing: run `manage.py migrate`"
        )


class _Guard(BaseCommand):
    def execute(self, *args: Any, **options: Any) -> str | None:
        require()
        return super().execute(*args, **options)


class GuardedCommand(OneLineCommand, _Guard):
    """A command that writes to the ledger: it refuses to start, exit status 1, when a trigger is missing."""


def missing_triggers(connection: BaseDatabaseWrapper, guards: Sequence[AppendOnly] = APPEND_ONLY) -> list[str]:
    """Names of the triggers that are absent, switched off or not the ones made here, in a fixed order."""
    present = _sqlite_present(connection) if connection.vendor == "sqlite" else _postgresql_present(connection)
    return [name for guard in guards for name, sql in _triggers(guard, connection) if present.get(name) != sql]


def make_triggers(connection: BaseDatabaseWrapper) -> None:
    """Makes every trigger anew on the tables that exist; safe to repeat."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_REFUSAL)
        for guard in _existing(connection):
            for name, sql in _triggers(guard, connection):
                on_table = f" ON {guard.table}" if connection.vendor == "postgresql" else ""
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}")
                cursor.execute(sql)
                if on_table:
                    # Fires in a session of logical replication too.
                    cursor.execute(f"ALTER TABLE {guard.table} ENABLE ALWAYS TRIGGER {name}")


def make_triggers_after_migrate(*, using: str, **kwargs: object) -> None:
    """Receiver of post_migrate."""
    make_triggers(connections[using])


def check_triggers(databases: Sequence[str] | None = None, **kwargs: object) -> list[CheckMessage]:
    """System check of `manage.py check --database`. A warning, since `migrate` runs it too and is the cure."""
    return [
        Warning(
            f"The append-only tables of database {alias!r} miss triggers: {', '.join(missing)}.",
            hint="Run `manage.py migrate`. Until then nothing that writes will start.",
            id="orders.W001",
        )
        for alias in databases or ()
        if (missing := missing_triggers(connections[alias], _existing(connections[alias])))
    ]


class BackwardsMigration(CommandError, IrreversibleError):
    """Somebody asked for a migration to be undone."""


class ForwardOnly(Operation):
    """Makes its migration impossible to undo; the first operation of every migration of a ledger's app."""

    reduces_to_sql = False

    @property
    def reversible(self) -> bool:  # type: ignore[override]
        raise BackwardsMigration(
            "migrations do not go backwards: a ledger that loses columns loses history. Restore a backup instead"
        )

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Changes no model."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Changes no table."""

    def describe(self) -> str:
        return "Does not go backwards"


class MakeTriggers(ForwardOnly):
    """Makes the triggers of the append-only tables that exist by now."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        make_triggers(schema_editor.connection)

    def describe(self) -> str:
        return "Make append-only tables refuse every change"


def _existing(connection: BaseDatabaseWrapper) -> list[AppendOnly]:
    tables = connection.introspection.table_names()
    return [guard for guard in APPEND_ONLY if guard.table in tables]


def _triggers(guard: AppendOnly, connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str]]:
    """Name and CREATE statement of each trigger of a table."""
    table = guard.table
    if connection.vendor == "postgresql":
        for verb, scope in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
            name = f"no_{verb}_{table}"
            timing = f"BEFORE {verb.upper()} ON {table} FOR EACH {scope}"
            yield name, f"CREATE TRIGGER {name} {timing} EXECUTE FUNCTION refuse_change()"
        return
    for verb in ("update", "delete"):
        name = f"no_{verb}_{table}"
        yield name, f"CREATE TRIGGER {name} BEFORE {verb.upper()} ON {table} BEGIN {_raise(table)}; END"
    # INSERT OR REPLACE deletes the old row without telling the trigger on DELETE.
    taken = " OR ".join("(" + " AND ".join(f"{key} = NEW.{key}" for key in keys) + ")" for keys in guard.keys)
    name = f"no_replace_{table}"
    exists = f"EXISTS (SELECT 1 FROM {table} WHERE {taken})"  # noqa: S608  names of our own
    yield name, f"CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN {exists} BEGIN {_raise(table)}; END"


def _raise(table: str) -> str:
    return f"SELECT RAISE(ABORT, '{table} is append-only: its rows never change')"


_REFUSAL = """
    CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only: its rows never change', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$
"""


def _sqlite_present(connection: BaseDatabaseWrapper) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        return dict(cursor.fetchall())


def _postgresql_present(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Definitions without the schema's name, of triggers that fire always ('A')."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.tgname, replace(pg_get_triggerdef(t.oid), ' ' || quote_ident(n.nspname) || '.', ' ')"
            " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE NOT t.tgisinternal AND t.tgenabled = 'A' AND p.prosrc LIKE %s AND pg_table_is_visible(c.oid)",
            ["%RAISE EXCEPTION%"],
        )
        return dict(cursor.fetchall())
