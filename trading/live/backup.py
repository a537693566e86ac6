"""A copy of the SQLite ledger while it is in use: consistent, verified, and there whole or not at all."""

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from django.db import DatabaseError, connections

from orders import store as order_store
from orders.command import UserError

ALIAS = "backup"
HEADER = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A verified copy."""

    file: Path
    size_bytes: int
    orders: int
    events: int


def back_up(file: Path) -> Backup:
    """Copies the `default` database to `file`, which is replaced if it is a backup already.

    The copy is of one moment; whoever writes meanwhile does not wait for it. It takes its name only once SQLite finds
    nothing wrong with it and the events of every order give that order.

    Raises:
        UserError: there is no such copy; what to do instead.
    """
    settings = connections["default"].settings_dict
    if settings["ENGINE"] != "django.db.backends.sqlite3":
        raise UserError(
            f"The ledger is in PostgreSQL: back it up with `pg_dump --format=custom --file={file} "
            '"$ALGO_DATABASE_URL"`, and bring it back with `pg_restore`.'
        )
    source, file = Path(settings["NAME"]), file.resolve()
    if not source.is_file():
        raise UserError(f"There is no ledger to back up at {source}: see ALGO_DATABASE_URL.")
    if file == source.resolve():
        raise UserError("A backup needs a file of its own: this one is the ledger.")
    part = file.with_name(f".{file.name}.part")
    try:
        _check_target(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, part, timeout_seconds=settings["OPTIONS"]["timeout"])
        audit = _verify(part)
        size_bytes = part.stat().st_size
        _put_in_place(part, file)
    except (OSError, sqlite3.Error, DatabaseError) as error:
        raise UserError(f"The backup could not be made: {' '.join(str(error).split())}.") from error
    finally:
        for leftover in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal"))):
            with suppress(OSError):
                leftover.unlink()
    return Backup(file=file, size_bytes=size_bytes, orders=audit.orders, events=audit.events)


def _check_target(file: Path) -> None:
    if file.exists():
        with file.open("rb") as found:
            if found.read(len(HEADER)) != HEADER:
                raise UserError(f"{file} exists and is no backup: choose another name.")


def _copy(source: Path, part: Path, *, timeout_seconds: float) -> None:
    """All pages in one step, as of one moment: in WAL mode nobody waits for a reader."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        closing(sqlite3.connect(source, timeout=timeout_seconds)) as ledger,
        closing(sqlite3.connect(part)) as copy,
    ):
        ledger.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it that could be forgotten


def _verify(part: Path) -> order_store.Audit:
    with closing(sqlite3.connect(part)) as copy:
        (answer,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            raise UserError(f"The ledger is damaged, and so would its backup be: {answer}.")
    entry = {**connections["default"].settings_dict, "NAME": str(part)}
    entry["OPTIONS"] = {"timeout": entry["OPTIONS"]["timeout"], "transaction_mode": "DEFERRED"}
    connections.settings[ALIAS] = entry
    try:
        audit = order_store.audit(using=ALIAS)
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]
    if audit.unfaithful:
        raise UserError(
            f"{len(audit.unfaithful)} orders of the ledger are not what their events make of them, the first is "
            f"{audit.unfaithful[0]}: the backup was not kept."
        )
    return audit


def _put_in_place(part: Path, file: Path) -> None:
    for path in (part, None, file.parent):
        if path is None:
            part.replace(file)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
