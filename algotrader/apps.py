"""Installed apps of others, without what only a process that serves pages needs: a command would wait for it."""

from collections.abc import Sequence
from typing import Any

from axes.apps import AppConfig as AxesConfig
from django.apps import AppConfig
from django.contrib.admin import autodiscover
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core.checks import CheckMessage, Tags, register

from algotrader.without import without

with without("prometheus_client"):  # django-q counts nothing with it unless it is told to by its environment
    import django_q.conf  # noqa: F401


class Daphne(AppConfig):
    """Daphne with its `runserver`; its own entry loads the server, and with it Twisted, at once."""

    name = "daphne"


class Axes(AxesConfig):  # type: ignore[misc]  # it comes without types
    """Axes, which counts failed logins, under a name that says so."""

    verbose_name = "Sign-ins"


class Admin(SimpleAdminConfig):
    """Django's admin with our site; what is registered there is loaded with the addresses (`urls.py`)."""

    default_site = "algotrader.admin_site.DeskAdminSite"

    def ready(self) -> None:
        """Has the same checked as Django's own entry does."""
        register(check_dependencies, Tags.admin)
        register(_check_registered, Tags.admin)


def _check_registered(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    autodiscover()
    return check_admin_app(app_configs, **kwargs)
