"""The pages. What they show comes from the stores; what they do goes through the API."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from backtests import store as backtest_store
from backtests.breakdown import by_exit_reason, by_symbol
from backtests.metrics import Metrics
from backtests.outcome import metrics_of, scenarios_of, signals_document
from backtests.scenarios import range_of
from dashboard import flight, pages, store
from dashboard.api import current_snapshot
from orders import store as order_store
from orders.api import TradeOut
from orders.lifecycle import Order, OrderState, Role
from orders.portfolio import Trade
from orders.store import RecordedTrade
from risk.roles import Role as Trust
from risk.roles import role_of
from trading import store as trading_store
from trading.api import current_account, start_of, trades_as_csv
from trading.settings import strategy_parameters
from trading.strategy import Strategy

ZERO = Decimal(0)
LONGEST_NOTE = 2000
EXIT_REASONS = ("stop_loss", "trailing_stop", "max_run", "end_of_day", "end_of_data", "manual")
RESULTS = ("winners", "losers")
METRICS = [field.name for field in fields(Metrics)]  # an older version may have saved fewer


@require_safe
@login_required
def desk(request: HttpRequest) -> HttpResponse:
    """The dashboard. The page is complete at once; from then on the WebSocket keeps it up to date."""
    config = store.effective_config()
    parameters = strategy_parameters(config, config["strategies"][0])
    return _page(
        request,
        "dashboard/desk.html",
        "dashboard",
        {
            "title": "Dashboard",
            "symbol": request.GET.get("symbol", "").upper()[:8],
            "snapshot": current_snapshot(),
            "is_new": not order_store.recent_orders(current_account(), limit=1),
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
    symbol, role, state = _symbol(request), _one_of(request, "role", Role), _one_of(request, "state", OrderState)
    start_date, end_date = _date(request, "from"), _date(request, "to")
    unfinished_only = request.GET.get("show") == "working"

    def newest(limit: int, offset: int) -> Sequence[Order]:
        return order_store.recent_orders(
            account_id,
            symbol=symbol,
            role=role,
            state=state,
            since=start_of(start_date) if start_date else None,
            until=start_of(end_date + timedelta(days=1)) if end_date else None,
            unfinished_only=unfinished_only,
            limit=limit,
            offset=offset,
        )

    if signal:
        found = pages.part_of(request, order_store.orders_by_correlation(account_id, signal))
    else:
        found = pages.part(request, newest)
    return _list(
        request,
        "orders",
        {
            "orders": found.rows,
            "part": found,
            "symbol": symbol,
            "signal": signal,
            "unfinished_only": unfinished_only,
            "roles": list(Role),
            "states": list(OrderState),
            "asked": {"role": role, "state": state, "from": start_date, "to": end_date},
            "is_filtered": bool(symbol or role or state or start_date or end_date or unfinished_only),
        },
    )


@require_safe
@login_required
def order(request: HttpRequest, local_id: UUID) -> HttpResponse:
    """One order's flight recorder: why, what was checked, what was sent, what came back, and what became of it."""
    account_id = current_account()
    shown = order_store.find_order(account_id, str(local_id))
    if shown is None:
        raise Http404(f"There is no order {local_id} on this account.")
    events = order_store.events_of(account_id, str(local_id))
    return _page(
        request,
        "dashboard/order.html",
        "orders",
        {
            "title": f"{shown.symbol} {shown.role.replace('_', ' ')}",
            "order": shown,
            "steps": flight.steps(events),
            "submission_ms": flight.submission_ms(events),
            "moves": flight.stop_moves(events),
            "family": order_store.orders_by_correlation(account_id, shown.correlation_id),
            "decisions": flight.signals(trading_store.decisions(account_id, correlation_id=shown.correlation_id)),
            "trades": order_store.trades_by_correlation(account_id, shown.correlation_id),
        },
    )


@require_safe
@login_required
def trades(request: HttpRequest) -> HttpResponse:
    """The ledger of completed trades with its sums, in pages."""
    asked = _TradeFilter.of(request)
    found = asked.trades()
    shown = pages.part_of(request, found)
    return _list(
        request,
        "trades",
        {
            "trades": shown.rows,
            "part": shown,
            "summary": _summary([each.trade for each in found]),
            "filter": asked,
            "strategies": sorted(Strategy.registry),
            "reasons": EXIT_REASONS,
            "csv_query": _query(request, without="page"),
        },
    )


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def trade(request: HttpRequest, trade_id: UUID) -> HttpResponse:
    """One trade on its chart, with its orders and what people noted; a POST adds a note."""
    if request.method == "POST" and role_of(request.user) < Trust.TRADER:
        raise PermissionDenied("Only traders may write notes.")
    account_id = current_account()
    shown = order_store.find_trade(account_id, str(trade_id))
    if shown is None:
        raise Http404(f"There is no trade {trade_id} on this account.")
    error = ""
    if request.method == "POST":
        note = request.POST.get("note", "").strip()
        if 0 < len(note) <= LONGEST_NOTE:
            order_store.add_note(shown.trade_id, note)
            return redirect("trade", trade_id=trade_id)
        error = f"A note has from 1 to {LONGEST_NOTE} characters; this one has {len(note)}."
    chart = flight.trade_chart(account_id, shown)
    trade = shown.trade
    return _page(
        request,
        "dashboard/trade.html",
        "trades",
        {
            "title": f"{trade.symbol} {trade.side}",
            "each": shown,
            "trade": trade,
            "chart": chart,
            "excursions": flight.excursions(trade, chart["candles"]),
            "multiple": trade.pnl / trade.planned_risk if trade.planned_risk else None,
            "family": order_store.orders_by_correlation(account_id, trade.correlation_id),
            "error": error,
            "longest_note": LONGEST_NOTE,
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
    found = pages.part(request, lambda limit, offset: backtest_store.runs(limit=limit, offset=offset))
    context = {
        "runs": found.rows,
        "part": found,
        "no_metrics": dict.fromkeys(backtest_store.METRIC_COLUMNS),
    }
    return _list(request, "backtests", context)


@require_safe
@login_required
def backtest(request: HttpRequest, run_id: int) -> HttpResponse:
    """One backtest: its figures, equity curve and trades."""
    run = backtest_store.find(run_id)
    if run is None:
        raise Http404(f"There is no backtest {run_id}.")
    trades = backtest_store.trades_of(run_id)
    made = pages.part_of(request, trades)
    metrics = dict.fromkeys(METRICS) | metrics_of(run.metrics) if run.metrics else {}
    return _page(
        request,
        "dashboard/backtest.html",
        "backtests",
        {
            "title": f"Backtest {run_id}",
            "run": run,
            "comparable": backtest_store.comparable(run_id) if metrics else [],
            "metrics": metrics,
            "range": range_of(
                scenarios_of(run.scenarios or ()),
                total_return=metrics.get("total_return") or 0.0,
                slippage_per_share=Decimal(str(run.params.get("backtest.slippage_per_share", ZERO))),
            ),
            "signals": signals_document(run.signals or {}),
            "symbols": by_symbol(trades, run.symbols),
            "reasons": by_exit_reason(trades),
            "trades": made.rows,
            "part": made,
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
    strategy: str
    exit_reason: str
    result: str

    @classmethod
    def of(cls, request: HttpRequest) -> "_TradeFilter":
        return cls(
            symbol=_symbol(request),
            start_date=_date(request, "from"),
            end_date=_date(request, "to"),
            strategy=_text(request, "strategy"),
            exit_reason=_one_of(request, "reason", EXIT_REASONS),
            result=_one_of(request, "result", RESULTS),
        )

    @property
    def is_set(self) -> bool:
        return bool(self.symbol or self.start_date or self.end_date or self.strategy or self.exit_reason or self.result)

    def trades(self) -> Sequence[RecordedTrade]:
        found = self._recorded()
        if not self.result:
            return found
        wins = self.result == "winners"
        return [each for each in found if each.trade.pnl and (each.trade.pnl > 0) == wins]

    def _recorded(self) -> Sequence[RecordedTrade]:
        return order_store.recent_trades(
            current_account(),
            symbol=self.symbol,
            strategy=self.strategy,
            exit_reason=self.exit_reason,
            since=start_of(self.start_date) if self.start_date else None,
            until=start_of(self.end_date + timedelta(days=1)) if self.end_date else None,
            limit=None,
        )


def _summary(found: Sequence[Trade]) -> dict[str, Any]:
    wins = [trade.pnl for trade in found if trade.pnl > 0]
    losses = [trade.pnl for trade in found if trade.pnl < 0]
    multiples = [trade.pnl / trade.planned_risk for trade in found if trade.planned_risk]
    return {
        "trades": len(found),
        "pnl": sum((trade.pnl for trade in found), ZERO) if found else None,
        "win_rate": len(wins) / len(found) if found else None,
        "average_win": sum(wins, ZERO) / len(wins) if wins else None,
        "average_loss": sum(losses, ZERO) / len(losses) if losses else None,
        "average_multiple": sum(multiples, ZERO) / len(multiples) if multiples else None,
        "profit_factor": sum(wins, ZERO) / -sum(losses, ZERO) if losses else None,
    }


def _list(request: HttpRequest, section: str, context: dict[str, Any]) -> HttpResponse:
    """The page of a list; htmx, which follows filters and page links, gets the results alone."""
    template = f"dashboard/{section}_results.html" if getattr(request, "htmx", False) else f"dashboard/{section}.html"
    return _page(request, template, section, {"title": section.capitalize(), **context})


def _page(request: HttpRequest, template: str, section: str, context: dict[str, Any]) -> HttpResponse:
    return pages.show(request, template, section=section, context=context)


def _symbol(request: HttpRequest) -> str:
    return _text(request, "symbol").strip().upper()


def _text(request: HttpRequest, name: str) -> str:
    return request.GET.get(name, "").replace("\0", "")  # which PostgreSQL takes in no text


def _one_of(request: HttpRequest, name: str, allowed: Iterable[str]) -> str:
    """What is asked for, if there is such a thing."""
    asked = request.GET.get(name, "")
    return asked if asked in list(allowed) else ""


def _date(request: HttpRequest, name: str) -> date | None:
    try:
        day = date.fromisoformat(request.GET.get(name, ""))
    except ValueError:
        return None
    return day if 1900 < day.year < 2200 else None


def _uuid(request: HttpRequest, name: str) -> str:
    try:
        return str(UUID(request.GET.get(name, "")))
    except ValueError:
        return ""


def _query(request: HttpRequest, *, without: str) -> str:
    query = request.GET.copy()
    query.pop(without, None)
    return query.urlencode()
