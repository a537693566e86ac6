"""Makes the first login of a new installation."""

import secrets
from typing import Any

from django.contrib.auth import get_user_model

from orders.command import OneLineCommand

NAME = "admin"
PASSWORD_BYTES = 12


class Command(OneLineCommand):
    help = "Make the user `admin` with a random password, printed once, when there is no user yet."

    def handle(self, *args: Any, **options: Any) -> None:
        """Do nothing on every start but the first."""
        users = get_user_model().objects
        if users.exists():
            return
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        users.create_superuser(NAME, password=password)
        self.stdout.write(f"Login of the dashboard, shown only now: user {NAME}, password {password}")
        self.stdout.write(f"Change it with `manage.py changepassword {NAME}`.")
