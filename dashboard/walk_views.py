"""Pages that list, watch and show walk-forwards."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from backtests import walkforward_store
from dashboard import store

ROWS = 50


@require_safe
@login_required
def walks(request: HttpRequest) -> HttpResponse:
    """All walk-forwards, newest first, in pages."""
    text = request.GET.get("page", "")
    page = max(int(text), 1) if text.isdecimal() and len(text) < 10 else 1
    found = walkforward_store.walks(limit=ROWS + 1, offset=(page - 1) * ROWS)
    context = {
        "title": "Walk-forward",
        "walks": found[:ROWS],
        "first_row": (page - 1) * ROWS + 1,
        "last_row": (page - 1) * ROWS + len(found[:ROWS]),
        "earlier": f"?page={page + 1}" if len(found) > ROWS else "",
        "later": f"?page={page - 1}" if page > 1 else "",
    }
    return _page(request, "dashboard/walks.html", context)


@require_safe
@login_required
def walk(request: HttpRequest, walk_id: int) -> HttpResponse:
    """One walk-forward: what was chosen on which sessions, and what it came to on those after them."""
    row = _found(walk_id)
    tested = [window["metrics"] for window in (row.result or {}).get("windows", ()) if window["metrics"]]
    context = {
        "title": f"Walk-forward {walk_id}",
        "run": row,
        "result": row.result,
        "winning": sum(metrics["total_return"] > 0 for metrics in tested),
        "trades": sum(metrics["total_trades"] for metrics in tested),
    }
    return _page(request, "dashboard/walk.html", context)


@require_safe
@login_required
def walk_progress(request: HttpRequest, walk_id: int) -> HttpResponse:
    """How far it is; when it is over, the page is told to load itself again."""
    row = _found(walk_id)
    response = render(request, "dashboard/walk_progress.html", {"run": row})
    if row.status in ("done", "failed"):
        response["HX-Refresh"] = "true"
    return response


def _found(walk_id: int) -> walkforward_store.WalkRow:
    row = walkforward_store.find(walk_id)
    if row is None:
        raise Http404(f"There is no walk-forward {walk_id}.")
    return row


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    return render(request, template, {"section": "backtests", "mode": store.shown_mode(), **context})
