"""The background worker, which refuses to start on a database that does not protect its history."""

from typing import Any

from django.db import connections
from django_q.management.commands.qcluster import Command as WorkerCommand

from orders.guards import GuardedCommand
from trading.tasks import have_calendar_followed


class Command(GuardedCommand, WorkerCommand):  # type: ignore[misc]  # django-q comes without types
    """Works off tasks until it is told to stop."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run without a pool of connections: its processes are forked, and would talk over each other's."""
        for connection in connections.all():
            connection.settings_dict["OPTIONS"].pop("pool", None)
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        """Have the calendar followed, then work."""
        have_calendar_followed()
        super().handle(*args, **options)
