"""Column types that keep money, times and ids exactly, alike on SQLite and PostgreSQL."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

from django import forms
from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.lookups import Lookup, Transform

from orders.encoding import decimal_text, timestamp

UUID_LENGTH = 36
LIMIT = "1e40"  # No money, quantity or ratio comes near; PostgreSQL's NaN and infinities lie beyond.


Set = TypeVar("Set", contravariant=True)
Get = TypeVar("Get", covariant=True)
if TYPE_CHECKING:
    _Field = models.Field
else:

    class _Field(models.Field):
        def __class_getitem__(cls, types: object) -> type:
            return cls


class Sign(StrEnum):
    """Which numbers a decimal column takes; the database checks it."""

    ANY = "any"
    NOT_NEGATIVE = "not_negative"
    POSITIVE = "positive"


class ExactField(_Field[Set, Get]):
    """A column that refuses every lookup which its text on SQLite would answer wrongly, on both databases alike."""

    lookups: ClassVar[frozenset[str]]

    def get_lookup(self, lookup_name: str) -> "type[Lookup[Any]] | None":
        if lookup_name not in self.lookups:
            raise FieldError(f"{self} cannot be looked up by {lookup_name!r} in the database: do it in Python")
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name: str) -> type[Transform] | None:
        return None

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        value = value if prepared else self.get_prep_value(value)
        return value if value is None else self.as_stored(value, is_text=connection.vendor == "sqlite")

    def as_stored(self, value: Any, *, is_text: bool) -> Any:
        """The value as the database driver takes it: as text, or as itself."""
        raise NotImplementedError

    def value_to_string(self, obj: models.Model) -> str:
        value = self.value_from_object(obj)
        return "" if value is None else str(self.as_stored(value, is_text=True))


class DecimalField(ExactField[Set, Get]):
    """Exact decimals of any length: TEXT without exponent or trailing zeros on SQLite, NUMERIC on PostgreSQL.

    Text does not sort by value, so the database is only asked for equality; order and add up in Python. Floats are
    refused with TypeError, because they are no longer the number that was meant.
    """

    _pyi_private_set_type: Decimal | int
    _pyi_private_get_type: Decimal
    _pyi_lookup_exact_type: Decimal | int

    description = "Exact decimal number"
    empty_strings_allowed = False
    lookups = frozenset({"exact", "in", "isnull"})

    def __init__(self, *args: Any, sign: str = Sign.ANY, **kwargs: Any) -> None:
        self.sign = Sign(sign)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, kwargs if self.sign is Sign.ANY else {**kwargs, "sign": str(self.sign)}

    def get_internal_type(self) -> str:
        return "ExactDecimal"  # By its own name, Django's SQLite backend would read it as a float.

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "text" if connection.vendor == "sqlite" else "numeric"

    def db_check(self, connection: BaseDatabaseWrapper) -> str:
        column = connection.ops.quote_name(self.column or "")
        terms = _text_terms(column, self.sign) if connection.vendor == "sqlite" else _number_terms(column, self.sign)
        return f"{column} IS NULL OR ({' AND '.join(terms)})"

    def get_prep_value(self, value: Any) -> Decimal | None:
        value = super().get_prep_value(value)
        return None if value is None else _exact(value)

    def as_stored(self, value: Decimal, *, is_text: bool) -> str | Decimal:
        text = decimal_text(value)
        return text if is_text else Decimal(text)

    def from_db_value(self, value: str | Decimal | None, *args: object) -> Decimal | None:
        # SQLite's own sums and averages come back as floats, and are refused here.
        return None if value is None else _exact(value)

    def to_python(self, value: Any) -> Decimal | None:
        try:
            return None if value is None else _exact(value)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error), code="invalid") from error

    def formfield(self, **kwargs: Any) -> forms.Field | None:
        return super().formfield(**{"form_class": forms.DecimalField, **kwargs})


class UtcDateTimeField(ExactField[Set, Get]):
    """Moments in UTC with microseconds: on SQLite `YYYY-MM-DDTHH:MM:SS.ffffffZ`, text that sorts by time.

    PostgreSQL has timestamptz. Naive datetimes are refused with ValueError.
    """

    _pyi_private_set_type: datetime
    _pyi_private_get_type: datetime
    _pyi_lookup_exact_type: datetime

    description = "Moment in UTC"
    empty_strings_allowed = False
    lookups = frozenset({"exact", "in", "isnull", "gt", "gte", "lt", "lte", "range"})

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "text" if connection.vendor == "sqlite" else "timestamp with time zone"

    def db_check(self, connection: BaseDatabaseWrapper) -> str | None:
        if connection.vendor != "sqlite":
            return None
        column = connection.ops.quote_name(self.column or "")
        pattern = "YYYY-MM-DDTHH:MM:SS.FFFFFFZ"
        glob = "".join("[0-9]" if letter in "YMDHSF" else letter for letter in pattern)
        return f"{column} IS NULL OR {column} GLOB '{glob}'"

    def get_prep_value(self, value: Any) -> datetime | None:
        value = super().get_prep_value(value)
        return None if value is None else _moment(value)

    def as_stored(self, value: datetime, *, is_text: bool) -> str | datetime:
        return timestamp(value) if is_text else value

    def from_db_value(self, value: str | datetime | None, *args: object) -> datetime | None:
        return None if value is None else _moment(value)

    def to_python(self, value: Any) -> datetime | None:
        try:
            return None if value is None else _moment(value)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error), code="invalid") from error

    def formfield(self, **kwargs: Any) -> forms.Field | None:
        return super().formfield(**{"form_class": forms.DateTimeField, **kwargs})


class UuidField(ExactField[Set, Get]):
    """A UUID as text of 36 characters, in lower case with hyphens; anything else is refused with ValueError."""

    _pyi_private_set_type: str | UUID
    _pyi_private_get_type: str
    _pyi_lookup_exact_type: str | UUID

    description = "UUID as text"
    empty_strings_allowed = False
    lookups = frozenset({"exact", "in", "isnull", "icontains"})

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "text"

    def db_check(self, connection: BaseDatabaseWrapper) -> str:
        return f"length({connection.ops.quote_name(self.column or '')}) = {UUID_LENGTH}"

    def get_prep_value(self, value: Any) -> str | None:
        value = super().get_prep_value(value)
        return None if value is None else str(UUID(str(value)))

    def as_stored(self, value: str, *, is_text: bool) -> str:
        return value


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def _exact(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise TypeError(f"{value!r} is a {type(value).__name__}: only Decimal, int and text are exact")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is not a moment")
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return value.astimezone(UTC)


def _text_terms(column: str, sign: Sign) -> list[str]:
    terms = [
        f"typeof({column}) = 'text'",
        f"{column} NOT GLOB '*[^0-9.-]*'",
        f"substr({column}, 2) NOT GLOB '*-*'",
        f"{column} NOT GLOB '*.*.*'",
        f"ltrim({column}, '-') GLOB '[0-9]*'",
        f"{column} GLOB '*[0-9]'",
    ]
    if sign is not Sign.ANY:
        terms.append(f"{column} NOT GLOB '-*'")
    if sign is Sign.POSITIVE:
        terms.append(f"{column} GLOB '*[1-9]*'")
    return terms


def _number_terms(column: str, sign: Sign) -> list[str]:
    terms = [f"abs({column}) < {LIMIT}"]
    if sign is not Sign.ANY:
        terms.append(f"{column} {'>' if sign is Sign.POSITIVE else '>='} 0")
    return terms


def one_of(table: str, column: str, values: Iterable[str]) -> models.CheckConstraint:
    """The constraint that a text column holds one of the given words."""
    words = [str(value) for value in values]
    return models.CheckConstraint(condition=models.Q((f"{column}__in", words)), name=f"{table}_{column}_known")


def not_empty(table: str, column: str) -> models.CheckConstraint:
    """The constraint that a text column is not empty."""
    return models.CheckConstraint(condition=~models.Q((column, "")), name=f"{table}_{column}_not_empty")
