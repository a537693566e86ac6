import django.db.models.deletion
from django.db import migrations, models

import orders.fields
import orders.guards


class Migration(migrations.Migration):
    dependencies = [
        ("backtests", "0001_initial"),
    ]

    operations = [
        orders.guards.ForwardOnly(),
        migrations.AddField(
            model_name="backtestrun",
            name="attempts",
            field=models.PositiveSmallIntegerField(db_default=0),
        ),
        migrations.AddField(
            model_name="backtestrun",
            name="lease_until",
            field=orders.fields.UtcDateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="BacktestSweep",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sweep_id", orders.fields.UuidField(unique=True)),
                ("strategy", models.TextField()),
                ("symbols", models.JSONField()),
                ("start_date", models.DateField()),
                ("end_date", models.DateField()),
                ("initial_capital", orders.fields.DecimalField(sign="positive")),
                ("params", models.JSONField()),
                ("data", models.TextField(null=True)),
                ("settings_hash", models.TextField(db_default="")),
                ("grid", models.JSONField()),
                ("points", models.PositiveIntegerField()),
                ("on_cluster", models.BooleanField()),
                ("status", models.TextField(db_default="running")),
                ("error", models.TextField(db_default="")),
                ("created_by", models.TextField(db_default="")),
                ("created_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("queued_at", orders.fields.UtcDateTimeField(null=True)),
                ("lease_until", orders.fields.UtcDateTimeField(null=True)),
                ("finished_at", orders.fields.UtcDateTimeField(null=True)),
            ],
            options={
                "db_table": "backtest_sweep",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["running", "done", "failed"])),
                        name="backtest_sweep_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("points__gt", 0)), name="backtest_sweep_points_positive"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BacktestSweepChunk",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("first", models.PositiveIntegerField()),
                ("end", models.PositiveIntegerField()),
                ("status", models.TextField(db_default="queued")),
                ("token", orders.fields.UuidField(null=True)),
                ("lease_until", orders.fields.UtcDateTimeField(null=True)),
                ("attempts", models.PositiveSmallIntegerField(db_default=0)),
                (
                    "sweep",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="chunks", to="backtests.backtestsweep"
                    ),
                ),
            ],
            options={
                "db_table": "backtest_sweep_chunk",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["queued", "running", "done", "failed"])),
                        name="backtest_sweep_chunk_status_known",
                    ),
                    models.UniqueConstraint(fields=("sweep", "first"), name="ux_backtest_sweep_chunk"),
                ],
            },
        ),
        migrations.CreateModel(
            name="BacktestSweepPoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                ("params", models.JSONField()),
                ("metrics", models.JSONField(null=True)),
                ("moments", models.JSONField(null=True)),
                ("error", models.TextField(db_default="")),
                ("seconds", models.FloatField(db_default=0.0)),
                ("worker", models.TextField(db_default="")),
                ("finished_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                (
                    "sweep",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="results",
                        to="backtests.backtestsweep",
                    ),
                ),
            ],
            options={
                "db_table": "backtest_sweep_point",
                "constraints": [models.UniqueConstraint(fields=("sweep", "number"), name="ux_backtest_sweep_point")],
            },
        ),
    ]
