"""Django's entry for this app."""

from django.apps import AppConfig


class RiskConfig(AppConfig):
    name = "risk"
    verbose_name = "Risk and settings"
    default_auto_field = "django.db.models.BigAutoField"
