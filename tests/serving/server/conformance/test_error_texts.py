"""The texts of errors that clients match, each by a telling fragment; statuses are tested elsewhere.

From http_rest_api_handler_test.cc, json_tensor.cc and its test, server_core.cc, get_model_status_impl.cc.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..processes import ServerProcess, assert_matches
from .clients import SECONDS, Grpc, code_and_details, floats, predict, predict_request
from .test_grpc_inference import multi, request_for


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error: Invalid value"),
        (b'{"instances": [1.0]} x', "JSON Parse error"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": ["x", "y"]}', "not of expected type: float"),
        (b'{"instances": [16777217]}', "without loss of precision"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"instances": 1.0}', "'instances' to be an list/array"),
        (b'{"instances": [{"wrong": 1.0}]}', "key: wrong .*JSON object: does not have named input: wrong"),
        (b'{"instances": [[1.0, 2.0], [3.0]]}', "Expecting tensor size: 2 but got: 1"),
        (b'{"instances": [[1.0], [[2.0]]]}', r"Expecting shape \[1\] but got: \[1,1\]"),
        (b'{"inputs": [[1.0], 2.0]}', "found at incorrect level: 2 in the JSON DOM"),
        (b'{"instances": [1.0], "inputs": [1.0]}', "Not formatted correctly expecting only one of 'inputs'"),
        (b'{"inputs": {"wrong": [1.0]}}', "Missing named input: x"),
        (b'{"signature_name": 100}', "'signature_name' key must be a string value"),
        (b'{"signature_name": "wrong", "instances": [1.0]}', '"wrong" not found in signature def'),
    ],
)
def test_predict(server: ServerProcess, body: bytes, fragment: str) -> None:
    """http_rest_api_handler_test.cc, PredictRequestErrors; json_tensor_test.cc."""
    assert_matches(fragment, predict(server, "half_plus", body).error)


@pytest.mark.parametrize(
    ("method", "path", "fragment"),
    [
        ("GET", "/v1/models", "Missing model name"),
        ("GET", "/v1/models/half_plus:predict", "Malformed request: GET /v1/models/half_plus:predict"),
        ("POST", "/v1/foo", "Malformed request: POST /v1/foo"),
        ("POST", f"/v1/models/half_plus/versions/{2**64 - 1}:predict", "Failed to convert version"),
        ("POST", "/v1/models/foo:predict", r"Servable not found for request: Latest\(foo\)"),
        (
            "POST",
            "/v1/models/half_plus/versions/99:predict",
            r"Servable not found for request: Specific\(half_plus, 99\)",
        ),
        ("POST", "/v1/models/half_plus/labels/wrong:predict", "Unrecognized servable version label: wrong"),
        ("GET", "/v1/models/foo", "Could not find any versions of model foo"),
        ("GET", "/v1/models/half_plus/versions/99", "Could not find version 99 of model half_plus"),
        ("GET", "/v1/models/foo/metadata", r"Servable not found for request: Latest\(foo\)"),
    ],
)
def test_paths(server: ServerProcess, method: str, path: str, fragment: str) -> None:
    """http_rest_api_handler_test.cc, UnsupportedApiCalls; server_core.cc; get_model_status_impl.cc."""
    body = b'{"instances": [1.0]}' if method == "POST" else None
    assert_matches(fragment, server.call(method, path, body).error)


X = floats([1])


def filtered(name: str) -> Any:
    request = predict_request("half_plus", x=X)
    request.output_filter.append(name)
    return request


def labelled(model: str) -> Any:
    request = predict_request(model, x=X)
    request.model_spec.version_label = "wrong"
    return request


@pytest.mark.parametrize(
    ("request_of_kind", "fragment"),
    [
        (lambda: ("Predict", predict_request("foo", x=X)), r"Servable not found for request: Latest\(foo\)"),
        (
            lambda: ("Predict", predict_request("half_plus", "wrong", x=X)),
            'Serving signature key "wrong" not found',
        ),
        (lambda: ("Predict", predict_request("half_plus")), "input size does not match signature"),
        (
            lambda: ("Predict", predict_request("half_plus", y=X)),
            "input tensor alias not found in signature: y",
        ),
        (
            lambda: ("Predict", filtered("wrong")),
            r"output tensor alias not found in signature: wrong Outputs expected to be in the set \{y\}",
        ),
        (lambda: ("Predict", labelled("half_plus")), "Unrecognized servable version label: wrong"),
        (lambda: ("Predict", labelled("foo")), "Unrecognized servable version label: wrong"),
        (lambda: ("Classify", request_for("Classify", "classify_x_to_y")), "Input is empty"),
        (lambda: ("Regress", request_for("Regress", "regress_x_to_y")), "Input is empty"),
        (lambda: ("MultiInference", multi("regress_wrong")), "signature not found"),
        (lambda: ("MultiInference", multi(*["regress_x_to_y"] * 2)), "Duplicate evaluation of signature"),
        (
            lambda: ("MultiInference", multi("regress_x_to_y", "regress_x2_to_y3")),
            "Input tensor must be the same",
        ),
        (lambda: ("MultiInference", multi("predict_x")), "signature"),
    ],
)
def test_grpc(grpc_client: Grpc, request_of_kind: Any, fragment: str) -> None:
    """basic_manager.cc, predict_util.cc, util.cc, multi_inference_test.cc."""
    kind, request = request_of_kind()
    assert_matches(fragment, code_and_details(getattr(grpc_client.predictions, kind), request, SECONDS)[1])
