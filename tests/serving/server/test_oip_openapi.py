"""The OpenAPI document against the server that publishes it: schemathesis asks what the document allows, and more."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from .artifacts import images
from .processes import ServerProcess


@pytest.fixture(scope="module")
def document(oip: ServerProcess) -> Any:
    return schemathesis.openapi.from_url(f"http://{oip.http}/v2/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case: Any) -> None:
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    if "/unload" not in case.path or case.path_parameters.get("model") != "fashion":
        case.call_and_validate(checks=checks)


def test_the_document_names_what_the_server_answers(oip: ServerProcess) -> None:
    document = oip.call("GET", "/v2/docs").json()
    assert document == oip.call("GET", "/v2/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    given = {"name": "image", "datatype": "FP32", "shape": [1, 28, 28, 1], "data": images(1).tolist()}
    known = {"model": "fashion", "version": "1"}
    for path, item in document["paths"].items():
        if path.endswith("load"):
            continue
        for method in ("get", "post"):
            if method in item:
                body = {"inputs": [given]} if path.endswith("infer") else None
                answer = oip.call(method.upper(), path.format(**known), body)
                assert answer.status == 200, (path, answer.body)
