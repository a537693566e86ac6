from django.db import migrations, models

import orders.guards


class Migration(migrations.Migration):
    dependencies = [
        ("backtests", "0002_sweep"),
    ]

    operations = [
        orders.guards.ForwardOnly(),
        migrations.AddField(
            model_name="backtestrun",
            name="scenarios",
            field=models.JSONField(null=True),
        ),
    ]
