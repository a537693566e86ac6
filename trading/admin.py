"""The engine's tables in Django's admin, to be read, and the channels through which people are told things."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from orders.admin import ReadOnlyAdmin
from orders.fields import utc_now
from trading import notification_store
from trading.live import notifier
from trading.models import (
    Activity,
    Decision,
    EngineLease,
    EngineRun,
    NotificationChannel,
    OperatorRequest,
    PositionCover,
)
from trading.notices import KINDS, Notice

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[NotificationChannel]
else:
    ModelForm = forms.ModelForm

TEST = Notice(kind="test", title="algo-trader: test", text="This channel works.")


@admin.register(Activity)
class ActivityAdmin(ReadOnlyAdmin):
    """The activity feed."""

    list_display = ("recorded_at", "type", "level", "symbol", "message", "account_id")
    list_filter = ("type", "level", "account_id")
    search_fields = ("symbol", "message", "correlation_id")


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    """Signals with their conditions and risk checks."""

    list_display = (
        "recorded_at", "symbol", "strategy", "side", "qty", "entry_price", "stop_price", "refused_by", "account_id",
    )  # fmt: skip
    list_filter = ("refused_by", "strategy", "side", "account_id")
    search_fields = ("symbol", "correlation_id")


@admin.register(EngineRun)
class EngineRunAdmin(ReadOnlyAdmin):
    """Starts of the engine."""

    list_display = ("id", "started_at", "ended_at", "outcome", "reason", "account_mode", "account_id")
    list_filter = ("outcome", "account_mode", "account_id")


@admin.register(EngineLease)
class EngineLeaseAdmin(ReadOnlyAdmin):
    """The engine that runs now."""

    list_display = ("host", "pid", "port", "state", "account_id", "started_at", "heartbeat_at")
    exclude = ("token",)  # whoever has it can speak for the engine


@admin.register(OperatorRequest)
class OperatorRequestAdmin(ReadOnlyAdmin):
    """What the engine was asked to do."""

    list_display = ("created_at", "kind", "requested_by", "claimed_at", "done_at", "error", "account_id")
    list_filter = ("kind", "account_id")
    exclude = ("lease_token",)


@admin.register(PositionCover)
class PositionCoverAdmin(ReadOnlyAdmin):
    """How long closed positions were without full stop cover."""

    list_display = ("recorded_at", "symbol", "naked_seconds", "longest_seconds", "most_dollars", "account_id")
    list_filter = ("account_id",)


class ChannelForm(ModelForm):
    """A new channel. Its address is typed once and never shown again."""

    url = forms.CharField(
        label="Address",
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "size": 60}),
        help_text="As Apprise writes them: mailto://, tgram://, slack://, discord://, json://...",
    )
    name = forms.CharField(max_length=60)
    events = forms.MultipleChoiceField(
        choices=list(KINDS.items()), widget=forms.CheckboxSelectMultiple, initial=list(KINDS), required=False
    )

    class Meta:
        model = NotificationChannel
        fields = ("name", "url", "events")

    def clean_url(self) -> str:
        """Refuses what Apprise does not understand, without repeating it."""
        import apprise  # a hundred services: only here

        url: str = self.cleaned_data["url"].strip()
        if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
            raise forms.ValidationError("Apprise does not understand this address: see its list of services.")
        return url


@admin.register(NotificationChannel)
class NotificationChannelAdmin(ReadOnlyAdmin):
    """One page: who is told what, as a matrix of channels and events, with a test for each."""

    def get_urls(self) -> list[URLPattern]:
        """The page alone."""
        name = "trading_notificationchannel_changelist"
        return [path("", self.admin_site.admin_view(self.changelist_view), name=name)]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("trading.change_notificationchannel")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Shows the matrix; a POST saves it, adds a channel, removes one, or tries one."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        form = ChannelForm()
        if request.method == "POST":
            if not self.has_change_permission(request):
                raise PermissionDenied
            if "add" in request.POST:
                form = ChannelForm(request.POST)
            if _changed(request, form):
                return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "title": "Notifications",
            "opts": self.model._meta,
            "channels": notification_store.channels(),
            "kinds": KINDS,
            "form": form,
            "can_change": self.has_change_permission(request),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/trading/notificationchannel/change_list.html", context)


def _changed(request: HttpRequest, form: ChannelForm) -> bool:
    """Does what the button says; False if the form of a new channel has errors."""
    if "add" in request.POST:
        if not form.is_valid():
            return False
        form.save()
        messages.success(request, f"Added {form.cleaned_data['name']}. Try it before you rely on it.")
    elif "test" in request.POST:
        _try_out(request)
    elif "remove" in request.POST:
        NotificationChannel.objects.filter(id=_id(request.POST["remove"])).delete()
        messages.success(request, "Removed.")
    else:
        for row in NotificationChannel.objects.all():
            wanted = request.POST.getlist(f"events-{row.pk}")
            row.events = [kind for kind in KINDS if kind in wanted]
            row.is_enabled = f"enabled-{row.pk}" in request.POST
            row.save(update_fields=["events", "is_enabled"])
        messages.success(request, "Saved. It holds from the next event on.")
    return True


def _try_out(request: HttpRequest) -> None:
    channel = notification_store.find_channel(_id(request.POST["test"]))
    if channel is None:
        messages.error(request, "There is no such channel any more.")
        return
    error = notifier.send(channel, TEST)
    notification_store.note_outcome(channel.id, error=error, real_at=utc_now())
    if error:
        messages.error(request, f"{channel.name} was not told: {error}.")
    else:
        messages.success(request, f"{channel.name} was told: look whether it arrived.")


def _id(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
