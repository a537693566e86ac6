"""Numbers and times as people read them: New York time, a true minus sign. `static/js/format.js` does the same."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import SupportsFloat

from django.template import Library

from trading.store import NEW_YORK

register = Library()

NOTHING = "–"  # noqa: RUF001  an en dash stands where there is no number
MINUS = "−"  # noqa: RUF001
FORMS = {"minute": "%Y-%m-%d %H:%M", "second": "%Y-%m-%d %H:%M:%S", "date": "%Y-%m-%d", "clock": "%H:%M:%S"}
Number = Decimal | float | int | None


@register.filter
def new_york(moment: datetime | None, form: str = "minute") -> str:
    """A moment to the `minute` (2026-11-20 10:31) or `second` (2026-11-20 10:31:05), or its `date` or `clock` alone."""
    return moment.astimezone(NEW_YORK).strftime(FORMS[form]) if moment else NOTHING


@register.filter
def money(value: Number) -> str:
    """Dollars and cents: $1,234.50."""
    return NOTHING if value is None else _signed(value, f"${abs(value):,.2f}")


@register.filter
def gain(value: Number) -> str:
    """Dollars and cents with a sign: +$1,234.50."""
    return NOTHING if value is None else _with_plus(value, f"${abs(value):,.2f}")


@register.filter
def price(value: Number) -> str:
    """A price: cents, and four decimals below a dollar, where ticks are smaller."""
    return NOTHING if value is None else _signed(value, f"{abs(value):,.{4 if -1 < value < 1 else 2}f}")


@register.filter
def quantity(value: Number) -> str:
    """Shares, without decimals where there are none."""
    return NOTHING if value is None else f"{value:,.4f}".rstrip("0").rstrip(".")


@register.filter
def percent(fraction: SupportsFloat | None) -> str:
    """A fraction as percent with a sign: +1.25 %."""
    return NOTHING if fraction is None else _with_plus(float(fraction), f"{abs(float(fraction)):.2%}")


@register.filter
def percent_points(value: SupportsFloat | None) -> str:
    """A number that is in percent already, with a sign."""
    return NOTHING if value is None else percent(float(value) / 100)


@register.filter
def share(fraction: SupportsFloat | None) -> str:
    """A fraction as percent without a sign: 47.1 %."""
    return NOTHING if fraction is None else f"{float(fraction):.1%}"


@register.filter
def ratio(value: SupportsFloat | None) -> str:
    """A plain ratio with two decimals."""
    return NOTHING if value is None else _signed(float(value), f"{abs(float(value)):.2f}")


@register.filter
def count(value: Number) -> str:
    """A whole number: 1,234."""
    return NOTHING if value is None else _signed(value, f"{abs(value):,.0f}")


@register.filter
def written(value: Number, form: str) -> str:
    """A figure in the form of that name: `money`, `gain`, `percent`, `share`, `ratio` or `count`."""
    return FILTERS[form](value)


@register.filter
def trend(value: Number) -> str:
    """CSS class of a figure that is good above and bad below zero."""
    return "" if not value else "up" if value > 0 else "down"


@register.filter
def duration(value: Number) -> str:
    """A time span of seconds: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if value is None:
        return NOTHING
    seconds = round(value)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds} s"
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days == 0 else f"{days} d {hours % 24} h"


@register.filter
def milliseconds(value: float | None) -> str:
    """A latency: 12 ms, 1.25 s."""
    if value is None:
        return NOTHING
    if value < 10_000:
        return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"
    return f"{value / 1000:,.1f} s" if value < 600_000 else duration(int(value / 1000))


@register.filter
def multiple(value: SupportsFloat | None) -> str:
    """A profit as a multiple of the planned risk: +1.25 R."""
    return NOTHING if value is None else f"{_with_plus(float(value), f'{abs(float(value)):.2f}')} R"


@register.filter
def words(name: str) -> str:
    """A name of the database as words: `stop_loss` is Stop loss."""
    return name.replace("_", " ").capitalize()


def _signed(value: Decimal | float, text: str) -> str:
    return f"{MINUS}{text}" if value < 0 else text


def _with_plus(value: Decimal | float, text: str) -> str:
    return f"+{text}" if value > 0 else _signed(value, text)


FILTERS: dict[str, Callable[[Number], str]] = {
    "money": money, "gain": gain, "percent": percent, "share": share, "ratio": ratio, "count": count,
}  # fmt: skip
