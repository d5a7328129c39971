"""What REST refuses, with which status: model_servers/http_server.cc, http_rest_api_handler_test.cc, json_tensor.cc.

The statuses are the original's; the words are ours and say what was expected.
"""

from __future__ import annotations

import json

import pytest

from ..processes import ServerProcess, assert_matches
from .clients import predict, value

ROWS = json.dumps({"instances": [1.0]}).encode()
PATHS = f"""
    400 GET /v1/foo
    400 GET /v1/models
    400 GET /v1/models/debug/model_name
    400 GET /v1/models/half_plus:predict
    400 GET /v1/models/half_plus/version/1:predict
    400 POST /v1/models/half_plus/versions/%D9%A1:predict
    400 POST /v1/models/half_plus/metadata
    400 POST /v1/models/half_plus/versions/1/labels/some_label:regress
    400 POST /v1/models/half_plus
    400 POST /v1/models/half_plus:explain
    400 POST /v1/models/half_plus/versions/-1:predict
    400 GET /v1/models/half_plus/
    400 PUT /v1/models/half_plus:predict
    400 DELETE /v1/models/half_plus
    400 OPTIONS /v1/models/half_plus
    400 POST /v1/models/half_plus/versions/{2**64 - 1}:predict
    400 POST /v1/models/half_plus/labels/nonexistent:predict
    400 GET /v1/models/half_plus/labels/nonexistent
    404 POST /v1/models/foo:predict
    404 POST /v1/models/half_plus/versions/99:predict
    404 POST /v1/models/a%2Fb%3Ac%3F:predict
    404 GET /v1/models/a%2Fb%3Ac%3F%40%5B%5D
    404 GET /v1/models/foo
    404 GET /v1/models/half_plus/versions/99
    404 GET /v1/models/half_plus/versions/99/metadata
    404 GET /
    404 GET /v1
    404 GET /v2/health/ready
    404 GET /v10/models/half_plus
"""


@pytest.mark.parametrize("line", PATHS.strip().splitlines())
def test_paths(server: ServerProcess, line: str) -> None:
    """http_rest_api_handler_test.cc, UnsupportedApiCalls, PredictModelNameVersionErrors, kPathRegex."""
    status, method, path = line.split()
    answer = server.call(method, path, ROWS if method in ("POST", "PUT") else None)
    assert answer.status == int(status), answer.body
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.error


BODIES = rb"""
{"instances": [1,]}
{"instances": [1]} {}
{"instances": [01]}
{"instances": [NaN}
{"instances": [NaN, Inf]}
{"instances": [NaN, "\ud800"]}
// {"instances": [1]}
[1.0]
null
{}
{"examples": [{"x": 1.0}]}
{"instances": [1.0], "inputs": [1.0]}
{"instances": null}
{"instances": []}
{"signature_name": 100, "instances": [1.0]}
{"instances": [1.0, [2.0]]}
{"instances": [[1.0], [[2.0]]]}
{"instances": [{"x": 1.0}, 2.0]}
{"instances": [{"wrong": 1.0}]}
{"instances": [{"x": 1.0, "more": 2}]}
{"instances": [{}]}
{"inputs": {}}
{"inputs": [[1.0], [2.0, 3.0]]}
{"inputs": null}
"""
DEEP = b"[" * 100_000
GARBAGE = [
    b"",
    b"\x00",
    b"\xff" * 100,
    b'{"instances": ["\xff"]}',
    DEEP,
    DEEP + b"NaN",
    b"[NaN, " + b"9" * 5000,
]


@pytest.mark.parametrize(
    "body", [*BODIES.strip().splitlines(), *GARBAGE], ids=lambda body: body[:40].decode("latin-1")
)
def test_bodies_that_are_no_predict(server: ServerProcess, body: bytes) -> None:
    """http_rest_api_handler_test.cc, PredictRequestErrors; json_tensor_test.cc and its fuzzer: 400, never a crash."""
    answer = predict(server, "half_plus", body)
    assert answer.status == 400, answer.body
    assert answer.error
    assert predict(server, "foo", b"{").status == 400  # The body is read before the model is looked up.
    assert value(server, "half_plus", {"instances": [2.0]}) == [4.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": [', "JSON.*column"),
        (b'{"instances": "text"}', "instances.*list of rows.*'text'"),
        (b'{"instances": ["text"]}', "'x'.*expected numbers of dtype float32.*strings"),
        (b'{"instances": [[1.0], [2.0, 3.0]]}', "'x'.*lists of equal lengths"),
        (b'{"instances": [{"x": 1.0}, {"y": 1.0}]}', "row 1.*expected values of x.*got 'y'"),
        (b'{"inputs": {"y": 1.0}}', "expected input x"),
        (b'{"signature_name": "wrong", "instances": [1]}', "signature 'wrong'; it has: .*serving_default"),
        (b'{"signature_name": {"a": 1}}', "signature_name.*string.*'a': 1"),
    ],
)
def test_an_error_names_the_input_what_was_expected_and_what_came(
    server: ServerProcess, body: bytes, message: str
) -> None:
    assert_matches(message, predict(server, "half_plus", body).error)


def test_an_error_repeats_little_of_what_a_client_sent(server: ServerProcess) -> None:
    long = "a" * 1_000_000
    for document in (
        {"instances": long},
        {"instances": [long]},
        {"instances": [{long: 1.0}]},
        {"signature_name": long, "instances": [1.0]},
        {"signature_name": [[long] * 3] * 3, "instances": [1.0]},
        {"signature_name": "string", "instances": [{"b64": long + "?"}]},
    ):
        for model in ("half_plus", "types"):
            answer = predict(server, model, document)
            assert answer.status == 400
            assert len(answer.error) < 700, document.keys()


def test_rows_of_several_inputs_must_have_every_one(server: ServerProcess) -> None:
    """json_tensor.cc, FillTensorMapFromInstancesList: the keys of a row are those of the signature; no plain lists."""
    for given in (
        {"instances": [{"a": 1.0}]},
        {"instances": [1.0]},
        {"inputs": [1.0]},
        {"inputs": {"a": [1.0]}},
        {"inputs": {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}},
    ):
        assert predict(server, "shapes", {"signature_name": "two_in", **given}).status == 400, given
