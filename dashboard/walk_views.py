"""Pages that list, watch and show walk-forwards."""

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from backtests import walkforward_store
from dashboard import pages


@require_safe
@login_required
def walks(request: HttpRequest) -> HttpResponse:
    """All walk-forwards, newest first, in pages."""
    found = pages.part(request, lambda limit, offset: walkforward_store.walks(limit=limit, offset=offset))
    context = {"title": "Walk-forward", "walks": found.rows, "part": found}
    return pages.show(request, "dashboard/walks.html", section="backtests", context=context)


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
    return pages.show(request, "dashboard/walk.html", section="backtests", context=context)


@require_safe
@login_required
def walk_progress(request: HttpRequest, walk_id: int) -> HttpResponse:
    """How far it is; when it is over, the page is told to load itself again."""
    row = _found(walk_id)
    is_over = row.status in ("done", "failed")
    return pages.show_progress(request, "dashboard/walk_progress.html", {"run": row}, is_over=is_over)


def _found(walk_id: int) -> walkforward_store.WalkRow:
    row = walkforward_store.find(walk_id)
    if row is None:
        raise Http404(f"There is no walk-forward {walk_id}.")
    return row
