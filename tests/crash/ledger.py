"""The ledger of one day: a SQLite file, or a PostgreSQL database; its URL is in a file of the day's folder.

Only processes that are forked for it open it.
"""

from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.db import connection, connections

from algotrader.settings import database_at
from orders import models
from orders.lifecycle import OrderState
from tests.crash.points import Points, postgres_classes, sqlite_class
from trading import store

URL = "ledger-url"
BUSY_TIMEOUT_MS = 5000
HISTORY = ("order_event", "trade")  # the tables that nothing may change


def use(folder: Path, points: Points | None = None) -> None:
    """Django's database is the folder's from now on, and its commits are points; this process has opened none yet."""
    wanted = database_at((folder / URL).read_text(), busy_timeout_ms=BUSY_TIMEOUT_MS)
    if points is not None and "pool" in wanted["OPTIONS"]:
        wanted["OPTIONS"]["pool"]["connection_class"], wanted["OPTIONS"]["cursor_factory"] = postgres_classes(points)
    elif points is not None:
        wanted["OPTIONS"]["factory"] = sqlite_class(points)
    entry = connections.settings["default"]
    entry.clear()
    entry.update(connections.configure_settings({"default": wanted})["default"])
    for made in connections.all(initialized_only=True):
        del connections[made.alias]  # made for the entry before, and never opened
    django_settings.DATA_DIR = folder


def history() -> dict[str, list[str]]:
    """All rows of the tables that only grow."""
    rows = {}
    for table in HISTORY:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            rows[table] = [repr(row) for row in cursor.fetchall()]
    return rows


def in_doubt() -> list[str]:
    """Symbols of orders that were written down as submitted, and of which the broker has said nothing."""
    found = models.OrderState.objects.filter(state=OrderState.SUBMITTED).order_by("symbol")
    return list(found.values_list("symbol", flat=True))


def last_ending() -> str:
    """Why the latest run ended, as it was written down; empty if it was not."""
    run = store.last_run()
    return run.reason if run is not None else ""


def at_its_end() -> dict[str, Any]:
    """What is to be known of the ledger after an engine's end, as JSON takes it."""
    return {"history": history(), "in_doubt": in_doubt(), "ending": last_ending()}
