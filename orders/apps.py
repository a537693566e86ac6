"""Django's entry for this app."""

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = "Orders and trades"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Has the triggers of the append-only tables made after every migrate, and checked by `check --database`."""
        from orders.guards import check_triggers, make_triggers_after_migrate

        post_migrate.connect(make_triggers_after_migrate, sender=self)
        register(check_triggers, Tags.database)
