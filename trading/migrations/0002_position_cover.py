from django.db import migrations, models

import orders.fields
from orders.guards import ForwardOnly


class Migration(migrations.Migration):
    dependencies = [
        ("trading", "0001_initial"),
    ]

    operations = [
        ForwardOnly(),
        migrations.CreateModel(
            name="PositionCover",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account_id", models.TextField()),
                ("run_id", models.BigIntegerField(null=True)),
                ("recorded_real_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
                ("recorded_at", orders.fields.UtcDateTimeField()),
                ("symbol", models.TextField()),
                ("correlation_id", models.TextField()),
                ("naked_seconds", orders.fields.DecimalField(sign="not_negative")),
                ("longest_seconds", orders.fields.DecimalField(sign="not_negative")),
                ("most_dollars", orders.fields.DecimalField(sign="not_negative")),
                ("stretches", models.PositiveIntegerField()),
            ],
            options={
                "db_table": "position_cover",
                "indexes": [models.Index(fields=["account_id", "-id"], name="ix_position_cover_account")],
            },
        ),
    ]
