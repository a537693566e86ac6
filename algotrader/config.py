"""Reads the settings from `.env` and the environment; what they may be says `risk/config.py`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import environ

from risk.config import PREFIX, Config, ConfigError, Source, resolve

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE_VARIABLE = "ALGO_ENV_FILE"
NOT_SETTINGS = (ENV_FILE_VARIABLE, "ALGO_TEST_")


def load(environment: Mapping[str, str] | None = None, env_file: Path | None = None) -> Config:
    """The effective settings without the overrides of the database.

    The file is the given one, else the one that ALGO_ENV_FILE names, else `.env` beside `manage.py` if there is one.
    Raises ConfigError for a bad value, an unknown variable, or a file that cannot be read.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(ENV_FILE_VARIABLE)
    path = env_file or (Path(named) if named else ROOT / ".env")
    layers: list[tuple[Source, Mapping[str, str]]] = []
    if env_file or named or path.exists():
        layers.append(("envfile", _settings_of(_read_env_file(path))))
    layers.append(("env", _settings_of(environment)))
    return resolve(layers)


def _settings_of(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if name.startswith(PREFIX) and not name.startswith(NOT_SETTINGS)}


def _read_env_file(path: Path) -> Mapping[str, str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the settings file {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        # django-environ only logs such a line; a limit written with a space too many would silently not hold.
        if line and not re.match(r"#|(export )?\w+=", line):
            raise ConfigError(f"{path} line {number} is not written as NAME=value, without spaces around the name")

    class EnvFile(environ.Env):  # type: ignore[misc]
        ENVIRON: dict[str, str] = {}  # noqa: RUF012  read_env fills the class, by default os.environ

    EnvFile.read_env(path, encoding="utf-8-sig")
    return EnvFile.ENVIRON
