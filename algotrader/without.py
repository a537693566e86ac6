"""Keeps libraries from loading what they would use if it were there, and what nobody here uses through them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Within, packages that are not loaded yet seem not to be installed; afterwards they can be imported as ever."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's word for: cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
