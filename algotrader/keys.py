"""Keys that are made once and kept in the data folder, readable by their owner alone."""

import os
import secrets
from pathlib import Path

from risk.config import ConfigError

KEY_BYTES = 48


def kept_key(path: Path) -> str:
    """The key in the file, which is made when missing. Raises ConfigError when it can be neither read nor made."""
    try:
        if not path.exists():
            _make(path)
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot keep a key in {path}: {error}") from error


def _make(path: Path) -> None:
    """Write a new key beside the path and link it there, so that two processes that start at once end with one key."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
