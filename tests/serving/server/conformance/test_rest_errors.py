"""What REST refuses, with which status: model_servers/http_server.cc, http_rest_api_handler_test.cc, json_tensor.cc."""

from __future__ import annotations

import json

import pytest

from ..processes import ServerProcess
from .clients import predict, value

ROWS = json.dumps({"instances": [1.0]}).encode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/half_plus:predict"),
        ("GET", "/v1/models/half_plus/version/1:predict"),
        ("POST", "/v1/models/half_plus/version/1:regress"),
        ("POST", "/v1/models/half_plus/versions/HELLO:regress"),
        ("POST", "/v1/models/half_plus/metadata"),
        ("POST", "/v1/models/half_plus/label/some_label:regress"),
        ("POST", "/v1/models/half_plus/versions/1/labels/some_label:regress"),
        ("POST", "/v1/models/half_plus/versions/some_label:regress"),
        ("POST", "/v1/models/half_plus"),
        ("POST", "/v1/models/half_plus:explain"),
        ("POST", "/v1/models/half_plus/versions/-1:predict"),
        ("POST", "/v1/models/half_plus:predict/"),
        ("GET", "/v1/models/half_plus/"),
        ("GET", "/v1/models/half_plus/metadata/"),
        ("PUT", "/v1/models/half_plus:predict"),
        ("DELETE", "/v1/models/half_plus"),
    ],
)
def test_paths_that_are_no_call(server: ServerProcess, method: str, path: str) -> None:
    """http_rest_api_handler_test.cc, UnsupportedApiCalls, and others that its expressions do not match: 400."""
    answer = server.call(method, path, ROWS if method in ("POST", "PUT") else None)
    assert answer.status == 400, answer.body
    assert answer.headers["Content-Type"] == "application/json"


def test_names_are_decoded_after_the_path_is_divided(server: ServerProcess) -> None:
    """http_rest_api_util_test.cc, TestParseModelInfoForPost: reserved characters in names of models and labels."""
    answer = server.call("POST", "/v1/models/a%2Fb%3Ac%3F/labels/x%2Fy:predict", ROWS)
    assert answer.status == 400
    assert answer.error == "Unrecognized servable version label: x/y"
    answer = server.call("GET", "/v1/models/a%2Fb%3Ac%3F%40%5B%5D")
    assert answer.status == 404
    assert answer.error == "Could not find any versions of model a/b:c?@[]"


def test_status_without_a_model(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, UnsupportedApiCalls: GET /v1/models."""
    answer = server.call("GET", "/v1/models")
    assert answer.status == 400


def test_a_version_that_is_too_large_a_number(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, UnsupportedApiCalls: the largest uint64 as version."""
    for method, verb in (("POST", ":predict"), ("POST", ":regress"), ("GET", ""), ("GET", "/metadata")):
        answer = server.call(
            method, f"/v1/models/half_plus/versions/{2**64 - 1}{verb}", ROWS if verb[:1] == ":" else None
        )
        assert answer.status == 400, answer.body


@pytest.mark.parametrize(
    "path", ["/", "/statuspage", "/index", "/v1", "/v2/health/ready", "/v10/models/half_plus"]
)
def test_paths_outside_of_the_api(server: ServerProcess, path: str) -> None:
    """http_rest_api_handler_test.cc, kPathRegex; evhttp_server.cc answers 404 to what no handler takes."""
    assert server.call("GET", path).status == 404


@pytest.mark.parametrize("where", ["", "/versions/50"])
@pytest.mark.parametrize("verb", ["predict", "classify", "regress"])
def test_models_that_are_not_there(server: ServerProcess, where: str, verb: str) -> None:
    """http_rest_api_handler_test.cc, PredictModelNameVersionErrors: 404, "Servable not found"."""
    body = ROWS if verb == "predict" else b'{"examples": [{"x": 1.0}]}'
    answer = server.call("POST", f"/v1/models/foo{where}:{verb}", body)
    assert answer.status == 404, answer.body


def test_versions_that_are_not_there(server: ServerProcess) -> None:
    """core/basic_manager.cc: NotFound, Specific(model, version)."""
    answer = predict(server, "half_plus", ROWS, "/versions/99")
    assert answer.status == 404


def test_labels_that_are_not_there(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, PredictRequestErrors: 400."""
    answer = predict(server, "half_plus", ROWS, "/labels/nonexistent")
    assert answer.status == 400


def test_the_body_is_read_before_the_model_is_looked_up(server: ServerProcess) -> None:
    """json_tensor.cc, FillPredictRequestFromJson parses first: bad JSON for an unknown model is 400."""
    assert predict(server, "foo", b"{").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"instances = [1, 2]",
        b"{",
        b'{"instances": [1,]}',
        b'{"instances": [1]} {}',
        b'{"instances": [1]} trailing',
        b"{'instances': [1]}",
        b'{"instances": [01]}',
        b'{"instances": [1.]}',
        b'// c\n{"instances": [1]}',
        b"[1.0]",
        b'"text"',
        b"null",
        b"{}",
        b'{"examples": [{"x": 1.0}]}',
        b'{"instances": [1.0], "inputs": [1.0]}',
        b'{"instances": 1.0}',
        b'{"instances": {"x": 1.0}}',
        b'{"instances": null}',
        b'{"instances": []}',
        b'{"signature_name": 100, "instances": [1.0]}',
        b'{"signature_name": 100}',
        b'{"signature_name": null, "instances": [1.0]}',
        b'{"instances": ["x", "y"]}',
        b'{"instances": [1.0, [2.0]]}',
        b'{"instances": [[1.0], 2.0]}',
        b'{"instances": [[1.0, 2.0], [3.0]]}',
        b'{"instances": [[1.0], [[2.0]]]}',
        b'{"instances": [{"x": 1.0}, 2.0]}',
        b'{"instances": [1.0, {"x": 1.0}]}',
        b'{"instances": [{"wrong": 1.0}]}',
        b'{"instances": [{"x": 1.0, "more": 2}]}',
        b'{"instances": [{}]}',
        b'{"inputs": {"wrong": [1.0]}}',
        b'{"inputs": {}}',
        b'{"inputs": [[1.0], [2.0, 3.0]]}',
        b'{"inputs": [1.0, [2.0]]}',
        b'{"inputs": [[1.0], 2.0]}',
        b'{"inputs": null}',
    ],
)
def test_bodies_that_are_no_predict(server: ServerProcess, body: bytes) -> None:
    """http_rest_api_handler_test.cc, PredictRequestErrors; json_tensor_test.cc: 400, and the next request is served."""
    answer = predict(server, "half_plus", body)
    assert answer.status == 400, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.error
    assert value(server, "half_plus", {"instances": [2.0]}) == [4.0]


def test_rows_of_several_inputs_must_have_every_one(server: ServerProcess) -> None:
    """json_tensor.cc, FillTensorMapFromInstancesList: the keys of a row are those of the signature; no plain lists."""
    for row in ({"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}):
        answer = predict(server, "shapes", {"signature_name": "two_in", "instances": [row]})
        assert answer.status == 400
    answer = predict(server, "shapes", {"signature_name": "two_in", "instances": [1.0]})
    assert answer.status == 400
    answer = predict(server, "shapes", {"signature_name": "two_in", "inputs": [1.0]})
    assert answer.status == 400


def test_outputs_that_are_no_rows(server: ServerProcess) -> None:
    """json_tensor.cc, MakeRowFormatJsonFromTensors: 400 for a scalar and for unequal first dimensions."""
    answer = predict(server, "shapes", {"signature_name": "columns_only", "instances": [1.0]})
    assert answer.status == 400, answer.body
    answer = predict(server, "shapes", {"signature_name": "uneven", "instances": [1.0]})
    assert answer.status == 400, answer.body
    body = {"signature_name": "uneven", "inputs": [1.0]}
    assert value(server, "shapes", body) == {"one": [1.0], "two": [1.0, 1.0]}


def test_signatures_that_are_not_there(server: ServerProcess) -> None:
    """http_rest_api_handler.cc, GetInfoMap: InvalidArgument."""
    answer = predict(server, "half_plus", {"signature_name": "wrong", "instances": [1.0]})
    assert answer.status == 400


def test_what_the_graph_itself_refuses(server: ServerProcess) -> None:
    """http_server.cc, ToHTTPStatusCode: an InvalidArgument of the run is 400, with the operation's own words."""
    assert value(server, "shapes", {"signature_name": "fails", "instances": [1.0]}) == [1.0]
    answer = predict(server, "shapes", {"signature_name": "fails", "instances": [11.0]})
    assert answer.status == 400, answer.body


def test_shapes_that_do_not_fit_each_other(server: ServerProcess) -> None:
    """The run's InvalidArgument is 400."""
    body = {"signature_name": "two_in", "inputs": {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}}
    assert predict(server, "shapes", body).status == 400


def test_no_server_error_from_garbage(server: ServerProcess) -> None:
    """json_tensor_fuzzer.cc feeds whatever bytes: an error of the client, never a crash."""
    for body in (
        b"\x00",
        b"\xff" * 100,
        b'{"instances": ["\xff"]}',
        b"[" * 300,
        b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}",
    ):
        assert predict(server, "half_plus", body).status == 400
    assert value(server, "half_plus", {"instances": [2.0]}) == [4.0]
