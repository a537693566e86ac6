"""What all pages share: the frame around them, and lists that are shown in parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from dashboard import store

ROWS = 50
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage(Generic[Row]):
    """Some of a list's rows, newest first; `earlier` and `later` are the addresses of its neighbours, or empty."""

    rows: Sequence[Row]
    first_row: int
    total: int | None
    earlier: str
    later: str

    @property
    def last_row(self) -> int:
        """The number of the last row, from 1."""
        return self.first_row + len(self.rows) - 1


def part(request: HttpRequest, find: Callable[[int, int], Sequence[Row]], *, total: int | None = None) -> ListPage[Row]:
    """The part of a list that the address asks for, the first if it has no such part; `find` takes limit and offset."""
    page = max(1, number(request.GET.get("page", "")) or 1)
    found = find(ROWS + 1, (page - 1) * ROWS)
    if not found and page > 1:
        page, found = 1, find(ROWS + 1, 0)
    return ListPage(
        rows=found[:ROWS],
        first_row=(page - 1) * ROWS + 1,
        total=total,
        earlier=_with_page(request, page + 1) if len(found) > ROWS else "",
        later=_with_page(request, page - 1) if page > 1 else "",
    )


def part_of(request: HttpRequest, rows: Sequence[Row]) -> ListPage[Row]:
    """As `part`, of rows that are all at hand."""
    return part(request, lambda limit, offset: rows[offset : offset + limit], total=len(rows))


def show(
    request: HttpRequest, template: str, *, section: str, context: Mapping[str, Any], status: int = 200
) -> HttpResponse:
    """The page, in the frame that tells the section of the navigation and the market that is traded."""
    return render(request, template, {"section": section, "mode": store.shown_mode(), **context}, status=status)


def show_progress(request: HttpRequest, template: str, context: Mapping[str, Any], *, is_over: bool) -> HttpResponse:
    """How far something is; when it is over, the page is told to load itself again."""
    response = render(request, template, dict(context))
    if is_over:
        response["HX-Refresh"] = "true"
    return response


def number(text: str) -> int | None:
    """A whole number of an address; None if it is none, or a larger one than any row has."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _with_page(request: HttpRequest, page: int) -> str:
    query = request.GET.copy()
    query["page"] = str(page)
    return f"?{query.urlencode()}"
