"""Bearer tokens of the API: signed, good for a while, and worth no more than the role they name."""

import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core import signing

from risk.roles import Role

SALT = "algotrader.api"
COMMAND_SECONDS = 60  # commands make one for each call


class BadToken(Exception):
    """Not one of ours, changed, or out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who comes with a token, and what they may do."""

    name: str
    role: Role


def make(*, name: str, role: Role, seconds: float) -> str:
    """A token for somebody of that name, good for so long. Changing ALGO_WEB__API_TOKEN ends all tokens at once."""
    claims = {"name": name, "role": role.group, "until": time.time() + seconds}
    return signing.dumps(claims, key=settings.API_TOKEN, salt=SALT)


def read(token: str) -> Bearer:
    """Who comes with this token.

    Raises:
        BadToken: it opens nothing.
    """
    try:
        claims: dict[str, Any] = signing.loads(token, key=settings.API_TOKEN, salt=SALT)
    except signing.BadSignature as error:
        raise BadToken(str(error)) from error
    if claims["until"] < time.time():
        raise BadToken("out of date")
    return Bearer(name=claims["name"], role=Role[claims["role"].upper()])
