"""The API does what its OpenAPI document says: no server error, and no status, header or body that is not described."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from openapi_schema_validator import OAS31Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from algotrader.api import api
from risk import tokens
from risk.roles import Role

EXAMPLES = 10
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection,
]  # fmt: skip
DOCUMENT = json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/"), default=str))
DJANGO = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The product, whose document can be read here without a login."""
    if environ["PATH_INFO"] == "/document":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(DOCUMENT).encode()]
    answer: Iterable[bytes] = DJANGO(environ, start_response)
    return answer


def operations() -> Iterator[Any]:
    described = schemathesis.openapi.from_wsgi("/document", application)
    for found in described.get_all_operations():
        operation: Any = found
        yield operation.ok()


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_an_operation_answers_as_described(lease: str, operation: Any, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {tokens.make(name='script', role=Role.ADMIN, seconds=600)}"}
    if mode is GenerationMode.NEGATIVE and not (operation.query or operation.path_parameters or operation.body):
        pytest.skip("it takes nothing that could be wrong")

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    answers()


def test_every_operation_says_what_it_does_and_what_can_go_wrong() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], path
            assert operation["tags"], path
            statuses = set(operation["responses"])
            assert path.startswith("/api/health") or "401" in statuses
            assert method == "get" or "403" in statuses


def test_the_examples_fit_their_schemas() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    with_example = {name: schema for name, schema in schemas.items() if "example" in schema}
    assert {"OrderOut", "TradeOut", "Asked", "RunIn", "RunOut", "SettingOut", "Problem", "Snapshot"} <= set(
        with_example
    )
    for name, schema in with_example.items():
        validator = OAS31Validator({**schema, "components": DOCUMENT["components"]})
        assert [error.message for error in validator.iter_errors(schema["example"])] == [], name
