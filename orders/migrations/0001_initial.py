import django.db.models.deletion
from django.db import migrations, models

import orders.fields
import orders.guards


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        orders.guards.ForwardOnly(),
        migrations.CreateModel(
            name="OrderState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("local_id", orders.fields.UuidField(unique=True)),
                ("broker_id", models.TextField(null=True)),
                ("client_order_id", models.TextField()),
                ("correlation_id", orders.fields.UuidField()),
                ("symbol", models.TextField()),
                ("side", models.TextField()),
                ("role", models.TextField()),
                ("order_type", models.TextField()),
                ("time_in_force", models.TextField(db_default="day")),
                ("qty_requested", orders.fields.DecimalField(sign="positive")),
                ("qty_filled", orders.fields.DecimalField(db_default=0, sign="not_negative")),
                ("filled_value", orders.fields.DecimalField(db_default=0, sign="not_negative")),
                ("filled_before", orders.fields.DecimalField(db_default=0, sign="not_negative")),
                ("limit_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("stop_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("planned_stop_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("requested_stop_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("avg_fill_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("state", models.TextField(db_default="pending_submit")),
                ("version", models.PositiveIntegerField(db_default=0)),
                ("parent_id", orders.fields.UuidField(null=True)),
                ("strategy", models.TextField(db_default="")),
                ("exit_reason", models.TextField(db_default="")),
                ("expires_at", orders.fields.UtcDateTimeField(null=True)),
                ("replacements", models.PositiveIntegerField(db_default=0)),
                ("moved_at", orders.fields.UtcDateTimeField(null=True)),
                ("submit_attempts", models.PositiveIntegerField(db_default=0)),
                ("last_error", models.TextField(db_default="")),
                ("created_at", orders.fields.UtcDateTimeField()),
                ("updated_at", orders.fields.UtcDateTimeField()),
            ],
            options={
                "verbose_name": "order",
                "db_table": "order_state",
                "indexes": [
                    models.Index(fields=["broker_id"], name="ix_order_state_broker_id"),
                    models.Index(fields=["correlation_id"], name="ix_order_state_correlation_id"),
                    models.Index(fields=["state"], name="ix_order_state_state"),
                    models.Index(fields=["symbol", "created_at"], name="ix_order_state_symbol_created"),
                    models.Index(fields=["account_id", "state"], name="ix_order_state_account_state"),
                    models.Index(fields=["account_id", "created_at"], name="ix_order_state_account_created"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("side__in", ["long", "short"])), name="order_state_side_known"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["entry", "stop_loss", "take_profit", "exit"])),
                        name="order_state_role_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("order_type__in", ["market", "limit", "stop", "stop_limit", "trailing_stop"])
                        ),
                        name="order_state_order_type_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("time_in_force__in", ["day", "gtc", "ioc"])),
                        name="order_state_time_in_force_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "state__in",
                                [
                                    "pending_submit",
                                    "submitted",
                                    "accepted",
                                    "partially_filled",
                                    "filled",
                                    "canceled",
                                    "expired",
                                    "rejected",
                                    "submit_failed",
                                ],
                            )
                        ),
                        name="order_state_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("symbol", ""), _negated=True), name="order_state_symbol_not_empty"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Trade",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("trade_id", orders.fields.UuidField(unique=True)),
                ("correlation_id", orders.fields.UuidField()),
                ("symbol", models.TextField()),
                ("side", models.TextField()),
                ("qty", orders.fields.DecimalField(sign="positive")),
                ("entry_price", orders.fields.DecimalField(sign="positive")),
                ("exit_price", orders.fields.DecimalField(sign="positive")),
                ("entry_at", orders.fields.UtcDateTimeField()),
                ("exit_at", orders.fields.UtcDateTimeField()),
                ("pnl", orders.fields.DecimalField()),
                ("pnl_pct", orders.fields.DecimalField()),
                ("strategy", models.TextField()),
                ("duration_seconds", models.PositiveBigIntegerField()),
                ("commission", orders.fields.DecimalField(db_default=0)),
                ("exit_reason", models.TextField()),
                ("initial_stop_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("planned_risk", orders.fields.DecimalField(null=True, sign="not_negative")),
                ("estimated", models.BooleanField(db_default=False)),
                ("settings_hash", models.TextField(db_default="")),
                (
                    "corrects_trade",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="correction",
                        to="orders.trade",
                        to_field="trade_id",
                    ),
                ),
            ],
            options={
                "db_table": "trade",
            },
        ),
        migrations.CreateModel(
            name="TradeNote",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("note", models.TextField()),
                ("created_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now, editable=False)),
                ("updated_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now, editable=False)),
                (
                    "trade",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="notes",
                        to="orders.trade",
                        to_field="trade_id",
                    ),
                ),
            ],
            options={
                "db_table": "trade_note",
            },
        ),
        migrations.CreateModel(
            name="OrderEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("event_type", models.TextField()),
                ("old_state", models.TextField(null=True)),
                ("new_state", models.TextField()),
                ("version", models.PositiveIntegerField()),
                ("qty_filled", orders.fields.DecimalField(null=True, sign="positive")),
                ("fill_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("filled_at", orders.fields.UtcDateTimeField(null=True)),
                ("commission", orders.fields.DecimalField(null=True)),
                ("execution_id", models.TextField(null=True)),
                ("broker_id", models.TextField(null=True)),
                ("client_order_id", models.TextField(db_default="")),
                ("stop_price", orders.fields.DecimalField(null=True, sign="positive")),
                ("detail", models.JSONField(default=dict)),
                ("recorded_at", orders.fields.UtcDateTimeField()),
                (
                    "order_local",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="events",
                        to="orders.orderstate",
                        to_field="local_id",
                    ),
                ),
            ],
            options={
                "db_table": "order_event",
                "indexes": [
                    models.Index(fields=["order_local"], name="ix_order_event_local_id"),
                    models.Index(fields=["recorded_at"], name="ix_order_event_recorded"),
                    models.Index(fields=["broker_id"], name="ix_order_event_broker_id"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "event_type__in",
                                [
                                    "created",
                                    "submitted",
                                    "accepted",
                                    "fill",
                                    "partial_fill",
                                    "canceled",
                                    "expired",
                                    "rejected",
                                    "failed",
                                    "replace_requested",
                                    "replaced",
                                    "replace_refused",
                                    "forced",
                                ],
                            )
                        ),
                        name="order_event_event_type_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "new_state__in",
                                [
                                    "pending_submit",
                                    "submitted",
                                    "accepted",
                                    "partially_filled",
                                    "filled",
                                    "canceled",
                                    "expired",
                                    "rejected",
                                    "submit_failed",
                                ],
                            )
                        ),
                        name="order_event_new_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("old_state__isnull", True),
                            (
                                "old_state__in",
                                [
                                    "pending_submit",
                                    "submitted",
                                    "accepted",
                                    "partially_filled",
                                    "filled",
                                    "canceled",
                                    "expired",
                                    "rejected",
                                    "submit_failed",
                                ],
                            ),
                            _connector="OR",
                        ),
                        name="order_event_old_state_known",
                    ),
                    models.UniqueConstraint(fields=("account_id", "execution_id"), name="order_event_execution_once"),
                    models.UniqueConstraint(fields=("order_local", "version"), name="order_event_version_once"),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="trade",
            index=models.Index(fields=["symbol", "exit_at"], name="ix_trade_symbol_exit"),
        ),
        migrations.AddIndex(
            model_name="trade",
            index=models.Index(fields=["correlation_id"], name="ix_trade_correlation"),
        ),
        migrations.AddIndex(
            model_name="trade",
            index=models.Index(fields=["strategy", "exit_at"], name="ix_trade_strategy_exit"),
        ),
        migrations.AddIndex(
            model_name="trade",
            index=models.Index(fields=["account_id", "exit_at"], name="ix_trade_account_exit"),
        ),
        migrations.AddConstraint(
            model_name="trade",
            constraint=models.CheckConstraint(
                condition=models.Q(("side__in", ["long", "short"])), name="trade_side_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="trade",
            constraint=models.CheckConstraint(
                condition=models.Q(("symbol", ""), _negated=True), name="trade_symbol_not_empty"
            ),
        ),
        migrations.AddConstraint(
            model_name="trade",
            constraint=models.CheckConstraint(
                condition=models.Q(("exit_reason", ""), _negated=True), name="trade_exit_reason_not_empty"
            ),
        ),
        migrations.AddConstraint(
            model_name="tradenote",
            constraint=models.CheckConstraint(
                condition=models.Q(("note", ""), _negated=True), name="trade_note_note_not_empty"
            ),
        ),
        orders.guards.MakeTriggers(),
    ]
