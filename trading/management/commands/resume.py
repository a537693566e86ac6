"""`manage.py resume`: new entries are allowed again."""

from typing import Any

from orders.guards import GuardedCommand
from trading.live.switch import switch


class Command(GuardedCommand):
    """Works with the engine running or stopped."""

    help = "Allow new entries again."

    def handle(self, **options: Any) -> None:
        """Says what was done."""
        self.stdout.write(switch("resume", by="manage.py resume"))
