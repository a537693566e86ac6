from django.db import migrations, models

import orders.fields
import orders.guards


class Migration(migrations.Migration):
    dependencies = [
        ("trading", "0003_enginelease_meters"),
    ]

    operations = [
        orders.guards.ForwardOnly(),
        migrations.CreateModel(
            name="NotificationChannel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.TextField(unique=True)),
                ("url", models.TextField()),
                ("events", models.JSONField(default=list)),
                ("is_enabled", models.BooleanField(db_default=True, default=True)),
                ("sent", models.PositiveIntegerField(db_default=0, default=0)),
                ("failed", models.PositiveIntegerField(db_default=0, default=0)),
                ("last_sent_at", orders.fields.UtcDateTimeField(null=True)),
                ("last_error", models.TextField(blank=True, db_default="", default="")),
            ],
            options={
                "db_table": "notification_channel",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name", ""), _negated=True), name="notification_channel_name_not_empty"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("url", ""), _negated=True), name="notification_channel_url_not_empty"
                    ),
                ],
            },
        ),
    ]
