"""The engine's lock on PostgreSQL."""

from typing import Any

import psycopg
from django.db import connections

from trading.live.lock import AnotherEngine, LockFailed, name_of_this_process, refusal

# Any fixed number that nothing else in the database locks.
ADVISORY_KEY = 4_712_385_190_266_013
CONNECT_TIMEOUT_SECONDS = 10
# A lock whose engine vanished with its machine is free again after idle + count x interval seconds, not after hours.
KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3


class AdvisoryLock:
    """A session-level advisory lock on a connection of its own, outside Django's pool; it goes with the connection."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> None:
        """Take the lock on a new connection."""
        self.release()
        try:
            connection = psycopg.connect(**self._parameters())
        except psycopg.Error as error:
            raise LockFailed(f"Cannot reach the database: {_first_line(error)}") from error
        try:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_KEY]).fetchone()
            if row is not None and row[0]:
                self._connection = connection
                return
            owner = connection.execute(_OWNER, [ADVISORY_KEY]).fetchone()
        except psycopg.Error as error:
            connection.close()
            raise LockFailed(f"Cannot lock the database: {_first_line(error)}") from error
        connection.close()
        raise AnotherEngine(refusal(owner[1] if owner else None))

    def is_held(self) -> bool:
        """Whether PostgreSQL still counts the lock as ours."""
        if self._connection is None:
            return False
        try:
            owner = self._connection.execute(_OWNER, [ADVISORY_KEY]).fetchone()
        except psycopg.Error:
            return False
        return owner is not None and bool(owner[0])

    def release(self) -> None:
        """Close the connection, and the lock with it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _parameters(self) -> dict[str, Any]:
        """Django's parameters, a name that tells others who holds the lock, and a quick end of dead connections."""
        timings = {
            "idle": KEEPALIVE_IDLE_SECONDS,
            "interval": KEEPALIVE_INTERVAL_SECONDS,
            "count": KEEPALIVE_COUNT,
        }
        dead_after_seconds = KEEPALIVE_IDLE_SECONDS + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL_SECONDS
        parameters = connections["default"].get_connection_params()
        options = [f"-c tcp_keepalives_{name}={value}" for name, value in timings.items()]
        return parameters | {
            "autocommit": True,
            "application_name": name_of_this_process(),
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": dead_after_seconds * 1000,
            "options": " ".join([parameters.get("options", ""), *options]).strip(),
            **{f"keepalives_{name}": value for name, value in timings.items()},
        }


# A bigint key is shown as its two halves, with objsubid 1.
_OWNER = """
    SELECT pid = pg_backend_pid(), application_name
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database()
      AND database = datid AND (classid::bigint << 32 | objid::bigint) = %s
"""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
