"""What all our management commands share: an error that a user can cause is one line on stderr, never a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from django.core.checks import Tags
from django.core.management.base import BaseCommand
from django.db.utils import OperationalError, ProgrammingError

FAILED = 1
INTERRUPTED = 130


class UserError(Exception):
    """The thing asked for failed: one line that says what happened and what to do about it."""


class OneLineCommand(BaseCommand):
    """A command whose exit status is 0 done, 1 failed with one line on stderr, 2 bad usage, 130 interrupted.

    `call_command` raises UserError instead; `--traceback` on the command line shows where it came from.
    """

    # Checking the addresses would load all that serves pages; the triggers are looked at by `guards.require`.
    requires_system_checks = (Tags.models,)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as `manage.py` does, and turn errors into one line and an exit status."""
        try:
            super().run_from_argv(argv)
        except UserError as error:
            if "--traceback" in argv:
                raise
            self._leave(str(error), FAILED)
        except KeyboardInterrupt:
            self._leave("Interrupted.", INTERRUPTED)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, with the database's own complaints put in words that say what to do."""
        with one_line_database_errors():
            return super().execute(*args, **options)

    def _leave(self, line: str, status: int) -> NoReturn:
        self.stderr.write(" ".join(line.split()))
        sys.exit(status)


@contextmanager
def one_line_database_errors() -> Iterator[None]:
    """Raises UserError for what a user can cause at the database."""
    try:
        yield
    except (OperationalError, ProgrammingError) as error:
        raise UserError(_in_plain_words(error)) from error


def _in_plain_words(error: OperationalError | ProgrammingError) -> str:
    """What a database error means to a user. Raises it again when it is a mistake in our SQL."""
    text = str(error).strip()
    if "no such table" in text or "no such column" in text or "does not exist" in text:
        return f"The database is not up to date ({text.splitlines()[0]}): run `manage.py migrate`."
    if isinstance(error, ProgrammingError):
        raise error
    if "locked" in text:
        return "The database is locked by another process for too long: try again, or see ALGO_DB_BUSY_TIMEOUT_MS."
    return f"The database cannot be used: {text}. See ALGO_DATABASE_URL."
