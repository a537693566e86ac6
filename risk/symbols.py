"""Whether symbols can be traded: asked of whoever knows, which an app above this one says at start."""

from collections.abc import Callable, Sequence


class CannotTell(Exception):
    """Nobody can be asked at the moment."""


Check = Callable[[Sequence[str]], Sequence[str]]

_checks: list[Check] = []


def know(check: Check) -> None:
    """From now on `check` tells which of some symbols cannot be traded. It may raise CannotTell."""
    _checks.append(check)


def not_tradable(symbols: Sequence[str]) -> list[str]:
    """Those of the symbols that cannot be traded. Raises CannotTell."""
    return [symbol for check in _checks for symbol in check(symbols)] if symbols else []
