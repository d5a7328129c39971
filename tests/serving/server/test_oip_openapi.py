"""The OpenAPI document against the server that publishes it: schemathesis asks what the document allows, and more."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import Mock

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from serving.server.oip import rest
from serving.server.oip.codec import DTYPES

from .artifacts import images
from .processes import ServerProcess

DOCUMENT = rest.OPENAPI
OPERATIONS = {
    operation.label: operation
    for operation in (each.ok() for each in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
}
CASES = [(label, GenerationMode.POSITIVE) for label in OPERATIONS]
CASES += [(label, GenerationMode.NEGATIVE) for label, operation in OPERATIONS.items() if operation.body]


def test_the_document_has_every_route_and_every_datatype() -> None:
    routes = rest.routes(Mock(), repository_control=False)
    known = {"model": "m", "version": "1"}
    documented = {
        (method.upper(), path.format(**known))
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    served = {
        (route.method, path) for route in routes for _, path in documented if re.fullmatch(route.path, path)
    }
    assert served == documented
    for route in routes:
        assert "docs" in route.path or any(re.fullmatch(route.path, path) for _, path in documented)
    assert DOCUMENT["components"]["schemas"]["Datatype"]["enum"] == list(DTYPES)


@pytest.mark.slow
@pytest.mark.parametrize(("label", "mode"), CASES)
def test_every_answer_is_as_documented(controlled: ServerProcess, label: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[label]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def answered_as_documented(case: Any) -> None:
        if label.endswith("/infer"):  # Of a model that is there, else no body is read.
            case.path_parameters = {"model": "fashion", "version": "1"}
        checks = [status_code_conformance, response_schema_conformance]
        case.call_and_validate(base_url=f"http://{controlled.http}", checks=checks)

    answered_as_documented()
    assert controlled.call("GET", "/v2/health/ready").status == 200


def test_every_get_and_inference_answer_by_the_document(controlled: ServerProcess) -> None:
    assert (
        controlled.call("GET", "/v2/docs").json()
        == controlled.call("GET", "/v2/openapi.json").json()
        == DOCUMENT
    )
    given = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": images(1).tolist()}
    for path, item in DOCUMENT["paths"].items():
        for method in item.keys() & {"get", "post"}:
            body = {"inputs": [given]} if path.endswith("infer") else None
            answer = controlled.call(method.upper(), path.format(model="fashion", version="1"), body)
            assert answer.status == 200, (path, answer.body)
    assert controlled.call("POST", "/v2/repository/models/fashion/load").status == 200
