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
            name="BacktestRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField(db_default="")),
                ("sweep_id", orders.fields.UuidField(null=True)),
                ("strategy", models.TextField()),
                ("symbols", models.JSONField()),
                ("start_date", models.DateField()),
                ("end_date", models.DateField()),
                ("initial_capital", orders.fields.DecimalField(sign="positive")),
                ("params", models.JSONField(default=dict)),
                ("data", models.TextField(null=True)),
                ("settings_hash", models.TextField(db_default="")),
                ("status", models.TextField(db_default="queued")),
                ("progress", models.PositiveSmallIntegerField(db_default=0)),
                ("error", models.TextField(db_default="")),
                ("total_return", orders.fields.DecimalField(null=True)),
                ("final_equity", orders.fields.DecimalField(null=True)),
                ("win_rate", orders.fields.DecimalField(null=True, sign="not_negative")),
                ("profit_factor", orders.fields.DecimalField(null=True, sign="not_negative")),
                ("sharpe_ratio", orders.fields.DecimalField(null=True)),
                ("max_drawdown", orders.fields.DecimalField(null=True, sign="not_negative")),
                ("total_trades", models.PositiveIntegerField(null=True)),
                ("metrics", models.JSONField(null=True)),
                ("equity_curve", models.JSONField(null=True)),
                ("signals", models.JSONField(null=True)),
                ("bars", models.PositiveBigIntegerField(null=True)),
                ("rejected_bars", models.PositiveBigIntegerField(null=True)),
                ("data_report", models.JSONField(null=True)),
                ("seconds", models.JSONField(null=True)),
                ("created_by", models.TextField(db_default="")),
                ("created_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("started_at", orders.fields.UtcDateTimeField(null=True)),
                ("finished_at", orders.fields.UtcDateTimeField(null=True)),
            ],
            options={
                "db_table": "backtest_run",
                "indexes": [
                    models.Index(fields=["status"], name="ix_backtest_run_status"),
                    models.Index(fields=["sweep_id"], name="ix_backtest_run_sweep"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["queued", "running", "done", "failed"])),
                        name="backtest_run_status_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("progress__lte", 100)), name="backtest_run_progress_percent"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("end_date__gte", models.F("start_date"))),
                        name="backtest_run_dates_in_order",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BacktestTrade",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField(db_default="")),
                ("correlation_id", models.TextField(db_default="")),
                ("symbol", models.TextField()),
                ("side", models.TextField()),
                ("qty", orders.fields.DecimalField(sign="positive")),
                ("entry_price", orders.fields.DecimalField(sign="positive")),
                ("exit_price", orders.fields.DecimalField(sign="positive")),
                ("entry_at", orders.fields.UtcDateTimeField()),
                ("exit_at", orders.fields.UtcDateTimeField()),
                ("pnl", orders.fields.DecimalField()),
                ("pnl_pct", orders.fields.DecimalField()),
                ("strategy", models.TextField(db_default="")),
                ("duration_seconds", models.PositiveBigIntegerField()),
                ("commission", orders.fields.DecimalField(db_default=0)),
                ("exit_reason", models.TextField()),
                ("initial_stop_price", orders.fields.DecimalField(null=True)),
                ("planned_risk", orders.fields.DecimalField(null=True, sign="not_negative")),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="trades",
                        to="backtests.backtestrun",
                    ),
                ),
            ],
            options={
                "db_table": "backtest_trade",
                "indexes": [models.Index(fields=["run"], name="ix_backtest_trade_run")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("side__in", ["long", "short"])), name="backtest_trade_side_known"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("exit_reason", ""), _negated=True),
                        name="backtest_trade_exit_reason_not_empty",
                    ),
                ],
            },
        ),
    ]
