"""Django's entry for this app."""

from django.apps import AppConfig


class TradingConfig(AppConfig):
    name = "trading"
    verbose_name = "Engine"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Has the exchange's sessions kept in the data folder, and lets the settings page ask for symbols.

        Kept sessions need not be computed by every command.
        """
        from django.conf import settings

        from risk.symbols import know
        from trading.live import assets, calendar

        know(assets.not_tradable)
        calendar.keep_in(settings.DATA_DIR / "calendar")
