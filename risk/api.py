"""`/api/settings`, and who may change things through the API."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from ninja import Body, Header, Router, Schema
from ninja.errors import HttpError
from pydantic import ConfigDict

from risk import store
from risk.config import SETTINGS, ConfigError, as_text, mask, parse
from risk.roles import Role, role_of
from risk.symbols import CannotTell, not_tradable
from risk.tokens import Bearer

router = Router(tags=["settings"])


class SettingOut(Schema):
    """A setting as it is in effect now; secrets are masked. `restart` says that a change needs one."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "key": "risk.max_daily_loss_pct", "variable": "ALGO_RISK__MAX_DAILY_LOSS_PCT", "value": "0.03",
                "source": "default", "bounds": "a number from 0.01 to 0.10", "restart": False, "editable": True,
                "help": "Loss of a session, as a fraction of its start equity, from which no more entries are made.",
            }
        }
    )  # fmt: skip

    key: str
    variable: str
    value: str
    source: str
    bounds: str
    restart: bool
    editable: bool
    help: str


def operator(request: HttpRequest) -> str:
    """Name of the one who asks for something: a trader, by login or bearer token. Refuses others with 403."""
    return _allowed(request, Role.TRADER)


def administrator(request: HttpRequest) -> str:
    """As `operator`, for what only admins may change."""
    return _allowed(request, Role.ADMIN)


def _allowed(request: HttpRequest, least: Role) -> str:
    bearer = getattr(request, "auth", None)
    if isinstance(bearer, Bearer):
        if bearer.role >= least:
            return bearer.name
    elif role_of(request.user) >= least:
        return request.user.get_username()
    raise HttpError(403, needed(least))


def needed(least: Role) -> str:
    """What somebody without this role is told."""
    return f"This needs the group {' or '.join(role.group for role in Role if role >= least)}."


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[!-~]+$",
        description="Sent again with the same key within a day, the request is not carried out again.",
    ),
]  # fmt: skip


def once(request: HttpRequest, by: str, key: str | None, ask: Callable[[], int]) -> int:
    """The row that answers what is asked: a new one, or that of the same request under the same key.

    Raises HttpError 422 when the key belongs to another request, 409 when that one is under way just now.
    """
    if key is None:
        return ask()
    request_line = f"{request.method} {request.path}\n".encode()
    fingerprint = hashlib.sha256(request_line + request.body).hexdigest()
    try:
        return store.ask_once(ask, by=by, key=key, fingerprint=fingerprint, real_at=datetime.now(UTC))
    except store.AnotherRequest as error:
        raise HttpError(422, f"Idempotency-Key: {error}.") from None
    except IntegrityError:
        raise HttpError(409, "The same request is being carried out just now.") from None


@router.get("settings", response=list[SettingOut])
def read_settings(request: HttpRequest) -> list[SettingOut]:
    """Every setting in effect, the changes of the settings page included."""
    config = store.effective(settings.ALGO)
    return [
        SettingOut(
            key=setting.key,
            variable=setting.variable,
            value=mask(setting, config[setting.key]),
            source=config.source(setting.key),
            bounds=setting.bounds,
            restart=setting.restart,
            editable=setting.ui,
            help=setting.help,
        )
        for setting in SETTINGS
    ]


@router.put("settings", response=list[SettingOut])
def change_settings(
    request: HttpRequest, changes: Body[dict[str, str | bool | int | float | list[str] | None]]
) -> list[SettingOut]:
    """Changes settings by key, all of them or none; null goes back to what the environment says."""
    by, now = administrator(request), datetime.now(UTC)
    try:
        _refuse_symbols(changes.get("watchlist"))
        with transaction.atomic():
            for key, value in changes.items():
                if value is None:
                    store.reset_override(key, by=by, real_at=now)
                else:
                    text = as_text(tuple(value) if isinstance(value, list) else value)
                    store.set_override(key, text, by=by, config=settings.ALGO, real_at=now)
    except ConfigError as error:
        raise HttpError(400, str(error)) from None
    return read_settings(request)


def _refuse_symbols(watchlist: Any) -> None:
    """Raises ConfigError for a symbol that is new and that the broker does not trade."""
    if not watchlist:
        return
    asked = parse("watchlist", as_text(tuple(watchlist) if isinstance(watchlist, list) else watchlist))
    known = store.effective(settings.ALGO)["watchlist"]
    try:
        unknown = not_tradable([symbol for symbol in asked if symbol not in known])
    except CannotTell as problem:
        raise HttpError(503, f"The watchlist was not changed: {problem}.") from None
    if unknown:
        raise ConfigError(f"the broker does not trade {', '.join(unknown)}")
