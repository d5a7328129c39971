"""REST predict: https://www.tensorflow.org/tfx/serving/api_rest, model_servers/http_rest_api_handler_test.cc."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from ..processes import ServerProcess
from .clients import predict, value


def test_rows_and_columns_answer_under_their_own_key_in_lines(server: ServerProcess) -> None:
    """tensorflow_model_server_test.py, testPredictREST and testPredictColumnarREST; api_rest, "Example"."""
    for request, response in (("instances", b"predictions"), ("inputs", b"outputs")):
        answer = predict(server, "half_plus_two", {request: [2.0, 3.0, 4.0]})
        assert answer.status == 200, answer.body
        assert answer.body == b'{\n    "%b": [3.0,3.5,4.0]\n}' % response
        assert answer.headers["Content-Type"] == "application/json"


def test_a_tensor_of_another_shape_than_the_signature_is_left_to_the_graph(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, Predict: x is [-1, 1] in the signature, and rows of two elements are answered."""
    assert value(server, "half_plus_two", {"instances": [[1.0, 2.0], [3.0, 4.0]]}) == [[2.5, 3.0], [3.5, 4.0]]
    assert value(server, "half_plus_two", {"instances": [[1.0], [3.0]]}) == [[2.5], [3.5]]
    assert value(server, "half_plus_two", {"inputs": 2.0}) == 3.0


def test_one_input_comes_plain_or_by_its_name(server: ServerProcess) -> None:
    """api_rest: objects name the inputs, also a single one; without signature_name the default one."""
    assert value(server, "half_plus", {"instances": [{"x": 2.0}, {"x": 4.0}]}) == [4.0, 5.0]
    assert value(server, "half_plus", {"inputs": {"x": [2.0, 4.0]}}) == [4.0, 5.0]
    for names in ({}, {"signature_name": "serving_default"}, {"signature_name": ""}):
        assert value(server, "half_plus", {**names, "instances": [2.0]}) == [4.0]
    # json_tensor.cc, FillPredictRequestFromJson looks keys up: others beside them, and in `inputs`, are no error.
    assert value(server, "half_plus", {"instances": [2.0], "comment": {"a": 1}}) == [4.0]
    assert value(server, "half_plus", {"inputs": {"x": [2.0], "more": [1]}}) == [4.0]


def test_several_inputs_and_outputs(server: ServerProcess) -> None:
    """api_rest: rows are objects with every input and every output; columns an object of tensors; one has no name."""
    rows: list[Any] = [{"a": [1, 2], "b": 10.0}, {"a": [3, 4], "b": 20.0}]
    assert value(server, "shapes", {"instances": rows}) == [
        {"sum": [11.0, 12.0], "first": 1.0},
        {"sum": [23.0, 24.0], "first": 3.0},
    ]
    columns = {"a": [[1, 2], [3, 4]], "b": [10, 20]}
    assert value(server, "shapes", {"inputs": columns}) == {
        "sum": [[11.0, 12.0], [23.0, 24.0]],
        "first": [1.0, 3.0],
    }
    body: dict[str, Any] = {"signature_name": "two_in", "instances": [{"a": 1, "b": 2}]}
    assert value(server, "shapes", body) == [3.0]
    body = {"signature_name": "two_out", "instances": [1.0, 2.0]}
    assert value(server, "shapes", body) == [{"double": 2.0, "half": 0.5}, {"double": 4.0, "half": 1.0}]


def test_inputs_with_a_default_may_be_left_out(server: ServerProcess) -> None:
    """meta_graph.proto, SignatureDef.defaults."""
    for given in ({"instances": [{"x": 1}, {"x": 2}]}, {"inputs": {"x": [1, 2]}}):
        assert value(server, "shapes", {"signature_name": "scaled", **given}) == [10.0, 20.0]
    assert value(server, "shapes", {"signature_name": "scaled", "inputs": {"x": [1], "by": 3}}) == [3.0]


def test_tensors_of_any_rank(server: ServerProcess) -> None:
    """json_tensor.cc: nested lists are dense in row-major order, a value is a scalar, empty lists in columns."""
    matrix = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    doubled = [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]
    for request in ("instances", "inputs"):
        assert value(server, "shapes", {"signature_name": "matrix", request: [matrix] * 2}) == [doubled] * 2
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": 3.0}) == 6.0
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": {"x": 3.0}}) == 6.0
    assert value(server, "shapes", {"signature_name": "to_scalar", "inputs": [1.0, 2.0]}) == 3.0
    assert value(server, "half_plus", {"inputs": []}) == []


def test_outputs_that_are_no_rows_come_in_columns_only(server: ServerProcess) -> None:
    """json_tensor.cc, MakeRowFormatJsonFromTensors: 400 for a scalar and for unequal first dimensions."""
    for name, columns in (
        ("columns_only", {"mean": 2.0, "y": [2.0, 6.0]}),
        ("uneven", {"one": [1.0, 3.0], "two": [1.0, 3.0, 1.0, 3.0]}),
    ):
        assert value(server, "shapes", {"signature_name": name, "inputs": [1.0, 3.0]}) == columns
        answer = predict(server, "shapes", {"signature_name": name, "instances": [1.0, 3.0]})
        assert answer.status == 400
        assert '"inputs"' in answer.error


def test_bodies_of_any_type_and_gzipped(server: ServerProcess) -> None:
    """http_server.cc never looks at Content-Type; evhttp_request.cc, NeedUncompressGzipContent."""
    path, plain = "/v1/models/half_plus:predict", json.dumps({"instances": [2.0]}).encode()
    for kind in ("application/x-www-form-urlencoded", "text/plain", "x"):
        assert server.call("POST", path, plain, Content_Type=kind).json() == {"predictions": [4.0]}
    answer = server.call("POST", path, gzip.compress(plain), Content_Encoding="gzip")
    assert answer.json() == {"predictions": [4.0]}
    assert value(server, "half_plus", b'\xef\xbb\xbf \r\n\t{"instances": [2.0]} \n') == [4.0]


def test_paths(server: ServerProcess) -> None:
    """http_rest_api_util.cc: (?i) but for names and verbs, percent-decoded; versions are numbers (SimpleAtoi)."""
    for where, answer in (("/versions/1", 2.0), ("/Versions/02", 3.0), ("/versions/3", 4.0), ("", 4.0)):
        assert value(server, "half_plus", {"instances": [2.0]}, where) == [answer]
    body = json.dumps({"instances": [2.0]}).encode()
    assert server.call("POST", "/V1/Models/half%5Fplus:predict", body).status == 200
    assert "model_version_status" in server.call("GET", "/v1/models/half_plus/Metadata").json()
    assert server.call("POST", "/v1/models/half_plus:PREDICT", body).status == 400
    assert server.call("POST", "/v1/models/HALF_PLUS:predict", body).status == 404


def test_many_rows_and_large_bodies(server: ServerProcess) -> None:
    """api_rest sets no limit to the rows of a request; evhttp's own limit is the largest size_t."""
    rows: list[Any] = [float(row % 7) for row in range(5000)]
    assert value(server, "half_plus", {"instances": rows}) == [row / 2 + 3 for row in rows]
    encoded = base64.b64encode(b"a" * 20_000_000).decode()
    (back,) = value(server, "types", {"signature_name": "string", "instances": [{"b64": encoded}]})
    assert len(back) == 20_000_000
