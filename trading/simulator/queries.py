"""Reads the parameters of a query; what makes no sense is refused as a bad request."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

from trading.simulator.tickets import malformed

Query = Mapping[str, str]


def flag(text: str | None) -> bool:
    """A boolean, however it is spelled: alpaca-py writes `True`."""
    return (text or "").lower() in ("true", "1")


def words(query: Query, name: str) -> list[str]:
    """A list with commas between, each entry once."""
    return list(dict.fromkeys(word for word in query.get(name, "").split(",") if word))


def integer(query: Query, name: str, default: int) -> int:
    """A whole number."""
    try:
        return int(query.get(name, default))
    except ValueError:
        raise malformed(f"invalid {name}") from None


def decimal(query: Query, name: str) -> Decimal | None:
    """A number above 0, None if it is not given."""
    if name not in query:
        return None
    try:
        value = Decimal(query[name])
    except InvalidOperation:
        raise malformed(f"invalid {name}") from None
    if not value.is_finite() or value <= 0:
        raise malformed(f"{name} must be > 0")
    return value


def moment_of(query: Query, name: str) -> datetime | None:
    """A moment; one without a zone is in UTC."""
    if not query.get(name):
        return None
    try:
        moment = datetime.fromisoformat(query[name])
    except ValueError:
        raise malformed(f"invalid {name}: {query[name]}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def day_of(query: Query, name: str, default: date) -> date:
    """A date."""
    moment = moment_of(query, name)
    return default if moment is None else moment.date()
