from django.db import migrations, models

import orders.fields
import orders.guards


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        orders.guards.ForwardOnly(),
        migrations.CreateModel(
            name="SettingsOverride",
            fields=[
                ("key", models.TextField(primary_key=True, serialize=False)),
                ("value", models.TextField()),
                ("previous_value", models.TextField(null=True)),
                ("updated_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("updated_by", models.TextField(db_default="")),
            ],
            options={
                "verbose_name": "setting",
                "db_table": "settings_override",
            },
        ),
        migrations.CreateModel(
            name="SettingsChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.TextField()),
                ("old_value", models.TextField(null=True)),
                ("new_value", models.TextField(null=True)),
                ("changed_by", models.TextField()),
                ("changed_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
            ],
            options={
                "db_table": "settings_change",
                "indexes": [models.Index(fields=["key", "changed_at"], name="ix_settings_change_key")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("key", ""), _negated=True), name="settings_change_key_not_empty"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="TradingSession",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("date", models.DateField()),
                ("opens_at", orders.fields.UtcDateTimeField(null=True)),
                ("closes_at", orders.fields.UtcDateTimeField(null=True)),
                ("start_equity", orders.fields.DecimalField(null=True)),
                ("breaker", models.TextField(db_default="")),
                ("tripped_at", orders.fields.UtcDateTimeField(null=True)),
                ("halted", models.BooleanField(db_default=False)),
            ],
            options={
                "db_table": "trading_session",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "breaker__in",
                                [
                                    "",
                                    "daily_loss",
                                    "consecutive_losses",
                                    "daily_loss,consecutive_losses",
                                    "consecutive_losses,daily_loss",
                                ],
                            )
                        ),
                        name="trading_session_breaker_known",
                    ),
                    models.UniqueConstraint(fields=("account_id", "date"), name="trading_session_once_a_day"),
                ],
            },
        ),
        orders.guards.MakeTriggers(),
    ]
