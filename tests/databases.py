"""Databases for tests that commit: every test gets its own copy of a migrated one, and nothing is flushed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import environ
import psycopg
from asgiref.sync import SyncToAsync
from django.core.management import call_command
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper as PostgresConnection
from psycopg import sql

from algotrader.settings import database_at

_COPIES = count()
POSTGRES_URL = os.environ.get("ALGO_TEST_POSTGRES_URL", "postgres:///postgres")


@contextmanager
def default_database(url: str, *, keep: bool = False) -> Iterator[str]:
    """Django's default database is the one at the URL while this holds, in every thread that asks for a connection.

    With `keep` a thread keeps its connection from one piece of work to the next.
    """
    entry = connections.settings["default"]
    before = dict(entry)
    wanted = database_at(url, busy_timeout_ms=5000)
    if keep and "pool" not in wanted["OPTIONS"]:  # a pool keeps them anyway
        wanted["CONN_MAX_AGE"] = None
    _use(entry, connections.configure_settings({"default": wanted})["default"])
    try:
        yield url
    finally:
        _use(entry, before)


def _use(entry: dict[str, Any], settings: dict[str, Any]) -> None:
    """Drop the connections of this thread and of the one in which async code reaches the ORM, then change the entry."""
    for run in (_here, lambda work: SyncToAsync.single_thread_executor.submit(work).result()):
        run(_forget_connection)
    entry.clear()
    entry.update(settings)


def _here(work: Callable[[], None]) -> None:
    work()


def _forget_connection() -> None:
    connection = connections["default"]
    connection.close()
    if isinstance(connection, PostgresConnection):
        connection.close_pool()
    del connections["default"]


def migrated_sqlite(path: Path) -> Path:
    """A new SQLite file with all tables."""
    with default_database(f"sqlite:///{path}"):
        call_command("migrate", verbosity=0)
    return path


def copied_sqlite(template: Path, path: Path) -> str:
    """The URL of a copy of a migrated file that no process has open."""
    shutil.copyfile(template, path)
    return f"sqlite:///{path}"


def postgres_answers() -> bool:
    """Whether there is a PostgreSQL server that lets us in."""
    try:
        _administer(sql.SQL("SELECT 1"))
    except psycopg.OperationalError:
        return False
    return True


def migrated_postgres(name: str) -> Iterator[str]:
    """The name of a new PostgreSQL database with all tables; it is dropped afterwards."""
    make_postgres(name)
    try:
        yield name
    finally:
        drop_postgres(name)


def make_postgres(name: str) -> None:
    """A new PostgreSQL database with all tables, in the place of one of that name."""
    drop_postgres(name)
    _administer(_create(name))
    with default_database(postgres_url(name)):
        call_command("migrate", verbosity=0)


def drop_postgres(name: str) -> None:
    """Drops a PostgreSQL database, if there is one, whoever uses it."""
    _administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(name: str, *, template: str = "template0") -> sql.Composed:
    return sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))


@contextmanager
def copied_postgres(template: str, name: str) -> Iterator[str]:
    """The URL of a copy of a migrated PostgreSQL database; it is dropped afterwards."""
    drop_postgres(name)
    _administer(_create(name, template=template))
    try:
        yield postgres_url(name)
    finally:
        drop_postgres(name)


def migrate(template: Path | str) -> None:
    """Makes a database with all tables: a SQLite file, or a PostgreSQL database of that name."""
    if isinstance(template, Path):
        migrated_sqlite(template)
    else:
        make_postgres(template)


@contextmanager
def copied(template: Path | str, folder: Path) -> Iterator[str]:
    """The URL of a copy of a migrated database: a SQLite file, or the PostgreSQL one of that name."""
    if isinstance(template, Path):
        yield copied_sqlite(template, folder / "trading.db")
        return
    with copied_postgres(template, f"{template}_{os.getpid()}_{next(_COPIES)}") as url:
        yield url


def postgres_url(name: str) -> str:
    """The address of another database on the tests' server."""
    return f"{POSTGRES_URL.rpartition('/')[0]}/{name}"


def _administer(statement: sql.SQL | sql.Composed) -> None:
    server = environ.Env.db_url_config(POSTGRES_URL)
    parts = {"dbname": "NAME", "host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    given = {parameter: server[name] for parameter, name in parts.items() if server[name]}
    with psycopg.connect(**given, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)
