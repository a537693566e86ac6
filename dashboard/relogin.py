"""What becomes of a page whose login has ended while it was open."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django_htmx.http import HttpResponseClientRedirect


@sync_and_async_middleware
def htmx_to_login(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Sends the whole page to the login, and back to where it was; htmx would put the login into a part of it."""
    if iscoroutinefunction(get_response):

        async def answer_later(request: HttpRequest) -> HttpResponse:
            return _for_the_page(request, await get_response(request))

        return answer_later

    def answer(request: HttpRequest) -> HttpResponse:
        return _for_the_page(request, get_response(request))

    return answer


def _for_the_page(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    asked_by = getattr(request, "htmx", None)
    if not asked_by or not response.headers.get("Location", "").startswith(f"{settings.LOGIN_URL}?"):
        return response
    return HttpResponseClientRedirect(redirect_to_login(asked_by.current_url_abs_path or "/").url)
