"""One engine a database: a lock that the system or PostgreSQL frees when the engine dies, however it dies."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Protocol

from django.db import connections


class LockFailed(Exception):
    """The lock cannot be asked for; the text is one line for the user."""


class AnotherEngine(LockFailed):
    """An engine runs on this database already; the text says which one, if it is known."""


class EngineLock:
    """The right to be the only engine on the `default` database, on this machine or any other.

    All methods block for a moment: call them in a thread once the engine trades.
    """

    def __init__(self) -> None:
        settings = connections["default"].settings_dict
        self._lock: _Lock
        if settings["ENGINE"] == "django.db.backends.postgresql":
            # Costs 10 MB and a quarter of a second, which SQLite needs not pay.
            from trading.live.advisory_lock import AdvisoryLock

            self._lock = AdvisoryLock()
        else:
            self._lock = _FileLock(Path(settings["NAME"]))

    def acquire(self) -> None:
        """Take the lock, or take it again after `is_held` said that it was lost.

        Raises AnotherEngine when it is taken, LockFailed when it cannot be asked for.
        """
        self._lock.acquire()

    def is_held(self) -> bool:
        """Whether the lock is still ours: PostgreSQL may have restarted, the data folder may have been replaced."""
        return self._lock.is_held()

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        self._lock.release()


class _Lock(Protocol):
    def acquire(self) -> None: ...

    def is_held(self) -> bool: ...

    def release(self) -> None: ...


class _FileLock:
    """An exclusive flock on a file beside the SQLite file; the file stays, with the last owner's name in it."""

    def __init__(self, database: Path) -> None:
        # Two paths to one database meet in one lock file.
        database = database.resolve()
        self._path = database.with_name(f"{database.name}.engine-lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        self.release()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LockFailed(f"Cannot open the engine's lock file {self._path}: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise AnotherEngine(refusal(owner)) from error
            raise LockFailed(f"Cannot lock {self._path}: {error.strerror}.") from error
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # on a full disk the name is missing, the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{name_of_this_process()}\n".encode(), 0)

    def is_held(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def name_of_this_process() -> str:
    """How an engine is named to another one that is refused; PostgreSQL keeps 63 bytes of it."""
    return f"engine {os.getpid()} on {socket.gethostname()}"[:63]


def refusal(owner: str | None) -> str:
    """What a second engine is told; `owner` is the name of the first one, if it is known."""
    who = f"Another engine ({owner})" if owner else "Another engine"
    return f"{who} runs on this database: stop it first with `manage.py stopengine`."
