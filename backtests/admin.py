"""Backtests in Django's admin, to be read."""

from django.contrib import admin

from backtests.models import (
    BacktestRun,
    BacktestSweep,
    BacktestSweepChunk,
    BacktestSweepPoint,
    BacktestTrade,
    BacktestWalkForward,
)
from orders.admin import ReadOnlyAdmin


@admin.register(BacktestRun)
class BacktestRunAdmin(ReadOnlyAdmin):
    """Backtests, asked for, running and done."""

    list_display = (
        "id", "created_at", "strategy", "symbols", "start_date", "end_date", "status", "progress", "total_return",
        "sharpe_ratio", "total_trades",
    )  # fmt: skip
    list_filter = ("status", "strategy")


@admin.register(BacktestTrade)
class BacktestTradeAdmin(ReadOnlyAdmin):
    """Trades of all backtests."""

    list_display = ("run", "symbol", "side", "qty", "entry_price", "exit_price", "entry_at", "exit_at", "pnl")
    list_filter = ("side", "exit_reason")
    list_select_related = ("run",)
    search_fields = ("symbol",)


@admin.register(BacktestSweep)
class BacktestSweepAdmin(ReadOnlyAdmin):
    """Sweeps, running and done."""

    list_display = ("id", "created_at", "strategy", "symbols", "start_date", "end_date", "points", "status")
    list_filter = ("status", "strategy")


@admin.register(BacktestSweepChunk)
class BacktestSweepChunkAdmin(ReadOnlyAdmin):
    """What the workers of a sweep take at a time, and until when they have it."""

    list_display = ("sweep", "first", "end", "status", "attempts", "lease_until")
    list_filter = ("status",)
    list_select_related = ("sweep",)


@admin.register(BacktestSweepPoint)
class BacktestSweepPointAdmin(ReadOnlyAdmin):
    """Results of all sweeps, by point."""

    list_display = ("sweep", "number", "params", "error", "seconds", "worker", "finished_at")
    list_select_related = ("sweep",)


@admin.register(BacktestWalkForward)
class BacktestWalkForwardAdmin(ReadOnlyAdmin):
    """Walk-forwards asked for in the browser."""

    list_display = ("id", "created_at", "strategy", "symbols", "train_sessions", "test_sessions", "status", "progress")
    list_filter = ("status", "strategy")
