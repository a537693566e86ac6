"""The tables of the engine at work: its runs, its lease, what it is asked, what it decided and what it did."""

from django.db import models

from orders.fields import DecimalField, Sign, UtcDateTimeField, UuidField, not_empty, one_of, utc_now
from orders.lifecycle import Side
from orders.models import RunRow
from trading.messages import ActivityType, Level

ENGINE_STATES = ("starting", "running", "stopping")
RUN_OUTCOMES = ("running", "stopped", "failed")
REQUEST_KINDS = ("shutdown", "flatten", "close", "move_stop", "halt", "resume")
LEASE_ROW = 1


class EngineRun(models.Model):
    """One start of the engine with the settings it ran under; wall-clock times."""

    account_id = models.TextField()
    provider = models.TextField()
    account_mode = models.TextField()
    strategies = models.JSONField(default=list)
    symbols = models.JSONField(default=list)
    settings = models.JSONField(default=dict)
    settings_hash = models.TextField()
    options = models.JSONField(default=dict)
    started_at = UtcDateTimeField()
    ended_at = UtcDateTimeField(null=True)
    outcome = models.TextField(db_default="running")
    reason = models.TextField(db_default="")

    class Meta:
        db_table = "engine_run"
        constraints = [
            one_of("engine_run", "account_mode", ("built_in", "paper", "live")),
            one_of("engine_run", "outcome", RUN_OUTCOMES),
        ]
        indexes = [models.Index(fields=["account_id", "started_at"], name="ix_engine_run_account_started")]

    def __str__(self) -> str:
        return f"run {self.pk} on {self.account_id}"


class EngineLease(models.Model):
    """The one engine that may run on this database: at most one row. Wall-clock times."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=LEASE_ROW)
    token = UuidField()
    pid = models.PositiveIntegerField()
    host = models.TextField()
    port = models.PositiveIntegerField(null=True)
    run = models.ForeignKey(EngineRun, null=True, on_delete=models.PROTECT)
    account_id = models.TextField(db_default="")
    state = models.TextField()
    started_at = UtcDateTimeField()
    heartbeat_at = UtcDateTimeField()
    meters = models.TextField(db_default="")  # Prometheus' text format

    class Meta:
        db_table = "engine_lease"
        constraints = [
            models.CheckConstraint(condition=models.Q(id=LEASE_ROW), name="engine_lease_one_row"),
            one_of("engine_lease", "state", ENGINE_STATES),
        ]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class OperatorRequest(models.Model):
    """Something the engine that holds `lease_token` is asked to do before `expires_at`; wall-clock times."""

    kind = models.TextField()
    payload = models.JSONField(default=dict)
    lease_token = UuidField()
    account_id = models.TextField()
    requested_by = models.TextField()
    created_at = UtcDateTimeField(default=utc_now)
    expires_at = UtcDateTimeField()
    claimed_at = UtcDateTimeField(null=True)
    done_at = UtcDateTimeField(null=True)
    result = models.TextField(db_default="")
    error = models.TextField(db_default="")

    class Meta:
        db_table = "operator_request"
        constraints = [one_of("operator_request", "kind", REQUEST_KINDS)]
        indexes = [models.Index(fields=["lease_token", "claimed_at"], name="ix_operator_request_open")]

    def __str__(self) -> str:
        return f"{self.kind} asked by {self.requested_by}"


class Activity(RunRow):
    """One line of the activity feed."""

    recorded_at = UtcDateTimeField()
    type = models.TextField()
    level = models.TextField()
    symbol = models.TextField(db_default="")
    message = models.TextField()
    correlation_id = models.TextField(db_default="")

    class Meta:
        db_table = "activity"
        verbose_name_plural = "activities"
        constraints = [one_of("activity", "type", ActivityType), one_of("activity", "level", Level)]
        indexes = [
            models.Index(fields=["account_id", "-id"], name="ix_activity_account"),
            models.Index(fields=["correlation_id"], name="ix_activity_correlation"),
        ]

    def __str__(self) -> str:
        return self.message


class Decision(RunRow):
    """A signal with every condition and risk check and the values they compared; `refused_by` is empty for an order."""

    recorded_at = UtcDateTimeField()
    symbol = models.TextField()
    strategy = models.TextField()
    side = models.TextField()
    candle = models.JSONField()
    conditions = models.JSONField()
    checks = models.JSONField()
    refused_by = models.TextField(db_default="")
    qty = DecimalField(sign=Sign.NOT_NEGATIVE)
    entry_price = DecimalField()
    stop_price = DecimalField()
    correlation_id = models.TextField(db_default="")
    settings_hash = models.TextField(db_default="")

    class Meta:
        db_table = "decision"
        constraints = [one_of("decision", "side", Side)]
        indexes = [
            models.Index(fields=["account_id", "-id"], name="ix_decision_account"),
            models.Index(fields=["correlation_id"], name="ix_decision_correlation"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.side} {self.refused_by or 'taken'}"


class PositionCover(RunRow):
    """How long a closed position was without full stop cover, in market time, and for how many dollars at most."""

    recorded_at = UtcDateTimeField()
    symbol = models.TextField()
    correlation_id = models.TextField()
    naked_seconds = DecimalField(sign=Sign.NOT_NEGATIVE)
    longest_seconds = DecimalField(sign=Sign.NOT_NEGATIVE)
    most_dollars = DecimalField(sign=Sign.NOT_NEGATIVE)
    stretches = models.PositiveIntegerField()

    class Meta:
        db_table = "position_cover"
        verbose_name = verbose_name_plural = "stop coverage"
        indexes = [models.Index(fields=["account_id", "-id"], name="ix_position_cover_account")]

    def __str__(self) -> str:
        return f"{self.symbol} naked for {self.naked_seconds} s"


class NotificationChannel(models.Model):
    """Where people are told things, in the form of an Apprise address, which is a secret; wall-clock times."""

    name = models.TextField(unique=True)
    url = models.TextField()
    events = models.JSONField(default=list)
    is_enabled = models.BooleanField(db_default=True, default=True)
    sent = models.PositiveIntegerField(db_default=0, default=0)
    failed = models.PositiveIntegerField(db_default=0, default=0)
    last_sent_at = UtcDateTimeField(null=True)
    last_error = models.TextField(db_default="", default="", blank=True)

    class Meta:
        db_table = "notification_channel"
        constraints = [not_empty("notification_channel", "name"), not_empty("notification_channel", "url")]

    def __str__(self) -> str:
        return self.name
