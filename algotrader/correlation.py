"""Ties the log lines of one web request together, and to what the proxy in front logged of it."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

HEADER = "X-Request-ID"
USABLE = re.compile(r"[A-Za-z0-9-]{8,64}")


class RequestId:
    """Every line logged while a request is answered has its `request_id`, which the answer's header repeats."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """The answer, or in the event loop a promise of it."""
        request_id = _request_id(request)
        if iscoroutinefunction(self._get_response):
            return self._answer(request, request_id)
        with bound_contextvars(request_id=request_id):
            response: HttpResponse = self._get_response(request)
        response[HEADER] = request_id
        return response

    async def _answer(self, request: HttpRequest, request_id: str) -> HttpResponse:
        with bound_contextvars(request_id=request_id):
            response: HttpResponse = await self._get_response(request)
        response[HEADER] = request_id
        return response


def _request_id(request: HttpRequest) -> str:
    """The proxy's, if it fits into a log line, else a new one."""
    given = request.headers.get(HEADER, "")
    return given if USABLE.fullmatch(given) else str(uuid4())
