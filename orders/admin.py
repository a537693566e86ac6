"""The ledger in Django's admin: to be read, with notes on trades as the only thing to write."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.forms import ModelForm
from django.http import HttpRequest

from orders.fields import DecimalField
from orders.models import OrderEvent, OrderState, Trade, TradeNote

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, TabularInline = admin.ModelAdmin, admin.TabularInline


class ReadOnlyAdmin(ModelAdmin):
    """Shows a table; nobody can add, change or delete a row. Decimals are not sorted: SQLite would sort their text."""

    show_full_result_count = False
    list_per_page = 50
    ordering = ("-pk",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        decimals = {field.name for field in self.model._meta.get_fields() if isinstance(field, DecimalField)}
        return [name for name in self.get_list_display(request) if name not in decimals]


class EventInline(TabularInline):
    """What happened to an order, on its page."""

    model = OrderEvent
    verbose_name_plural = "events"
    fields = (
        "version", "event_type", "old_state", "new_state", "qty_filled", "fill_price", "stop_price", "broker_id",
        "execution_id", "detail", "recorded_at", "recorded_real_at",
    )  # fmt: skip
    readonly_fields = fields
    ordering = ("version",)
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class NoteInline(TabularInline):
    """Notes on a trade, on its page."""

    model = TradeNote
    fields = ("note", "created_at", "updated_at")
    readonly_fields = ("created_at", "updated_at")
    extra = 1


@admin.register(OrderState)
class OrderStateAdmin(ReadOnlyAdmin):
    """Orders as they are now, each with its events."""

    list_display = (
        "created_at", "symbol", "side", "role", "order_type", "qty_requested", "qty_filled", "stop_price",
        "avg_fill_price", "state", "account_id",
    )  # fmt: skip
    list_filter = ("state", "role", "side", "account_id")
    search_fields = ("symbol", "local_id", "correlation_id", "broker_id")
    inlines = (EventInline,)


@admin.register(OrderEvent)
class OrderEventAdmin(ReadOnlyAdmin):
    """Everything that happened to any order."""

    list_display = ("recorded_at", "event_type", "order_local", "old_state", "new_state", "qty_filled", "fill_price")
    list_filter = ("event_type", "account_id")
    list_select_related = ("order_local",)
    search_fields = ("order_local__symbol", "order_local__local_id", "broker_id", "execution_id")


@admin.register(Trade)
class TradeAdmin(ReadOnlyAdmin):
    """Completed round trips, with notes."""

    list_display = (
        "exit_at", "symbol", "side", "qty", "entry_price", "exit_price", "pnl", "pnl_pct", "exit_reason", "strategy",
        "account_id",
    )  # fmt: skip
    list_filter = ("side", "exit_reason", "strategy", "account_id")
    search_fields = ("symbol", "trade_id", "correlation_id")
    inlines = (NoteInline,)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """The notes on the trade's page are saved with it; its own fields cannot be edited."""
        return request.user.has_perm("orders.change_tradenote")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [field.name for field in Trade._meta.concrete_fields]

    def save_model(self, request: HttpRequest, obj: Model, form: "ModelForm[Any]", change: bool) -> None:
        """Saves no trade, only its notes: the database would refuse it."""
