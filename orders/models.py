"""The tables of orders, of everything that happened to them, and of the trades they became.

`order_event` and `trade` only ever grow: triggers refuse every change (see `guards.py`). Times named `..._at` are
market time, `recorded_real_at` is the wall clock. `account_id` is `<provider>:<account number>`.
"""

from typing import Any

from django.db import models

from orders.fields import DecimalField, Sign, UtcDateTimeField, UuidField, not_empty, one_of, utc_now
from orders.lifecycle import OrderState as State
from orders.lifecycle import OrderType, Role, Side, TimeInForce

EVENT_TYPES = (
    "created", "submitted", "accepted", "fill", "partial_fill", "canceled", "expired", "rejected", "failed",
    "replace_requested", "replaced", "replace_refused", "forced",
)  # fmt: skip


class RunRow(models.Model):
    """What every row of a run carries: whose it is, which run wrote it, and when by the wall clock."""

    account_id = models.TextField()
    run_id = models.BigIntegerField(null=True)
    recorded_real_at = UtcDateTimeField(default=utc_now)

    class Meta:
        abstract = True


class OrderState(RunRow):
    """An order as it is now; one row an order, changed only together with a new `order_event`."""

    local_id = UuidField(unique=True)
    broker_id = models.TextField(null=True)
    client_order_id = models.TextField()
    correlation_id = UuidField()
    symbol = models.TextField()
    side = models.TextField()
    role = models.TextField()
    order_type = models.TextField()
    time_in_force = models.TextField(db_default=str(TimeInForce.DAY))
    qty_requested = DecimalField(sign=Sign.POSITIVE)
    qty_filled = DecimalField(sign=Sign.NOT_NEGATIVE, db_default=0)
    filled_value = DecimalField(sign=Sign.NOT_NEGATIVE, db_default=0)
    filled_before = DecimalField(sign=Sign.NOT_NEGATIVE, db_default=0)
    limit_price = DecimalField(null=True, sign=Sign.POSITIVE)
    stop_price = DecimalField(null=True, sign=Sign.POSITIVE)
    planned_stop_price = DecimalField(null=True, sign=Sign.POSITIVE)
    requested_stop_price = DecimalField(null=True, sign=Sign.POSITIVE)
    avg_fill_price = DecimalField(null=True, sign=Sign.POSITIVE)
    state = models.TextField(db_default=str(State.PENDING_SUBMIT))
    version = models.PositiveIntegerField(db_default=0)
    parent_id = UuidField(null=True)
    strategy = models.TextField(db_default="")
    exit_reason = models.TextField(db_default="")
    expires_at = UtcDateTimeField(null=True)
    replacements = models.PositiveIntegerField(db_default=0)
    moved_at = UtcDateTimeField(null=True)
    submit_attempts = models.PositiveIntegerField(db_default=0)
    last_error = models.TextField(db_default="")
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        db_table = "order_state"
        verbose_name = "order"
        constraints = [
            one_of("order_state", "side", Side),
            one_of("order_state", "role", Role),
            one_of("order_state", "order_type", OrderType),
            one_of("order_state", "time_in_force", TimeInForce),
            one_of("order_state", "state", State),
            not_empty("order_state", "symbol"),
        ]
        indexes = [
            models.Index(fields=["broker_id"], name="ix_order_state_broker_id"),
            models.Index(fields=["correlation_id"], name="ix_order_state_correlation_id"),
            models.Index(fields=["state"], name="ix_order_state_state"),
            models.Index(fields=["symbol", "created_at"], name="ix_order_state_symbol_created"),
            models.Index(fields=["account_id", "state"], name="ix_order_state_account_state"),
            models.Index(fields=["account_id", "created_at"], name="ix_order_state_account_created"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.side} {self.role} {self.qty_requested} {self.state}"


class OrderEvent(RunRow):
    """One thing that happened to an order; `version` is the order's after it.

    `detail` holds the fact with all its fields as JSON: applied one after the other they rebuild `order_state`.
    `qty_filled` and `fill_price` are those of one execution; `broker_id`, `client_order_id` and `stop_price` are the
    order's after the event.
    """

    order_local = models.ForeignKey(
        OrderState, to_field="local_id", on_delete=models.PROTECT, db_index=False, related_name="events"
    )
    event_type = models.TextField()
    old_state = models.TextField(null=True)
    new_state = models.TextField()
    version = models.PositiveIntegerField()
    qty_filled = DecimalField(null=True, sign=Sign.POSITIVE)
    fill_price = DecimalField(null=True, sign=Sign.POSITIVE)
    filled_at = UtcDateTimeField(null=True)
    commission = DecimalField(null=True)
    execution_id = models.TextField(null=True)
    broker_id = models.TextField(null=True)
    client_order_id = models.TextField(db_default="")
    stop_price = DecimalField(null=True, sign=Sign.POSITIVE)
    detail = models.JSONField(default=dict)
    recorded_at = UtcDateTimeField()

    class Meta:
        db_table = "order_event"
        constraints = [
            one_of("order_event", "event_type", EVENT_TYPES),
            one_of("order_event", "new_state", State),
            models.CheckConstraint(
                condition=models.Q(old_state__isnull=True) | models.Q(old_state__in=[str(state) for state in State]),
                name="order_event_old_state_known",
            ),
            models.UniqueConstraint(fields=["account_id", "execution_id"], name="order_event_execution_once"),
            models.UniqueConstraint(fields=["order_local", "version"], name="order_event_version_once"),
        ]
        indexes = [
            models.Index(fields=["order_local"], name="ix_order_event_local_id"),
            models.Index(fields=["recorded_at"], name="ix_order_event_recorded"),
            models.Index(fields=["broker_id"], name="ix_order_event_broker_id"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} of {self.order_local_id}"


class Trade(RunRow):
    """A completed round trip. A correction is a new row that names the one it replaces."""

    trade_id = UuidField(unique=True)
    correlation_id = UuidField()
    symbol = models.TextField()
    side = models.TextField()
    qty = DecimalField(sign=Sign.POSITIVE)
    entry_price = DecimalField(sign=Sign.POSITIVE)
    exit_price = DecimalField(sign=Sign.POSITIVE)
    entry_at = UtcDateTimeField()
    exit_at = UtcDateTimeField()
    pnl = DecimalField()
    pnl_pct = DecimalField()
    strategy = models.TextField()
    duration_seconds = models.PositiveBigIntegerField()
    commission = DecimalField(db_default=0)
    exit_reason = models.TextField()
    initial_stop_price = DecimalField(null=True, sign=Sign.POSITIVE)
    planned_risk = DecimalField(null=True, sign=Sign.NOT_NEGATIVE)
    estimated = models.BooleanField(db_default=False)
    corrects_trade = models.OneToOneField(
        "self", to_field="trade_id", null=True, on_delete=models.PROTECT, related_name="correction"
    )
    settings_hash = models.TextField(db_default="")

    class Meta:
        db_table = "trade"
        constraints = [
            one_of("trade", "side", Side),
            not_empty("trade", "symbol"),
            not_empty("trade", "exit_reason"),
        ]
        indexes = [
            models.Index(fields=["symbol", "exit_at"], name="ix_trade_symbol_exit"),
            models.Index(fields=["correlation_id"], name="ix_trade_correlation"),
            models.Index(fields=["strategy", "exit_at"], name="ix_trade_strategy_exit"),
            models.Index(fields=["account_id", "exit_at"], name="ix_trade_account_exit"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.side} {self.qty}: {self.pnl}"


class TradeNote(models.Model):
    """What a person has to say about a trade; wall-clock times."""

    trade = models.ForeignKey(Trade, to_field="trade_id", on_delete=models.PROTECT, related_name="notes")
    note = models.TextField()
    created_at = UtcDateTimeField(default=utc_now, editable=False)
    updated_at = UtcDateTimeField(default=utc_now, editable=False)

    class Meta:
        db_table = "trade_note"
        constraints = [not_empty("trade_note", "note")]

    def __str__(self) -> str:
        return self.note[:60]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves, noting when."""
        self.updated_at = utc_now()
        super().save(*args, **kwargs)
