"""Rows written without model objects: what must be committed before an order leaves does not wait for an ORM.

Values are named by the model's attributes and converted by its fields, so the columns hold what they always hold.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

TAKEN_AS_THEY_ARE = (models.TextField, models.BigIntegerField, models.PositiveIntegerField)
Convert = Callable[[Any, BaseDatabaseWrapper], Any]


def insert(model: type[models.Model], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as `bulk_create` does, about three times as fast; nobody learns their ids.

    Every row names the same values; what they do not name is the database's default.
    """
    if not rows:
        return
    names = tuple(rows[0])
    connection = _connection(model)
    columns, places = ", ".join(_columns(model, names)), ", ".join(["%s"] * len(names))
    with connection.cursor() as cursor:
        cursor.executemany(
            f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places})',  # noqa: S608
            [_values(model, names, row, connection) for row in rows],
        )


def update(model: type[models.Model], changes: Mapping[str, Any], *, where: Mapping[str, Any]) -> int:
    """Changes the rows that have these values; how many they were."""
    connection = _connection(model)
    changed, known = tuple(changes), tuple(where)
    assignments = ", ".join(f"{column} = %s" for column in _columns(model, changed))
    conditions = " AND ".join(f"{column} = %s" for column in _columns(model, known))
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE "{model._meta.db_table}" SET {assignments} WHERE {conditions}',  # noqa: S608
            [*_values(model, changed, changes, connection), *_values(model, known, where, connection)],
        )
        count: int = cursor.rowcount
    return count


def _connection(model: type[models.Model]) -> BaseDatabaseWrapper:
    return connections[router.db_for_write(model) or DEFAULT_DB_ALIAS]


def _values(
    model: type[models.Model], names: tuple[str, ...], row: Mapping[str, Any], connection: BaseDatabaseWrapper
) -> list[Any]:
    converters = zip(names, _converters(model, names), strict=True)
    return [row[name] if convert is None else convert(row[name], connection) for name, convert in converters]


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
