"""`manage.py halt`: no new entries until somebody resumes, over restarts too."""

from typing import Any

from orders.guards import GuardedCommand
from trading.live.switch import switch


class Command(GuardedCommand):
    """Works with the engine running or stopped."""

    help = "Stop new entries: working ones are cancelled, positions keep their stops."

    def handle(self, **options: Any) -> None:
        """Says what was done."""
        self.stdout.write(switch("halt", by="manage.py halt"))
