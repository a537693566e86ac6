"""The pages. What they show comes from the stores; what they do goes through the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from backtests import store as backtest_store
from dashboard import store
from dashboard.api import current_snapshot
from orders import store as order_store
from orders.api import TradeOut
from orders.portfolio import Trade
from orders.store import RecordedTrade
from trading import store as trading_store
from trading.api import current_account, start_of, trades_as_csv
from trading.settings import strategy_parameters

ZERO = Decimal(0)
ROWS = 50


@require_safe
@login_required
def desk(request: HttpRequest) -> HttpResponse:
    """The dashboard. The page is complete at once; from then on the WebSocket keeps it up to date."""
    config = store.effective_config()
    parameters = strategy_parameters(config, config["strategies"][0])
    return render(
        request,
        "dashboard/desk.html",
        {
            "title": "Dashboard",
            "section": "dashboard",
            "mode": store.shown_mode(),
            "symbol": request.GET.get("symbol", "").upper()[:8],
            "snapshot": current_snapshot(),
            "settings": {
                "sma_fast": parameters["sma_fast"],
                "sma_slow": parameters["sma_slow"],
                "interval_minutes": parameters["candle_interval_minutes"],
            },
        },
    )


@require_safe
@login_required
def orders(request: HttpRequest) -> HttpResponse:
    """All orders, newest first, in pages; or those that came of one signal."""
    account_id, signal = current_account(), _uuid(request, "signal")
    symbol, page = _symbol(request), _page_number(request)
    unfinished_only = request.GET.get("show") == "working"
    if signal:
        found = order_store.orders_by_correlation(account_id, signal)
    else:
        found = order_store.recent_orders(
            account_id, symbol=symbol, unfinished_only=unfinished_only, limit=ROWS + 1, offset=(page - 1) * ROWS
        )
    return _list(
        request,
        "orders",
        {
            "orders": found[:ROWS],
            "symbol": symbol,
            "signal": signal,
            "unfinished_only": unfinished_only,
            "first_row": (page - 1) * ROWS + 1,
            "last_row": (page - 1) * ROWS + len(found[:ROWS]),
            "earlier": _with_page(request, page + 1) if len(found) > ROWS else "",
            "later": _with_page(request, page - 1) if page > 1 else "",
        },
    )


@require_safe
@login_required
def order(request: HttpRequest, local_id: UUID) -> HttpResponse:
    """One order, everything that happened to it, and the other orders of its signal."""
    account_id = current_account()
    shown = order_store.find_order(account_id, str(local_id))
    if shown is None:
        raise Http404(f"There is no order {local_id} on this account.")
    others = order_store.orders_by_correlation(account_id, shown.correlation_id)
    return _page(
        request,
        "dashboard/order.html",
        "orders",
        {
            "title": f"{shown.symbol} {shown.role.replace('_', ' ')}",
            "order": shown,
            "events": order_store.events_of(account_id, str(local_id)),
            "others": [other for other in others if other.local_id != shown.local_id],
            "decisions": trading_store.decisions(account_id, correlation_id=shown.correlation_id),
        },
    )


@require_safe
@login_required
def trades(request: HttpRequest) -> HttpResponse:
    """The ledger of completed trades with its sums, in pages."""
    asked = _TradeFilter.of(request)
    found = asked.trades()
    page = Paginator(found, ROWS).get_page(request.GET.get("page"))
    return _list(
        request,
        "trades",
        {
            "trades": page.object_list,
            "summary": _summary([each.trade for each in found]),
            "filter": asked,
            "csv_query": _query(request, without="page"),
            "first_row": page.start_index(),
            "last_row": page.end_index(),
            "rows": len(found),
            "earlier": _with_page(request, page.next_page_number()) if page.has_next() else "",
            "later": _with_page(request, page.previous_page_number()) if page.has_previous() else "",
        },
    )


@require_safe
@login_required
def trades_csv(request: HttpRequest) -> HttpResponse:
    """The trades that the page shows, all of them, as CSV."""
    return trades_as_csv([TradeOut.of(each) for each in _TradeFilter.of(request).trades()])


@require_safe
@login_required
def backtests(request: HttpRequest) -> HttpResponse:
    """All backtests, newest first, in pages."""
    page = _page_number(request)
    found = backtest_store.runs(limit=ROWS + 1, offset=(page - 1) * ROWS)
    return _list(
        request,
        "backtests",
        {
            "runs": found[:ROWS],
            "no_metrics": dict.fromkeys(backtest_store.METRIC_COLUMNS),
            "first_row": (page - 1) * ROWS + 1,
            "last_row": (page - 1) * ROWS + len(found[:ROWS]),
            "earlier": _with_page(request, page + 1) if len(found) > ROWS else "",
            "later": _with_page(request, page - 1) if page > 1 else "",
        },
    )


@require_safe
@login_required
def backtest(request: HttpRequest, run_id: int) -> HttpResponse:
    """One backtest: its figures, equity curve and trades."""
    run = backtest_store.find(run_id)
    if run is None:
        raise Http404(f"There is no backtest {run_id}.")
    page = Paginator(backtest_store.trades_of(run_id), ROWS).get_page(request.GET.get("page"))
    return _page(
        request,
        "dashboard/backtest.html",
        "backtests",
        {
            "title": f"Backtest {run_id}",
            "run": run,
            "comparable": backtest_store.comparable(run_id) if run.metrics else [],
            "final_equity": Decimal(run.metrics["final_equity"]) if run.metrics else None,
            "trades": page.object_list,
            "rows": page.paginator.count,
            "first_row": page.start_index(),
            "last_row": page.end_index(),
            "earlier": _with_page(request, page.next_page_number()) if page.has_next() else "",
            "later": _with_page(request, page.previous_page_number()) if page.has_previous() else "",
        },
    )


class SignIn(LoginView):
    """The login page; on a new installation it says how to make the first login."""

    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Adds whether anybody could sign in at all."""
        return super().get_context_data(no_user_yet=not get_user_model().objects.exists(), **kwargs)


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _TradeFilter:
    """Which trades are asked for. Dates are New York days of the exit, both included."""

    symbol: str
    start_date: date | None
    end_date: date | None

    @classmethod
    def of(cls, request: HttpRequest) -> "_TradeFilter":
        return cls(symbol=_symbol(request), start_date=_date(request, "from"), end_date=_date(request, "to"))

    @property
    def is_set(self) -> bool:
        return bool(self.symbol or self.start_date or self.end_date)

    def trades(self) -> Sequence[RecordedTrade]:
        return order_store.recent_trades(
            current_account(),
            symbol=self.symbol,
            since=start_of(self.start_date) if self.start_date else None,
            until=start_of(self.end_date + timedelta(days=1)) if self.end_date else None,
            limit=None,
        )


def _summary(found: Sequence[Trade]) -> dict[str, Any]:
    wins = [trade.pnl for trade in found if trade.pnl > 0]
    losses = [trade.pnl for trade in found if trade.pnl < 0]
    return {
        "trades": len(found),
        "pnl": sum((trade.pnl for trade in found), ZERO) if found else None,
        "win_rate": len(wins) / len(found) if found else None,
        "average_win": sum(wins, ZERO) / len(wins) if wins else None,
        "average_loss": sum(losses, ZERO) / len(losses) if losses else None,
        "profit_factor": sum(wins, ZERO) / -sum(losses, ZERO) if losses else None,
    }


def _list(request: HttpRequest, section: str, context: dict[str, Any]) -> HttpResponse:
    """The page of a list; htmx, which follows filters and page links, gets the results alone."""
    template = f"dashboard/{section}_results.html" if getattr(request, "htmx", False) else f"dashboard/{section}.html"
    return _page(request, template, section, {"title": section.capitalize(), **context})


def _page(request: HttpRequest, template: str, section: str, context: dict[str, Any]) -> HttpResponse:
    return render(request, template, {"section": section, "mode": store.shown_mode(), **context})


def _symbol(request: HttpRequest) -> str:
    return request.GET.get("symbol", "").strip().upper()


def _date(request: HttpRequest, name: str) -> date | None:
    try:
        return date.fromisoformat(request.GET.get(name, ""))
    except ValueError:
        return None


def _uuid(request: HttpRequest, name: str) -> str:
    try:
        return str(UUID(request.GET.get(name, "")))
    except ValueError:
        return ""


def _page_number(request: HttpRequest) -> int:
    text = request.GET.get("page", "")
    return max(1, int(text)) if text.isdecimal() and len(text) < 7 else 1


def _with_page(request: HttpRequest, number: int) -> str:
    query = request.GET.copy()
    query["page"] = str(number)
    return f"?{query.urlencode()}"


def _query(request: HttpRequest, *, without: str) -> str:
    query = request.GET.copy()
    query.pop(without, None)
    return query.urlencode()
