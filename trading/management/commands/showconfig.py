"""Shows every setting, its value, where it came from and its bounds."""

import json
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db.utils import OperationalError, ProgrammingError
from rich import box
from rich.console import Console
from rich.table import Table

from orders.command import OneLineCommand
from risk.config import SETTINGS, Config, mask
from risk.store import effective

PIPED_WIDTH_COLUMNS = 240


class Command(OneLineCommand):
    help = "Show every setting with its value, source (default, envfile, env, override) and bounds; secrets are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        """Nothing but the form of the output."""
        parser.add_argument("--json", action="store_true", help="print one JSON object, keyed by setting")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the settings as they are in effect now, the overrides of the settings page included."""
        rows = described(self._effective())
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        console = Console(file=sys.stdout, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
        table = Table("key", "value", "source", "allowed", "applies", box=box.SIMPLE)
        for key, row in rows.items():
            applies = "after a restart" if row["restart"] else "at once"
            table.add_row(key, row["value"], row["source"], row["bounds"], applies)
        console.print(table)

    def _effective(self) -> Config:
        """With the overrides of the database; without them, saying so, when there is no usable database yet."""
        try:
            return effective(settings.ALGO)
        except (OperationalError, ProgrammingError) as error:
            reason = str(error).strip().splitlines()[0]
            self.stderr.write(f"Overrides are left out: {reason}. `manage.py migrate` makes the tables.")
            return settings.ALGO


def described(config: Config) -> dict[str, dict[str, Any]]:
    """Every setting by key, with its variable, shown value, source, bounds, and whether a change needs a restart."""
    return {
        setting.key: {
            "variable": setting.variable,
            "value": mask(setting, config[setting.key]),
            "source": config.source(setting.key),
            "bounds": setting.bounds,
            "restart": setting.restart,
            "help": setting.help,
        }
        for setting in SETTINGS
    }
