"""Static files in the event loop: WhiteNoise as it is, but asynchronous like its neighbours."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise comes without types
    """Answers for static files and hands all else on.

    A middleware that cannot be asynchronous costs every request a thread of its own, and WhiteNoise streams in a way
    that Django must collect first, with a warning. Our files are small: each goes out in one piece.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        response = super().__call__(request)
        if iscoroutinefunction(self) and isinstance(response, HttpResponse):
            return _at_once(response)
        return response

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        """The whole answer for one file, or the part of it that was asked for."""
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file:
                content = found.file.read()
        response = HttpResponse(content, status=found.status)
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response


def _at_once(response: HttpResponse) -> Awaitable[HttpResponse]:
    async def answer() -> HttpResponse:
        return response

    return answer()
