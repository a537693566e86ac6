"""Prints a bearer token of the API, for scripts and monitoring."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandParser

from orders.command import OneLineCommand
from risk import tokens
from risk.roles import Role

ROLES = tuple(role.group for role in (Role.VIEWER, Role.TRADER, Role.ADMIN))
MOST_MINUTES = 7 * 24 * 60


class Command(OneLineCommand):
    help = 'Print a bearer token for the API, good for some minutes: `curl -H "Authorization: Bearer $(...)"`.'

    def add_arguments(self, parser: CommandParser) -> None:
        """What the token may do, and for how long."""
        parser.add_argument("--role", choices=ROLES, default=Role.VIEWER.group, help="what it may do (viewer: look)")
        parser.add_argument(
            "--minutes", type=minutes, default=15, metavar="N", help=f"how long it is good, 1 to {MOST_MINUTES} (15)"
        )
        parser.add_argument("--name", default="token", help="who is noted beside what is asked with it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print it; it is kept nowhere."""
        role = Role[options["role"].upper()]
        self.stdout.write(tokens.make(name=options["name"], role=role, seconds=options["minutes"] * 60))


def minutes(text: str) -> int:
    """A number of minutes of the command line."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_MINUTES:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST_MINUTES}")
    return int(text)
