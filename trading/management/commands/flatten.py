"""`manage.py flatten`: the way out of everything, whatever the engine does."""

import asyncio
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from orders.command import OneLineCommand
from trading.management.arguments import BAD_USAGE

QUESTION = "Trading is halted, every order cancelled and every position closed at market. Go on? [y/N] "


class Command(OneLineCommand):
    """Works with the engine running, hung or dead; see `trading/live/flatten.py`."""

    help = "Halt, cancel all orders, close all positions at market, and show what the broker says before and after."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whether to ask first."""
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, **options: Any) -> None:
        """Exit status 0 only if the broker shows no position and no working order."""
        if not options["yes"] and not self._agreed():
            self.stdout.write("Nothing was done.")
            sys.exit(1)
        from trading.live.flatten import flatten

        asyncio.run(flatten(self._say))
        self._say("Flat: the broker shows no position and no working order.")

    def _agreed(self) -> bool:
        if not sys.stdin.isatty():
            raise CommandError("nobody can be asked here: give --yes", returncode=BAD_USAGE)
        return input(QUESTION).strip().lower() in {"y", "yes"}

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
