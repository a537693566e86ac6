"""Django's entry for this app."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class DashboardConfig(AppConfig):
    name = "dashboard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Has the groups made after every migrate, once the last of our apps with tables has its permissions."""
        from risk.roles import make_groups_after_migrate

        post_migrate.connect(make_groups_after_migrate, sender=apps.get_app_config("backtests"))
