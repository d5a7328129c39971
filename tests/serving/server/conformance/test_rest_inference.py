"""REST classify and regress: api_rest, http_rest_api_handler_test.cc, json_tensor.cc."""

from __future__ import annotations

from typing import Any

import pytest

from ..processes import Answer, ServerProcess
from .clients import value

BOTH = [("classify", "classify_x_to_y"), ("regress", "regress_x_to_y")]


def ask(
    server: ServerProcess, verb: str, body: dict[str, Any] | bytes, model: str = "half_plus_two"
) -> Answer:
    return server.call("POST", f"/v1/models/{model}:{verb}", body)


def results(server: ServerProcess, verb: str, body: dict[str, Any] | bytes) -> Any:
    answer = ask(server, verb, body)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json()
    assert list(document) == ["results"]
    return document["results"]


def test_classify(server: ServerProcess) -> None:
    """tensorflow_model_server_test.py, testClassifyREST: [label, score] of each class; "" without labels."""
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": 20.0}]}
    assert results(server, "classify", body) == [[["", 3.0]], [["", 12.0]]]


def test_classify_with_labels(server: ServerProcess) -> None:
    """api_rest, classify's response; classifier.cc: label and score of each class, 0 where there are no scores."""
    examples = [{"x": 2.0}, {"x": 4.0}]
    assert results(server, "classify", {"signature_name": "classify_labels", "examples": examples}) == [
        [["2.0", 3.0], ["other", 4.0]],
        [["4.0", 4.0], ["other", 5.0]],
    ]
    assert results(server, "classify", {"signature_name": "classify_names", "examples": examples}) == [
        [["2.0", 0.0], ["other", 0.0]],
        [["4.0", 0.0], ["other", 0.0]],
    ]


def test_regress(server: ServerProcess) -> None:
    """tensorflow_model_server_test.py, testRegressREST; http_rest_api_handler_test.cc, Regress: a number each."""
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}, {"x": 80.0}]}
    assert results(server, "regress", body) == [3.0, 42.0]
    body["signature_name"] = "regress_x_to_y2"
    assert results(server, "regress", body) == [4.0, 43.0]


@pytest.mark.parametrize(("verb", "signature"), BOTH)
def test_versions(server: ServerProcess, verb: str, signature: str) -> None:
    """api_rest: /versions/N as for predict; a version that is not there is 404."""
    body = {"signature_name": signature, "examples": [{"x": 2.0}]}
    assert server.call("POST", f"/v1/models/half_plus_two/versions/123:{verb}", body).status == 200
    assert server.call("POST", f"/v1/models/half_plus_two/versions/5:{verb}", body).status == 404
    assert server.call("POST", f"/v1/models/half_plus_two/labels/none:{verb}", body).status == 400


def test_context_is_shared_by_every_example(server: ServerProcess) -> None:
    """api_rest, "context": features of all examples, beside their own."""
    body = {"signature_name": "regress_x_to_y", "context": {"x": 2.0}, "examples": [{}, {"x2": 1.0}]}
    assert results(server, "regress", body) == [3.0, 3.0]
    body["signature_name"] = "classify_x_to_y"
    assert results(server, "classify", body) == [[["", 3.0]], [["", 3.0]]]


def test_features_may_be_lists(server: ServerProcess) -> None:
    """api_rest: a feature is a value or a list of values; whole numbers are int64, decimals float."""
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": [2.0]}]}
    assert results(server, "regress", body) == [3.0]


@pytest.mark.parametrize(("verb", "signature"), BOTH)
@pytest.mark.parametrize(
    "features",
    [
        {"x": 2},  # json_tensor.cc, AddValueToFeature: an int64 list, where the graph parses floats
        {"x": "text"},
        {"x": True},
        {"x": None},
        {"x": []},
        {"x": {"wrong": 1}},
        {"x": {"b64": "&&&"}},
        {"x": [[2.0]]},
        {"x": [2.0, "text"]},
        {"x": [2.0, 3]},
        {"x": [2.0, 3.0]},
        {"x": 1e39},
        {"x": 18446744073709551615},
        {},
        {"y": 2.0},
    ],
)
def test_features_that_do_not_fit(
    server: ServerProcess, verb: str, signature: str, features: dict[str, Any]
) -> None:
    """json_tensor.cc, AddValueToFeature; otherwise the graph's parsing: 400 either way."""
    answer = ask(server, verb, {"signature_name": signature, "examples": [features]})
    assert answer.status == 400, answer.body
    assert answer.error


@pytest.mark.parametrize(("verb", "signature"), BOTH)
@pytest.mark.parametrize(
    "rest",
    [
        "",
        ', "examples": []',
        ', "examples": {"x": 2.0}',
        ', "examples": 2.0',
        ', "examples": [2.0]',
        ', "examples": [[2.0]]',
        ', "examples": [null]',
        ', "instances": [2.0]',
        ', "context": 1, "examples": [{"x": 2.0}]',
    ],
)
def test_bodies_that_are_none(server: ServerProcess, verb: str, signature: str, rest: str) -> None:
    """json_tensor.cc, FillClassifyRegressRequestFromJson."""
    body = f'{{"signature_name": "{signature}"{rest}}}'.encode()
    answer = ask(server, verb, body)
    assert answer.status == 400, answer.body
    assert answer.error
    assert ask(server, verb, b"").status == 400
    assert ask(server, verb, b"[").status == 400


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_signatures_that_do_not_fit(server: ServerProcess, verb: str) -> None:
    """classifier.cc, regressor.cc: unknown signatures and those of other tensors are InvalidArgument."""
    other = {"classify": "regress_x_to_y", "regress": "classify_x_to_y"}[verb]
    for name in ("wrong", "serving_default", "", other):
        answer = ask(server, verb, {"signature_name": name, "examples": [{"x": 2.0}]})
        assert answer.status == 400, (name, answer.body)
    assert ask(server, verb, {"examples": [{"x": 2.0}]}).status == 400
    assert ask(server, verb, {"examples": [{"x": 2.0}]}, "half_plus").status == 400


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_unknown_models(server: ServerProcess, verb: str) -> None:
    """core/basic_manager.cc: NotFound."""
    assert ask(server, verb, {"examples": [{"x": 2.0}]}, "foo").status == 404


def test_signatures_of_tensorflow_2_classify(server: ServerProcess) -> None:
    """server.h: enable_signature_method_name_check is off, so a signature with `inputs` and `scores` is enough."""
    body = {"signature_name": "classify_native", "examples": [{"x": 2.0}]}
    answer = ask(server, "classify", body, "shapes")
    assert answer.status == 200, answer.body
    assert answer.json() == {"results": [[["", 7.0]]]}


def test_predict_still_answers(server: ServerProcess) -> None:
    """Whatever was asked before."""
    assert value(server, "half_plus", {"instances": [2.0]}) == [4.0]
