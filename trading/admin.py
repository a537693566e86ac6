"""The engine's tables in Django's admin, to be read."""

from django.contrib import admin

from orders.admin import ReadOnlyAdmin
from trading.models import Activity, Decision, EngineLease, EngineRun, OperatorRequest


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
