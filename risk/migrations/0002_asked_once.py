from django.db import migrations, models

import orders.fields
import orders.guards


class Migration(migrations.Migration):
    dependencies = [("risk", "0001_initial")]

    operations = [
        orders.guards.ForwardOnly(),
        migrations.CreateModel(
            name="AskedOnce",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("asked_by", models.TextField()),
                ("key", models.TextField()),
                ("fingerprint", models.TextField()),
                ("answer_id", models.BigIntegerField()),
                ("asked_at", orders.fields.UtcDateTimeField(default=orders.fields.utc_now)),
            ],
            options={
                "db_table": "asked_once",
                "constraints": [models.UniqueConstraint(fields=("asked_by", "key"), name="asked_once_by_key")],
            },
        ),
    ]
