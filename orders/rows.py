"""Rows written without model objects: what must be committed before an order leaves does not wait for an ORM.

Statements are made before their transaction begins, so that it holds the database for no longer than writing takes.
Values are named by the model's attributes and converted by its fields, so the columns hold what they always hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

TAKEN_AS_THEY_ARE = (models.TextField, models.BigIntegerField, models.PositiveIntegerField)
MOST_VALUES = 999  # parameters of a statement that every build of SQLite takes
Convert = Callable[[Any, BaseDatabaseWrapper], Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its values, for the database of that alias."""

    alias: str
    sql: str
    values: Sequence[Any]

    def only_if(self, search: "Statement") -> "Statement":
        """The same change, but of no row unless the search finds one."""
        return Statement(self.alias, f"{self.sql} AND EXISTS ({search.sql})", [*self.values, *search.values])

    def run(self) -> int:
        """Carries it out; how many rows it concerned."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(self.sql, self.values)
            count: int = cursor.rowcount
        return count

    def finds(self) -> bool:
        """Carries out a search; whether there is such a row."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(self.sql, self.values)
            return cursor.fetchone() is not None

    def ids(self) -> list[int]:
        """Carries out an insertion; the new rows' ids in their order."""
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":  # it numbers the rows of one statement one after another
                cursor.execute(self.sql, self.values)
                return list(range(cursor.lastrowid - cursor.rowcount + 1, cursor.lastrowid + 1))
            cursor.execute(f'{self.sql} RETURNING "id"', self.values)
            return [row[0] for row in cursor.fetchall()]


def insertions(model: type[models.Model], rows: Sequence[Mapping[str, Any]]) -> list[Statement]:
    """Writes rows as `bulk_create` does, as many at once as a statement has room for.

    Every row names the same values; what they do not name is the database's default.
    """
    if not rows:
        return []
    names = tuple(rows[0])
    alias, connection = _connection(model)
    columns, row_places = ", ".join(_columns(model, names)), f"({', '.join(['%s'] * len(names))})"
    beginning = f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES '  # noqa: S608
    at_once = MOST_VALUES // len(names)
    statements = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        values = [value for row in some for value in _values(model, names, row, connection)]
        statements.append(Statement(alias, beginning + ", ".join([row_places] * len(some)), values))
    return statements


def update(model: type[models.Model], changes: Mapping[str, Any], *, where: Mapping[str, Any]) -> Statement:
    """Changes the rows that have these values."""
    alias, connection = _connection(model)
    changed, known = tuple(changes), tuple(where)
    assignments, conditions = _equalities(model, changed, ", "), _equalities(model, known, " AND ")
    return Statement(
        alias,
        f'UPDATE "{model._meta.db_table}" SET {assignments} WHERE {conditions}',  # noqa: S608
        [*_values(model, changed, changes, connection), *_values(model, known, where, connection)],
    )


def search(model: type[models.Model], *, where: Mapping[str, Any]) -> Statement:
    """Looks for a row that has these values."""
    alias, connection = _connection(model)
    known = tuple(where)
    conditions = _equalities(model, known, " AND ")
    return Statement(
        alias,
        f'SELECT 1 FROM "{model._meta.db_table}" WHERE {conditions}',  # noqa: S608
        _values(model, known, where, connection),
    )


def _connection(model: type[models.Model]) -> tuple[str, BaseDatabaseWrapper]:
    alias = router.db_for_write(model) or DEFAULT_DB_ALIAS
    return alias, connections[alias]


def _values(
    model: type[models.Model], names: tuple[str, ...], row: Mapping[str, Any], connection: BaseDatabaseWrapper
) -> list[Any]:
    converters = zip(names, _converters(model, names), strict=True)
    return [row[name] if convert is None else convert(row[name], connection) for name, convert in converters]


@cache
def _equalities(model: type[models.Model], names: tuple[str, ...], between: str) -> str:
    return between.join(f"{column} = %s" for column in _columns(model, names))


@cache
def _columns(model: type[models.Model], names: tuple[str, ...]) -> list[str]:
    return [f'"{_fields(model)[name].column}"' for name in names]


@cache
def _converters(model: type[models.Model], names: tuple[str, ...]) -> list[Convert | None]:
    """What turns each value into what the driver takes, if anything has to."""
    fields = [_fields(model)[name] for name in names]
    return [None if type(field) in TAKEN_AS_THEY_ARE else field.get_db_prep_save for field in fields]


@cache
def _fields(model: type[models.Model]) -> dict[str, "models.Field[Any, Any]"]:
    return {field.attname: field for field in model._meta.concrete_fields}
