"""REST predict: https://www.tensorflow.org/tfx/serving/api_rest, model_servers/http_rest_api_handler_test.cc."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from ..processes import ServerProcess
from .clients import example, predict, value


def test_rows_and_columns_answer_under_their_own_key(server: ServerProcess) -> None:
    """tensorflow_model_server_test.py, testPredictREST and testPredictColumnarREST: the value under the one key."""
    for request, response in (("instances", "predictions"), ("inputs", "outputs")):
        answer = predict(server, "half_plus_two", {request: [2.0, 3.0, 4.0]})
        assert answer.status == 200, answer.body
        assert answer.json() == {response: [3.0, 3.5, 4.0]}
        assert answer.headers["Content-Type"] == "application/json"


def test_an_answer_is_an_object_in_lines(server: ServerProcess) -> None:
    """api_rest, "Example": the key and its list, indented by four; regress and classify alike."""
    body = predict(server, "half_plus_two", {"instances": [2.0]}).body
    assert body == b'{\n    "predictions": [3.0]\n}'
    body = predict(server, "half_plus_two", {"inputs": [2.0]}).body
    assert body == b'{\n    "outputs": [3.0]\n}'
    examples = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
    body = server.call("POST", "/v1/models/half_plus_two:regress", examples).body
    assert body == b'{\n    "results": [3.0]\n}'


def test_a_tensor_of_another_shape_than_the_signature_is_left_to_the_graph(server: ServerProcess) -> None:
    """http_rest_api_handler_test.cc, Predict: x is [-1, 1] in the signature, and rows of two elements are answered."""
    assert value(server, "half_plus_two", {"instances": [[1.0, 2.0], [3.0, 4.0]]}) == [[2.5, 3.0], [3.5, 4.0]]
    assert value(server, "half_plus_two", {"instances": [[1.0], [3.0]]}) == [[2.5], [3.5]]
    assert value(server, "half_plus_two", {"inputs": 2.0}) == 3.0


def test_a_named_input_may_be_an_object(server: ServerProcess) -> None:
    """api_rest, "Specifying input tensors in row/column format": objects name the inputs, also a single one."""
    assert value(server, "half_plus", {"instances": [{"x": 2.0}, {"x": 4.0}]}) == [4.0, 5.0]
    assert value(server, "half_plus", {"inputs": {"x": [2.0, 4.0]}}) == [4.0, 5.0]


def test_signature_name_is_optional(server: ServerProcess) -> None:
    """api_rest: without it the default serving signature; http_rest_api_handler.cc: the empty name is that as well."""
    for names in ({}, {"signature_name": "serving_default"}, {"signature_name": ""}):
        assert value(server, "half_plus", {**names, "instances": [2.0]}) == [4.0]
    assert value(server, "shapes", {"signature_name": "two_in", "inputs": {"a": [1.0], "b": [2.0]}}) == [3.0]


def test_several_inputs_and_outputs_in_rows(server: ServerProcess) -> None:
    """api_rest: one object a row with every input, and one with every output; one output has no name."""
    rows: list[Any] = [{"a": [1, 2], "b": 10.0}, {"a": [3, 4], "b": 20.0}]
    assert value(server, "shapes", {"instances": rows}) == [
        {"sum": [11.0, 12.0], "first": 1.0},
        {"sum": [23.0, 24.0], "first": 3.0},
    ]
    body: dict[str, Any] = {"signature_name": "two_in", "instances": [{"a": 1, "b": 2}]}
    assert value(server, "shapes", body) == [3.0]
    body = {"signature_name": "two_out", "instances": [1.0, 2.0]}
    assert value(server, "shapes", body) == [{"double": 2.0, "half": 0.5}, {"double": 4.0, "half": 1.0}]


def test_several_inputs_and_outputs_in_columns(server: ServerProcess) -> None:
    """api_rest, column format: an object of tensors, in the request and in the answer."""
    columns = {"a": [[1, 2], [3, 4]], "b": [10, 20]}
    assert value(server, "shapes", {"inputs": columns}) == {
        "sum": [[11.0, 12.0], [23.0, 24.0]],
        "first": [1.0, 3.0],
    }
    body = {"signature_name": "two_out", "inputs": [1.0, 2.0]}
    assert value(server, "shapes", body) == {"double": [2.0, 4.0], "half": [0.5, 1.0]}


def test_tensors_of_several_dimensions(server: ServerProcess) -> None:
    """api_rest: nested lists are dense tensors in row-major order."""
    matrix = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    doubled = [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]
    for request in ("instances", "inputs"):
        body = {"signature_name": "matrix", request: [matrix, matrix]}
        assert value(server, "shapes", body) == [doubled, doubled]


def test_scalars_go_in_columns(server: ServerProcess) -> None:
    """json_tensor.cc, GetDenseTensorShape and AddTensorValues: a value without list is a scalar, both ways."""
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": 3.0}) == 6.0
    assert value(server, "shapes", {"signature_name": "scalar", "inputs": {"x": 3.0}}) == 6.0
    assert value(server, "shapes", {"signature_name": "to_scalar", "inputs": [1.0, 2.0]}) == 3.0
    body = {"signature_name": "columns_only", "inputs": [1.0, 3.0]}
    assert value(server, "shapes", body) == {"mean": 2.0, "y": [2.0, 6.0]}


def test_an_empty_list_is_a_tensor_in_columns(server: ServerProcess) -> None:
    """json_tensor.cc, FillTensorMapFromInputsMap: no rule against size 0, unlike in rows."""
    assert value(server, "half_plus", {"inputs": []}) == []


def test_keys_that_nobody_reads(server: ServerProcess) -> None:
    """json_tensor.cc, FillPredictRequestFromJson looks keys up: others beside them, and in `inputs`, are no error."""
    assert value(server, "half_plus", {"instances": [2.0], "comment": {"a": 1}}) == [4.0]
    assert value(server, "half_plus", {"inputs": {"x": [2.0], "more": [1]}}) == [4.0]


def test_predict_takes_signatures_of_other_methods(server: ServerProcess) -> None:
    """predict_util.cc, VerifySignature: classify and regress signatures predict too, from serialized tf.Examples."""
    import base64

    serialized = base64.b64encode(example(x=2.0).SerializeToString()).decode()
    for name in ("regress_x_to_y", "classify_x_to_y"):
        body = {"signature_name": name, "instances": [{"b64": serialized}]}
        assert value(server, "half_plus_two", body) == [[3.0]]


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Type": "application/x-www-form-urlencoded"}, {"Content_Type": "x"}]
)
def test_the_content_type_of_a_request_does_not_matter(
    server: ServerProcess, headers: dict[str, str]
) -> None:
    """http_server.cc never looks at it; api_rest's own example is `curl -d`, which sends a form's."""
    body = json.dumps({"instances": [2.0]}).encode()
    answer = server.call("POST", "/v1/models/half_plus:predict", body, **headers)
    assert answer.json() == {"predictions": [4.0]}


def test_a_body_may_be_gzipped(server: ServerProcess) -> None:
    """evhttp_request.cc, NeedUncompressGzipContent: Content-Encoding: gzip; uncompressing is on by default."""
    body = gzip.compress(json.dumps({"instances": [2.0] * 1000}).encode())
    answer = server.call("POST", "/v1/models/half_plus:predict", body, Content_Encoding="gzip")
    assert answer.status == 200, answer.body
    assert answer.json() == {"predictions": [4.0] * 1000}


def test_paths_are_matched_without_case(server: ServerProcess) -> None:
    """http_rest_api_util.cc: the expressions of the paths have (?i); the verb is then compared as it is."""
    body = json.dumps({"instances": [2.0]}).encode()
    assert server.call("POST", "/V1/Models/half_plus/Versions/1:predict", body).status == 200
    assert server.call("GET", "/v1/models/half_plus/VERSIONS/1").status == 200
    # The verb metadata is compared as it is, too: anything else asks for the status.
    assert "model_version_status" in server.call("GET", "/v1/models/half_plus/Metadata").json()
    assert server.call("POST", "/v1/models/half_plus:PREDICT", body).status == 400
    assert server.call("POST", "/v1/models/HALF_PLUS:predict", body).status == 404


def test_names_in_paths_are_percent_decoded(server: ServerProcess) -> None:
    """http_rest_api_util.cc, DecodeArg."""
    body = json.dumps({"instances": [2.0]}).encode()
    assert server.call("POST", "/v1/models/half%5Fplus:predict", body).status == 200


def test_versions(server: ServerProcess) -> None:
    """api_rest: /versions/N picks one, without it the latest answers; leading zeros are a number's (SimpleAtoi)."""
    for where, answer in (
        ("/versions/1", 2.0),
        ("/versions/2", 3.0),
        ("/versions/3", 4.0),
        ("", 4.0),
        ("/versions/01", 2.0),
    ):
        assert value(server, "half_plus", {"instances": [2.0]}, where) == [answer]


def test_models_with_assets_and_variables(server: ServerProcess) -> None:
    """cc/saved_model/loader.cc: variables are restored and the init op is run, with the assets at their new place."""
    assert value(server, "vocabulary", {"instances": ["two", "three", "four"]}) == [10, 20, -10]


def test_many_rows(server: ServerProcess) -> None:
    """api_rest sets no limit to the rows of a request."""
    rows: list[Any] = [float(row % 7) for row in range(5000)]
    assert value(server, "half_plus", {"instances": rows}) == [row / 2 + 3 for row in rows]
