from django.db import migrations, models

import orders.guards


class Migration(migrations.Migration):
    dependencies = [("trading", "0002_position_cover")]

    operations = [
        orders.guards.ForwardOnly(),
        migrations.AddField(
            model_name="enginelease",
            name="meters",
            field=models.TextField(db_default=""),
        ),
    ]
