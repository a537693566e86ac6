"""The bridge to the tables of risk: sessions with breaker and halt, and the settings changed on the settings page."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from django.db import transaction

from risk import models
from risk.config import BY_KEY, Config, ConfigError, setting_of

KEYS_LIVE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session's risk state. `breaker` names what tripped, separated by commas; times are market time."""

    date: date
    start_equity: Decimal
    breaker: str
    tripped_at: datetime | None
    halted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a setting; None stands for no override. `changed_at` is the wall clock."""

    key: str
    old_value: str | None
    new_value: str | None
    changed_by: str
    changed_at: datetime


# --- sessions ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def load_session(account_id: str, day: date) -> SessionState | None:
    """The session of a New York date, None if it has not begun here."""
    row = models.TradingSession.objects.filter(account_id=account_id, date=day).first()
    if row is None or row.start_equity is None:
        return None
    return SessionState(
        date=row.date,
        start_equity=row.start_equity,
        breaker=row.breaker,
        tripped_at=row.tripped_at,
        halted=row.halted,
    )


@transaction.atomic
def save_session(
    account_id: str,
    day: date,
    *,
    opens_at: datetime,
    closes_at: datetime,
    start_equity: Decimal,
    breaker: str,
    tripped_at: datetime | None,
    halted: bool,
    run_id: int | None,
    real_at: datetime,
) -> None:
    """Writes a session. A halt is only ever added: it holds, into later sessions too, until `set_halted` lifts it.

    So an engine that hung while the operator halted from outside cannot undo that when it wakes.
    """
    models.TradingSession.objects.update_or_create(
        account_id=account_id,
        date=day,
        defaults={
            "opens_at": opens_at,
            "closes_at": closes_at,
            "start_equity": start_equity,
            "breaker": breaker,
            "tripped_at": tripped_at,
            "halted": halted or is_halted(account_id),
            "run_id": run_id,
            "recorded_real_at": real_at,
        },
    )


def is_halted(account_id: str) -> bool:
    """Whether the operator has halted the account: what its newest session says.

    Asked before every entry. No transaction: on SQLite each waits for whoever writes just now, and one row needs none.
    """
    sessions = models.TradingSession.objects.filter(account_id=account_id).order_by("-date")
    return bool(sessions.values_list("halted", flat=True).first())


@transaction.atomic
def set_halted(account_id: str, halted: bool, *, day: date, real_at: datetime, run_id: int | None = None) -> None:
    """Halts or resumes an account at once, whatever the engine does. `day` is the date to write on if there is none."""
    newest = models.TradingSession.objects.filter(account_id=account_id).order_by("-date").first()
    if newest is None:
        newest = models.TradingSession(account_id=account_id, date=day, breaker="", run_id=run_id)
    newest.halted = halted
    newest.recorded_real_at = real_at
    newest.save()


# --- settings ---------------------------------------------------------------------------------------------------------


def overrides() -> dict[str, str]:
    """The settings changed on the page, as texts by key. Rows of other keys count for nothing, however they came.

    Read several times a second, so without a transaction, as `is_halted`.
    """
    rows = models.SettingsOverride.objects.values_list("key", "value")
    return {key: value for key, value in rows if key in BY_KEY and BY_KEY[key].ui}


def effective(config: Config) -> Config:
    """The settings with the overrides of the database on top. Raises ConfigError if one of these does not fit."""
    return config.with_overrides(overrides())


@transaction.atomic
def set_override(key: str, value: str, *, by: str, config: Config, real_at: datetime) -> None:
    """Overrides a setting. `config` are the settings without overrides, by which it is checked.

    Raises:
        ConfigError: the key does not exist or cannot be changed on the page, or the value is out of bounds.
    """
    setting = setting_of(key)
    if not setting.ui:
        raise ConfigError(f"{key!r} cannot be changed while the engine runs: set {setting.variable} and restart")
    value = value.strip()
    config.with_overrides({**overrides(), key: value})
    row = models.SettingsOverride.objects.filter(key=key).first()
    old_value = row.value if row else None
    if value == old_value:
        return
    models.SettingsOverride.objects.update_or_create(
        key=key, defaults={"value": value, "previous_value": old_value, "updated_at": real_at, "updated_by": by}
    )
    _record_change(key, old_value, value, by=by, real_at=real_at)


@transaction.atomic
def reset_override(key: str, *, by: str, real_at: datetime) -> None:
    """Goes back to what the environment says. Raises ConfigError for a key that does not exist."""
    row = models.SettingsOverride.objects.filter(key=setting_of(key).key).first()
    if row is not None:
        row.delete()
        _record_change(key, row.value, None, by=by, real_at=real_at)


@transaction.atomic
def changes(*, limit: int = 100) -> list[Change]:
    """The latest changes of settings, newest first."""
    rows = models.SettingsChange.objects.order_by("-id")[:limit]
    return [
        Change(
            key=row.key,
            old_value=row.old_value,
            new_value=row.new_value,
            changed_by=row.changed_by,
            changed_at=row.changed_at,
        )
        for row in rows
    ]


@transaction.atomic
def latest_changes() -> dict[str, Change]:
    """The latest change of every key that was ever changed."""
    latest: dict[str, Change] = {}
    for change in changes(limit=10_000):
        latest.setdefault(change.key, change)
    return latest


def _record_change(key: str, old_value: str | None, new_value: str | None, *, by: str, real_at: datetime) -> None:
    models.SettingsChange.objects.create(
        key=key, old_value=old_value, new_value=new_value, changed_by=by, changed_at=real_at
    )


# --- what is asked once -----------------------------------------------------------------------------------------------


class AnotherRequest(Exception):
    """The key was used before, for something else."""


@transaction.atomic
def ask_once(ask: Callable[[], int], *, by: str, key: str, fingerprint: str, real_at: datetime) -> int:
    """What `ask` returns, or what it returned to the same one under the same key within a day, without asking again.

    Raises:
        AnotherRequest: the fingerprints differ.
    """
    models.AskedOnce.objects.filter(asked_at__lt=real_at - KEYS_LIVE).delete()
    earlier = models.AskedOnce.objects.select_for_update().filter(asked_by=by, key=key).first()
    if earlier is None:
        answer_id = ask()
        models.AskedOnce.objects.create(
            asked_by=by, key=key, fingerprint=fingerprint, answer_id=answer_id, asked_at=real_at
        )
        return answer_id
    if earlier.fingerprint != fingerprint:
        raise AnotherRequest(f"the key {key!r} was used before, for something else")
    return earlier.answer_id
