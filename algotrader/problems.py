"""What the API answers when it does not do what was asked: a problem of RFC 9457, described like all else."""

from collections.abc import Sequence
from typing import Any

import structlog
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError, ValidationError
from pydantic import BaseModel, ConfigDict

log = structlog.get_logger("api")

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be understood",
    401: "A login or a bearer token is needed",
    403: "This login or token may not do this",
    404: "There is no such thing",
    409: "This cannot be done now",
    422: "The values do not fit",
    500: "Something failed here",
    503: "Not now",
}
SAFE_METHODS = ("get", "head")
KEY_HEADER = "Idempotency-Key"  # refused when it was used for something else


class BadValue(Schema):
    """One value of a request that does not fit."""

    where: str
    message: str


class Problem(Schema):
    """RFC 9457. `detail` says what to do about it; `errors` names the values of the request that do not fit."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank", "title": TITLES[409], "status": 409,
                "detail": "No engine is running, so nothing was done.", "errors": [],
            }
        }
    )  # fmt: skip

    type: str
    title: str
    status: int
    detail: str
    errors: list[BadValue]


class ProblemAPI(NinjaAPI):
    """An API whose every failure is a problem, in its answers and in its description."""

    def __init__(self, *, shapes: Sequence[type[BaseModel]] = (), **options: Any) -> None:
        """`shapes` are described besides the schemas of the operations, which may refer to them."""
        super().__init__(**options)
        self._shapes: tuple[type[BaseModel], ...] = (Problem, *shapes)
        handlers: dict[type[Exception], Any] = {
            HttpError: lambda request, error: problem(error.status_code, str(error)),
            Http404: lambda request, error: problem(404, str(error)),
            ValidationError: lambda request, error: _values_do_not_fit(error),
            OperationalError: _not_now,
            Exception: _failed,
        }
        for kind, handler in handlers.items():
            self.add_exception_handler(kind, handler)

    def get_openapi_schema(self, **options: Any) -> Any:
        """The description, with the problems that each operation may answer."""
        described: Any = super().get_openapi_schema(**options)
        schemas = described["components"].setdefault("schemas", {})
        for shape in self._shapes:
            schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**schema.pop("$defs", {}), shape.__name__: schema}
        for operations in described["paths"].values():
            for method, operation in operations.items():
                _add_problems(method, operation)
        return described


def problem(status: int, detail: str, errors: list[dict[str, str]] | None = None) -> HttpResponse:
    """The answer that says so."""
    title = TITLES.get(status, "The request was not carried out")
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": errors or []}
    return JsonResponse(content, status=status, content_type=MEDIA_TYPE)


def _values_do_not_fit(error: ValidationError) -> HttpResponse:
    """422 for a body, 400 for an address."""
    errors = [
        {"where": ".".join(str(part) for part in each["loc"]), "message": str(each["msg"])} for each in error.errors
    ]
    status = 422 if any(each["loc"][0] == "body" for each in error.errors) else 400
    return problem(status, "; ".join(f"{each['where']}: {each['message']}" for each in errors), errors)


def _not_now(request: HttpRequest, error: OperationalError) -> HttpResponse:
    log.error("api.database", method=request.method, path=request.path, reason=str(error))
    return problem(503, "The database does not answer; try again in a moment.")


def _failed(request: HttpRequest, error: Exception) -> HttpResponse:
    log.error("api.failed", method=request.method, path=request.path, exc_info=error)
    return problem(500, "The log says what.")


def _add_problems(method: str, operation: dict[str, Any]) -> None:
    """What can go wrong follows from what the operation takes."""
    statuses: set[int] = {status for status in operation["responses"] if int(status) >= 400}
    if "security" in operation:
        statuses.add(401)
        if method not in SAFE_METHODS:
            statuses.add(403)
    if operation["parameters"] or "requestBody" in operation:
        statuses.add(400)
    if "requestBody" in operation or any(parameter["name"] == KEY_HEADER for parameter in operation["parameters"]):
        statuses.add(422)
    if any(parameter["in"] == "path" for parameter in operation["parameters"]):
        statuses.add(404)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    operation["responses"] |= {status: {"description": TITLES[status], "content": content} for status in statuses}
