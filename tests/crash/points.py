"""The points at which an engine can be killed: before and after each commit that writes, and each broker call."""

import functools
import inspect
import os
import re
import signal
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg

STATEMENT = re.compile(r'(INSERT|UPDATE|DELETE)[^"]*"(\w+)"(.*)', re.DOTALL)
EVENT_TYPES = re.compile(
    r"'(created|submitted|accepted|partial_fill|fill|replace_requested|replaced|replace_refused|canceled|expired|"
    r"rejected|submit_failed|forced)', (?:NULL|'\w+'), '\w+', \d"
)  # followed by the states before and after it, which have the same names, and the version
LEASE, HEARTBEAT = "engine_lease", "heartbeat_at,meters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The `number`-th time that an engine which was never killed is about to do, or has just done, `what`."""

    what: str
    number: int
    is_after: bool

    def __str__(self) -> str:
        return f"{'after' if self.is_after else 'before'} {self.what} #{self.number}"


class Points:
    """Counts the points that its process comes by, writes each into `log`, and kills it with -9 at `fatal`.

    With `last` it is killed at the so many-th one, whatever that is.

    The order in which two tasks of the engine come by is not always the same; how often each thing is done is. So a
    point is known by what is done and how many times that was done before. The heartbeats of the lease go by the wall
    clock: the first of them stands for all.
    """

    def __init__(self, log: Path, fatal: Point | None, *, seen: Counter[str], last: int = 0) -> None:
        self._left = last
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._fatal = fatal
        self._seen = seen
        self._lock = threading.Lock()

    def about_to(self, what: str) -> int:
        """Comes by the point before it is done; returns which time this is."""
        with self._lock:
            self._seen[what] += 1
            number = self._seen[what]
        self._come_by(Point(what=what, number=number, is_after=False))
        return number

    def done(self, what: str, number: int) -> None:
        """Comes by the point right after it was done."""
        self._come_by(Point(what=what, number=number, is_after=True))

    def _come_by(self, point: Point) -> None:
        if point.what == f"commit {LEASE}({HEARTBEAT})" and point.number > 1:
            return
        os.write(self._log, f"{int(point.is_after)}\t{point.number}\t{point.what}\n".encode())
        self._left -= 1
        if point == self._fatal or self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def read(log: Path) -> list[Point]:
    """The points in a log, in the order in which they were come by."""
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    return [Point(what=what, number=int(number), is_after=after == "1") for after, number, what in rows]


def sqlite_class(points: Points) -> type[sqlite3.Connection]:
    """SQLite connections whose commits are points, if they write anything; Django takes it as `factory`."""

    class Connection(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._changes = self.total_changes
            self._written: list[str] = []
            self.set_trace_callback(self._statement)

        def commit(self) -> None:
            if not self.in_transaction or self.total_changes == self._changes:
                self._written.clear()
                super().commit()
                return
            what = "commit " + " ".join(self._written)
            self._written.clear()
            self._changes = self.total_changes
            number = points.about_to(what)
            super().commit()
            points.done(what, number)

        def _statement(self, text: str) -> None:
            if found := STATEMENT.match(text):
                _note(self._written, found)  # a trigger makes SQLite tell of its statement twice
            elif text.startswith(("BEGIN", "ROLLBACK")):
                self._written.clear()
                self._changes = self.total_changes

    return Connection


def postgres_classes(points: Points) -> tuple[type[psycopg.Connection[Any]], type[psycopg.ClientCursor[Any]]]:
    """The same for PostgreSQL: the class of the pool's connections, and that of the cursors on them."""

    class Connection(psycopg.Connection[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.written: list[str] = []

        def commit(self) -> None:
            what = "commit " + " ".join(self.written)
            if not self.written:
                super().commit()
                return
            self.written.clear()
            number = points.about_to(what)
            super().commit()
            points.done(what, number)

        def rollback(self) -> None:
            self.written.clear()
            super().rollback()

    class Cursor(psycopg.ClientCursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            ours = self.connection
            if not isinstance(ours, Connection) or ours.autocommit:
                return super().execute(query, params, **options)
            text = self.mogrify(query, params)  # before it is executed: a cursor forgets its result over it
            done = super().execute(query, params, **options)
            if self.rowcount > 0 and (found := STATEMENT.match(text)):
                _note(ours.written, found)
            return done

    return Connection, Cursor


def _note(written: list[str], statement: re.Match[str]) -> None:
    """Adds what a statement does; several of one kind in a row are one."""
    what = _in_short(*statement.groups())
    if written[-1:] != [what]:
        written.append(what)


def _in_short(verb: str, table: str, rest: str) -> str:
    if table == "order_event" and (found := EVENT_TYPES.findall(rest)):
        return f"{table}({','.join(kind for kind, _ in groupby(found))})"
    if table == LEASE and verb == "UPDATE":
        columns = re.findall(r'"(\w+)" =', rest.partition("WHERE")[0])
        return f"{table}({','.join(columns)})"
    return table if verb == "INSERT" else f"{verb.lower()}:{table}"


class Watched:
    """Stands before a broker or a data provider: each of its calls is a point before it is sent and after its reply."""

    def __init__(self, inner: Any, name: str, points: Points) -> None:
        self._inner = inner
        self._name = name
        self._points = points

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        is_call = inspect.iscoroutinefunction(attribute) and name != "disconnect"
        return self._watched(name, attribute) if is_call else attribute

    def _watched(self, name: str, call: Any) -> Any:
        @functools.wraps(call)
        async def watched(*arguments: Any, **options: Any) -> Any:
            what = f"{self._name} {name}"
            if name == "submit_order":
                (order,) = arguments
                what += f"({'buy' if order.buys else 'sell'} {order.order_type})"
            number = self._points.about_to(what)
            try:
                return await call(*arguments, **options)
            finally:
                self._points.done(what, number)

        return watched
