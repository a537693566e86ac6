"""What commands that open the built-in market take on their command line, and what of it does not fit together."""

from argparse import ArgumentTypeError
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from risk.config import ConfigError, parse

BAD_USAGE = 2


def add_market_arguments(parser: CommandParser) -> None:
    """Bars, clock and capital of the built-in market."""
    market = parser.add_argument_group("built-in market")
    market.add_argument("--speed", type=number, metavar="X", help="times real time; 0: as fast as the engine follows")
    market.add_argument("--data", type=Path, metavar="PATH", help="replay bars from a file or folder")
    market.add_argument("--start-date", type=day, metavar="YYYY-MM-DD", help="first session of a replay")
    market.add_argument("--end-date", type=day, metavar="YYYY-MM-DD", help="last session of a replay")
    market.add_argument("--initial-capital", type=number, default=Decimal(25_000), metavar="DOLLARS")
    market.add_argument("--seed", type=int, default=1, metavar="N", help="of the synthetic market")


def check_market_arguments(options: dict[str, Any]) -> None:
    """Raises CommandError with the status of bad usage."""
    if options["speed"] is not None and options["speed"] < 0:
        raise CommandError("--speed is 0 or more", returncode=BAD_USAGE)
    if options["initial_capital"] <= 0:
        raise CommandError("--initial-capital is above 0", returncode=BAD_USAGE)
    if options["start_date"] and options["end_date"] and options["end_date"] < options["start_date"]:
        raise CommandError("--end-date lies before --start-date", returncode=BAD_USAGE)
    if options["data"] is None and (options["start_date"] or options["end_date"]):
        raise CommandError("--start-date and --end-date belong to a replay: give --data too", returncode=BAD_USAGE)


def symbols(text: str) -> tuple[str, ...]:
    """Ticker symbols with commas between, as in the watchlist."""
    try:
        found: tuple[str, ...] = parse("watchlist", text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from error
    return found


def day(text: str) -> date:
    """A date as 2018-02-16."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a date such as 2018-02-16") from None


def number(text: str) -> Decimal:
    """An exact number."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ArgumentTypeError(f"{text!r} is not a number")
    return found
