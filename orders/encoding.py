"""Orders and facts as plain JSON values and back, exactly: decimals and times are text."""

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from orders.events import Fact

Value = TypeVar("Value")

PLAIN = frozenset({str, int, bool, NoneType})  # JSON has them as they are


def encode(value: object) -> Any:
    """JSON for a value or a dataclass of values; empty optional fields are left out."""
    if type(value) in PLAIN:  # most are
        return value
    match value:
        case None | bool() | int():
            return value
        case Enum():
            return value.value
        case str():
            return value
        case Decimal():
            return decimal_text(value)
        case datetime():
            return timestamp(value)
        case date():
            return value.isoformat()
        case tuple() | list():
            return [encode(item) for item in value]
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{value!r} has no exact form in JSON")
    pairs = [(field, getattr(value, field.name)) for field in _fields(type(value))]
    return {field.name: encode(content) for field, content in pairs if not _says_nothing(field, content)}


def decode(kind: type[Value], values: Mapping[str, Any]) -> Value:
    """The dataclass of that kind which `encode` turned into these values."""
    readers = _readers(cast("Any", kind))  # mypy takes type[Value] for unhashable
    return kind(**{name: content if content is None else readers[name](content) for name, content in values.items()})


def encode_fact(fact: Fact) -> dict[str, Any]:
    """A fact with its name."""
    return {"fact": fact.event_type, **encode(fact)}


def decode_fact(values: Mapping[str, Any]) -> Fact:
    """The fact which `encode_fact` turned into these values."""
    rest = dict(values)
    return decode(_fact_types()[rest.pop("fact")], rest)


def decimal_text(value: Decimal) -> str:
    """The one text of a number: no exponent, no trailing zeros, no minus before zero."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def timestamp(moment: datetime) -> str:
    """A moment as sortable text in UTC with microseconds. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _says_nothing(field: Field[Any], content: object) -> bool:
    """Whether a field is empty and stays so when it is not mentioned; other defaults may change some day."""
    return (content is None or content is False or content == "") and content == field.default


@cache
def _fields(kind: type[Any]) -> tuple[Field[Any], ...]:
    return fields(kind)


@cache
def _readers(kind: type[Any]) -> dict[str, Any]:
    return {name: _reader(hint) for name, hint in get_type_hints(kind).items()}


def _reader(hint: Any) -> Any:
    """What turns JSON into a value of this type; optional types are read as what they are when they are there."""
    kind = next((arg for arg in get_args(hint) if arg is not NoneType), hint)
    return datetime.fromisoformat if kind is datetime else kind


@cache
def _fact_types() -> dict[str, type[Fact]]:
    return {kind.event_type: kind for kind in Fact.__subclasses__()}
