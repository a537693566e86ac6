"""`manage.py backup`: a copy of the ledger, taken while the engine trades."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from orders.command import OneLineCommand

FOLDER = "backups"


class Command(OneLineCommand):
    """How to bring a copy back is told in docs/runbook.md."""

    help = "Copy the SQLite ledger to a file, consistent and verified, while the engine trades."

    def add_arguments(self, parser: CommandParser) -> None:
        """Where to."""
        parser.add_argument(
            "file", nargs="?", type=Path, metavar="FILE", help="default: backups/trading-<time>.db in the data folder"
        )

    def handle(self, **options: Any) -> None:
        """Says where the copy is and what is in it."""
        from trading.live.backup import back_up

        name = f"trading-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
        made = back_up(options["file"] or Path(settings.DATA_DIR) / FOLDER / name)
        self.stdout.write(
            f"Backup: {made.file} ({made.size_bytes / 1_000_000:.1f} MB, {made.orders} orders, {made.events} events; "
            "verified)"
        )
