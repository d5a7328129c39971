"""The OpenAPI document against the server that publishes it: schemathesis asks what the document allows, and more."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from serving.server.protocols.oip_openapi import openapi

from .artifacts import images
from .processes import ServerProcess

OPERATIONS = {
    operation.label: operation
    for operation in (each.ok() for each in schemathesis.openapi.from_dict(openapi()).get_all_operations())
}


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_documented(oip: ServerProcess, label: str) -> None:
    checks = [status_code_conformance, response_schema_conformance]

    operation = OPERATIONS[label]

    def ask(mode: GenerationMode) -> None:
        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def answered_as_documented(case: Any) -> None:
            if label.endswith("/infer"):  # Of a model that is there, else no body is read.
                case.path_parameters = {"model": "fashion", "version": "1"}
            case.call_and_validate(base_url=f"http://{oip.http}", checks=checks)

        answered_as_documented()

    ask(GenerationMode.POSITIVE)
    if operation.body:
        ask(GenerationMode.NEGATIVE)
    assert oip.call("GET", "/v2/health/ready").status == 200


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
