#!/usr/bin/env python
"""Runs one management command; `manage.py help` lists them."""

import gc
import os
import sys

# Collections between every few hundred new objects find nothing while modules load, and take a tenth of a second.
OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main() -> int:
    """Run the command of the command line; exit status 1 with one line when the settings are not usable."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.environ["DJANGO_SETTINGS_MODULE"] = "algotrader.settings"
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        print("Django is not installed here: run `make setup`, then .venv/bin/python manage.py", file=sys.stderr)
        return 1
    from risk.config import ConfigError

    try:
        execute_from_command_line(sys.argv)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
