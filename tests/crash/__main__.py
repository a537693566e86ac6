"""`python -m tests.crash`: see `tests/crash/run.py`."""

import os
import sys


def main() -> int:
    """Sets Django up before anything of it is imported."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # no threads at import: this process forks
    import django

    django.setup()
    from tests.crash.run import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
