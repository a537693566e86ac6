"""The tables of what may be traded: start equity, breaker and halt of each session, and the settings of the page."""

from django.db import models

from orders.fields import DecimalField, UtcDateTimeField, not_empty, one_of, utc_now
from orders.models import RunRow

DAILY_LOSS, CONSECUTIVE_LOSSES = "daily_loss", "consecutive_losses"
BREAKERS = (
    "",
    DAILY_LOSS,
    CONSECUTIVE_LOSSES,
    f"{DAILY_LOSS},{CONSECUTIVE_LOSSES}",
    f"{CONSECUTIVE_LOSSES},{DAILY_LOSS}",
)


class TradingSession(RunRow):
    """One session of one account. `halted` of the newest row holds until somebody resumes, over restarts too.

    `start_equity` is unknown while only a halt was written, before the session began. `breaker` names what tripped, in
    that order and separated by commas; `tripped_at` is when the first did.
    """

    date = models.DateField()
    opens_at = UtcDateTimeField(null=True)
    closes_at = UtcDateTimeField(null=True)
    start_equity = DecimalField(null=True)
    breaker = models.TextField(db_default="")
    tripped_at = UtcDateTimeField(null=True)
    halted = models.BooleanField(db_default=False)

    class Meta:
        db_table = "trading_session"
        constraints = [
            one_of("trading_session", "breaker", BREAKERS),
            models.UniqueConstraint(fields=["account_id", "date"], name="trading_session_once_a_day"),
        ]

    def __str__(self) -> str:
        return f"{self.date} {self.account_id}"


class SettingsOverride(models.Model):
    """A setting changed on the settings page; it wins over the environment. `updated_at` is the wall clock."""

    key = models.TextField(primary_key=True)
    value = models.TextField()
    previous_value = models.TextField(null=True)
    updated_at = UtcDateTimeField(default=utc_now)
    updated_by = models.TextField(db_default="")

    class Meta:
        db_table = "settings_override"
        verbose_name = "setting"

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class SettingsChange(models.Model):
    """Who changed which setting, when, from what to what; None stands for no override. Only ever grows."""

    key = models.TextField()
    old_value = models.TextField(null=True)
    new_value = models.TextField(null=True)
    changed_by = models.TextField()
    changed_at = UtcDateTimeField(default=utc_now)

    class Meta:
        db_table = "settings_change"
        constraints = [not_empty("settings_change", "key")]
        indexes = [models.Index(fields=["key", "changed_at"], name="ix_settings_change_key")]

    def __str__(self) -> str:
        return f"{self.key}: {self.old_value} -> {self.new_value}"


class AskedOnce(models.Model):
    """Something asked of the API under an idempotency key, and the row that answers it; kept for a day."""

    asked_by = models.TextField()
    key = models.TextField()
    fingerprint = models.TextField()
    answer_id = models.BigIntegerField()
    asked_at = UtcDateTimeField(default=utc_now)

    class Meta:
        db_table = "asked_once"
        verbose_name = "idempotency key"
        constraints = [models.UniqueConstraint(fields=["asked_by", "key"], name="asked_once_by_key")]

    def __str__(self) -> str:
        return f"{self.key} of {self.asked_by}"
