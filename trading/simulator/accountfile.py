"""The account's file: orders, executions and the market's own state in an SQLite database that one market holds."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trading.simulator.orders import BrokerOrder, Fill, fill_from, order_from, to_record

FORMAT = 1

TABLES = """
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS fills (number INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT;
"""


class AccountFileError(Exception):
    """The account's file cannot be used; one line that says why."""


class AccountFile:
    """Keeps an account across restarts, `path` None keeps it in memory only.

    Each `write` is one transaction, on the disk before it returns: it outlives a crash of the machine too.
    """

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "memory")
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=0)
            # Held exclusively: a second market on the same account would overwrite what this one decides.
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                raise AccountFileError(f"{self._name}: was written by another version of the program")
            self._database.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={FORMAT}; COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise AccountFileError(_in_plain_words(self._name, error)) from error

    def state(self) -> dict[str, Any]:
        """The market's own state by name, empty for a new file."""
        return {name: json.loads(value) for name, value in self._rows("SELECT name, value FROM state")}

    def orders(self) -> list[BrokerOrder]:
        """All orders, oldest first."""
        return [order_from(json.loads(record)) for (record,) in self._rows("SELECT record FROM orders ORDER BY number")]

    def fills(self) -> list[Fill]:
        """All executions, oldest first."""
        return [fill_from(json.loads(record)) for (record,) in self._rows("SELECT record FROM fills ORDER BY number")]

    def write(
        self, *, state: Mapping[str, Any], orders: Iterable[BrokerOrder] = (), fills: Iterable[Fill] = ()
    ) -> None:
        """Keeps what changed, all of it or nothing. Raises AccountFileError."""
        run = self._database.executemany
        try:
            self._database.execute("BEGIN IMMEDIATE")
            run("REPLACE INTO state VALUES (?, ?)", [(name, json.dumps(value)) for name, value in state.items()])
            run("REPLACE INTO orders VALUES (?, ?)", [(order.number, json.dumps(to_record(order))) for order in orders])
            run("REPLACE INTO fills VALUES (?, ?)", [(fill.number, json.dumps(to_record(fill))) for fill in fills])
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise AccountFileError(_in_plain_words(self._name, error)) from error

    def clear(self) -> None:
        """Forgets the account."""
        self._database.executescript("BEGIN; DELETE FROM state; DELETE FROM orders; DELETE FROM fills; COMMIT;")

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def _rows(self, query: str) -> list[Any]:
        try:
            return self._database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise AccountFileError(_in_plain_words(self._name, error)) from error


def _in_plain_words(name: str, error: Exception) -> str:
    if "locked" in str(error):
        return f"{name}: another market is running on this account"
    return f"{name}: the account cannot be kept: {error}"
