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
            name="Activity",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("recorded_at", orders.fields.UtcDateTimeField()),
                ("type", models.TextField()),
                ("level", models.TextField()),
                ("symbol", models.TextField(db_default="")),
                ("message", models.TextField()),
                ("correlation_id", models.TextField(db_default="")),
            ],
            options={
                "verbose_name_plural": "activities",
                "db_table": "activity",
                "indexes": [
                    models.Index(fields=["account_id", "-id"], name="ix_activity_account"),
                    models.Index(fields=["correlation_id"], name="ix_activity_correlation"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "type__in",
                                [
                                    "signal",
                                    "order_submitted",
                                    "order_filled",
                                    "order_canceled",
                                    "order_rejected",
                                    "stop_moved",
                                    "circuit_breaker",
                                    "error",
                                    "trade_closed",
                                    "halted",
                                    "resumed",
                                    "reconciled",
                                    "naked",
                                    "settings_changed",
                                ],
                            )
                        ),
                        name="activity_type_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("level__in", ["info", "warning", "error", "critical"])),
                        name="activity_level_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Decision",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("recorded_at", orders.fields.UtcDateTimeField()),
                ("symbol", models.TextField()),
                ("strategy", models.TextField()),
                ("side", models.TextField()),
                ("candle", models.JSONField()),
                ("conditions", models.JSONField()),
                ("checks", models.JSONField()),
                ("refused_by", models.TextField(db_default="")),
                ("qty", orders.fields.DecimalField(sign="not_negative")),
                ("entry_price", orders.fields.DecimalField()),
                ("stop_price", orders.fields.DecimalField()),
                ("correlation_id", models.TextField(db_default="")),
                ("settings_hash", models.TextField(db_default="")),
            ],
            options={
                "db_table": "decision",
                "indexes": [
                    models.Index(fields=["account_id", "-id"], name="ix_decision_account"),
                    models.Index(fields=["correlation_id"], name="ix_decision_correlation"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("side__in", ["long", "short"])), name="decision_side_known"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="EngineRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("provider", models.TextField()),
                ("account_mode", models.TextField()),
                ("strategies", models.JSONField(default=list)),
                ("symbols", models.JSONField(default=list)),
                ("settings", models.JSONField(default=dict)),
                ("settings_hash", models.TextField()),
                ("options", models.JSONField(default=dict)),
                ("started_at", orders.fields.UtcDateTimeField()),
                ("ended_at", orders.fields.UtcDateTimeField(null=True)),
                ("outcome", models.TextField(db_default="running")),
                ("reason", models.TextField(db_default="")),
            ],
            options={
                "db_table": "engine_run",
                "indexes": [models.Index(fields=["account_id", "started_at"], name="ix_engine_run_account_started")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("account_mode__in", ["built_in", "paper", "live"])),
                        name="engine_run_account_mode_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("outcome__in", ["running", "stopped", "failed"])),
                        name="engine_run_outcome_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="OperatorRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.TextField()),
                ("payload", models.JSONField(default=dict)),
                ("lease_token", orders.fields.UuidField()),
                ("account_id", models.TextField()),
                ("requested_by", models.TextField()),
                ("created_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("expires_at", orders.fields.UtcDateTimeField()),
                ("claimed_at", orders.fields.UtcDateTimeField(null=True)),
                ("done_at", orders.fields.UtcDateTimeField(null=True)),
                ("result", models.TextField(db_default="")),
                ("error", models.TextField(db_default="")),
            ],
            options={
                "db_table": "operator_request",
                "indexes": [models.Index(fields=["lease_token", "claimed_at"], name="ix_operator_request_open")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind__in", ["shutdown", "flatten", "close", "move_stop", "halt", "resume"])
                        ),
                        name="operator_request_kind_known",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="EngineLease",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("token", orders.fields.UuidField()),
                ("pid", models.PositiveIntegerField()),
                ("host", models.TextField()),
                ("port", models.PositiveIntegerField(null=True)),
                ("account_id", models.TextField(db_default="")),
                ("state", models.TextField()),
                ("started_at", orders.fields.UtcDateTimeField()),
                ("heartbeat_at", orders.fields.UtcDateTimeField()),
                (
                    "run",
                    models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to="trading.enginerun"),
                ),
            ],
            options={
                "db_table": "engine_lease",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="engine_lease_one_row"),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["starting", "running", "stopping"])),
                        name="engine_lease_state_known",
                    ),
                ],
            },
        ),
    ]
