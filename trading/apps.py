"""Django's entry for this app."""

from django.apps import AppConfig


class TradingConfig(AppConfig):
    name = "trading"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Has the exchange's sessions kept in the data folder, so that a command need not compute them first."""
        from django.conf import settings

        from trading.live import calendar

        calendar.keep_in(settings.DATA_DIR / "calendar")
