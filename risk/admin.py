"""The settings page, and the tables of risk to be read, in Django's admin."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from orders.admin import ReadOnlyAdmin
from orders.fields import utc_now
from risk import store
from risk.config import SETTINGS, Config, ConfigError, Kind, Setting, as_text, mask, parse
from risk.danger import Danger, applies, dangers
from risk.models import AskedOnce, SettingsChange, SettingsOverride, TradingSession
from risk.symbols import CannotTell, not_tradable

RESET = "reset"
CONFIRMED = "confirmed"
OTHER_FIELDS = frozenset({"csrfmiddlewaretoken", RESET, CONFIRMED})
GROUPS = {
    "watchlist": "What is watched",
    "risk": "Limits",
    "velez": "Strategies",
    "opening_range": "Strategies",
    "log_level": "Log",
}
EDITABLE = tuple(setting for setting in SETTINGS if setting.ui)


class SettingField(forms.CharField):
    """One setting, checked by the same bounds as everywhere else; its value is text."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(label=setting.key, help_text=setting.help, widget=_widget(setting), required=False)
        self.setting = setting

    def clean(self, value: Any) -> str:
        try:
            return as_text(parse(self.setting.key, value or ""))
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error


class SettingsForm(forms.Form):
    """All settings that can be changed while the engine runs, and nothing else."""

    def __init__(self, data: Mapping[str, Any] | None = None, *, config: Config) -> None:
        super().__init__(data, initial={setting.key: as_text(config[setting.key]) for setting in EDITABLE})
        self.fields = {setting.key: SettingField(setting) for setting in EDITABLE}

    def clean(self) -> dict[str, Any]:
        if unknown := sorted(set(self.data) - set(self.fields) - OTHER_FIELDS):
            raise forms.ValidationError(f"not a setting of this page: {', '.join(unknown)}")
        return self.cleaned_data


@admin.register(SettingsOverride)
class SettingsAdmin(ReadOnlyAdmin):
    """One page with every setting: its value, where it comes from, its bounds; what the page allows can be changed."""

    def get_urls(self) -> list[URLPattern]:
        """The page alone: there are no rows to add, change or delete one by one."""
        return [path("", self.admin_site.admin_view(self.changelist_view), name="risk_settingsoverride_changelist")]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("risk.change_settingsoverride")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Shows the page; a POST changes settings, or takes one override back."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        config = _effective(request)
        form = SettingsForm(config=config)
        asked: list[Danger] = []
        if request.method == "POST":
            if not self.has_change_permission(request):
                raise PermissionDenied
            if RESET not in request.POST:
                form = SettingsForm(request.POST, config=config)
                _refuse_symbols(request, form, config)
            asked = [] if CONFIRMED in request.POST else _dangers(request, form, config)
            if not asked and _saved(request, form, config):
                return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "title": "Settings",
            "opts": self.model._meta,
            "form": form,
            "asked": asked,
            "reset": request.POST.get(RESET, ""),
            "groups": _groups(_rows(form, config)),
            "fixed": [_described(setting, config) for setting in SETTINGS if not setting.ui],
            "changes": store.changes(limit=20),
            "can_change": self.has_change_permission(request),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/risk/settingsoverride/change_list.html", context)


@admin.register(SettingsChange)
class SettingsChangeAdmin(ReadOnlyAdmin):
    """Who changed which setting."""

    list_display = ("changed_at", "key", "old_value", "new_value", "changed_by")
    list_filter = ("key",)


@admin.register(TradingSession)
class TradingSessionAdmin(ReadOnlyAdmin):
    """Start equity, breaker and halt of every session."""

    list_display = ("date", "account_id", "start_equity", "breaker", "tripped_at", "halted")
    list_filter = ("breaker", "halted", "account_id")


def _dangers(request: HttpRequest, form: SettingsForm, config: Config) -> list[Danger]:
    """What is dangerous about the change that is asked for."""
    key = request.POST.get(RESET, "")
    try:
        after = {key: as_text(settings.ALGO[key])} if key else _changed(form, config)
        return dangers(config, config.with_overrides(after), list(after))
    except ConfigError:
        return []  # saving says what is wrong


def _changed(form: SettingsForm, config: Config) -> dict[str, str]:
    if not form.is_valid():
        return {}
    return {key: text for key, text in form.cleaned_data.items() if text != as_text(config[key])}


def _refuse_symbols(request: HttpRequest, form: SettingsForm, config: Config) -> None:
    """Refuses symbols that are new on the watchlist and that the broker does not trade."""
    if not form.is_valid():
        return
    added = [symbol for symbol in form.cleaned_data["watchlist"].split(",") if symbol not in config["watchlist"]]
    try:
        if unknown := not_tradable(added):
            form.add_error("watchlist", f"The broker does not trade {', '.join(unknown)}.")
    except CannotTell as problem:
        messages.warning(request, f"{', '.join(added)} could not be checked: {problem}.")


def _saved(request: HttpRequest, form: SettingsForm, config: Config) -> bool:
    """Whether what was asked for could be done; if not, the form says why."""
    by, now = request.user.get_username(), utc_now()
    key = request.POST.get(RESET)
    try:
        if key:
            store.reset_override(key, by=by, real_at=now)
            messages.success(request, f"{key} is what the environment says again.")
            return True
        if not form.is_valid():
            return False
        changed = _changed(form, config)
        with transaction.atomic():
            for key, text in changed.items():
                store.set_override(key, text, by=by, config=settings.ALGO, real_at=now)
    except ConfigError as error:
        messages.error(request, str(error))
        return False
    messages.success(request, f"Changed: {', '.join(changed)}." if changed else "Nothing was changed.")
    return True


def _effective(request: HttpRequest) -> Config:
    """The settings in force; without the overrides if one of these does not fit, so that it can be taken back here."""
    try:
        return store.effective(settings.ALGO)
    except ConfigError as error:
        messages.error(request, f"An override cannot be used, so none is shown: {error}")
        base: Config = settings.ALGO
        return base


def _groups(rows: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows under the first part of their keys."""
    return [(name, list(group)) for name, group in groupby(rows, key=lambda row: GROUPS.get(row["section"], "Other"))]


def _rows(form: SettingsForm, config: Config) -> list[dict[str, Any]]:
    overridden, latest = store.overrides(), store.latest_changes()
    return [
        {
            **_described(setting, config),
            "section": setting.key.partition(".")[0],
            "applies": applies(setting.key),
            "latest": latest.get(setting.key),
            "field": form[setting.key],
            "fallback": as_text(settings.ALGO[setting.key]),
            "is_override": setting.key in overridden,
        }
        for setting in EDITABLE
    ]


def _described(setting: Setting, config: Config) -> dict[str, Any]:
    return {
        "key": setting.key,
        "anchor": quote(setting.key),
        "value": mask(setting, config[setting.key]),
        "source": config.source(setting.key),
        "default": setting.default,
        "bounds": setting.bounds,
        "help": setting.help,
        "variable": setting.variable,
    }


def _widget(setting: Setting) -> forms.Widget:
    if setting.kind is Kind.FLAG:
        return forms.Select(choices=[("true", "true"), ("false", "false")])
    if setting.choices:
        return forms.Select(choices=[(choice, choice) for choice in setting.choices])
    if setting.kind in (Kind.INTEGER, Kind.DECIMAL):
        step = "1" if setting.kind is Kind.INTEGER else "any"
        limits = {"min": setting.minimum, "max": setting.maximum, "step": step}
        return forms.NumberInput(attrs={name: str(value) for name, value in limits.items() if value is not None})
    return forms.TextInput(attrs={"size": 60})


@admin.register(AskedOnce)
class AskedOnceAdmin(ReadOnlyAdmin):
    """What was asked of the API under an idempotency key, in the last day."""

    list_display = ("asked_at", "asked_by", "key", "answer_id")
    search_fields = ("asked_by", "key")
