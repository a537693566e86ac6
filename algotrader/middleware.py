"""What every request and answer goes through: an id in the log lines, and headers that keep pages to our own files."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

REQUEST_ID = "X-Request-ID"
USABLE = re.compile(r"[A-Za-z0-9-]{8,64}")
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # the API's pages have their icons inside their style sheet
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Around(ABC):
    """Django's middleware, in a thread and in the event loop alike."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    @abstractmethod
    def around(self, request: HttpRequest) -> AbstractContextManager[Mapping[str, str]]:
        """Holds while the request is answered; gives the headers of the answer, where a view has not set its own."""

    def __call__(self, request: HttpRequest) -> Any:
        """The answer, or in the event loop a promise of it."""
        if iscoroutinefunction(self._get_response):
            return self._answer(request)
        with self.around(request) as headers:
            return _with_headers(self._get_response(request), headers)

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        with self.around(request) as headers:
            return _with_headers(await self._get_response(request), headers)


class RequestId(_Around):
    """Every line logged while a request is answered has its `request_id`, which the answer's header repeats."""

    @contextmanager
    def around(self, request: HttpRequest) -> Iterator[Mapping[str, str]]:
        """The id is that of the proxy in front, if it fits into a log line, else a new one."""
        given = request.headers.get(REQUEST_ID, "")
        request_id = given if USABLE.fullmatch(given) else str(uuid4())
        with bound_contextvars(request_id=request_id):
            yield {REQUEST_ID: request_id}


class SecurityHeaders(_Around):
    """Adds the headers that Django's own SecurityMiddleware does not know."""

    @contextmanager
    def around(self, request: HttpRequest) -> Iterator[Mapping[str, str]]:
        """They are the same for every request."""
        yield HEADERS


def _with_headers(response: HttpResponse, headers: Mapping[str, str]) -> HttpResponse:
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    return response
