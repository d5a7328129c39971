"""Classify, Regress and MultiInference by REST and gRPC.

api_rest; json_tensor.cc; servables/tensorflow/{classifier,regressor,multi_inference}_test.cc.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..processes import Answer, ServerProcess
from .clients import SECONDS, Grpc, code_and_details, example, multi, request_for

BOTH = [("Classify", "classify_x_to_y"), ("Regress", "regress_x_to_y")]


def ask(server: ServerProcess, verb: str, document: dict[str, Any], model: str = "half_plus_two") -> Answer:
    return server.call("POST", f"/v1/models/{model}:{verb.lower()}", document)


def results(server: ServerProcess, verb: str, signature: str, *examples: Any, **more: Any) -> Any:
    answer = ask(server, verb, {"signature_name": signature, "examples": examples, **more})
    assert answer.status == 200, answer.body
    assert list(answer.json()) == ["results"]
    return answer.json()["results"]


def test_classify(server: ServerProcess, grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testClassify; classifier.cc: "" without labels, 0 without scores."""
    for signature, expected in (
        ("classify_x_to_y", [[("", 3.0)], [("", 12.0)]]),
        ("classify_labels", [[("2.0", 3.0), ("other", 4.0)], [("20.0", 12.0), ("other", 13.0)]]),
        ("classify_names", [[("2.0", 0.0), ("other", 0.0)], [("20.0", 0.0), ("other", 0.0)]]),
    ):
        rows = results(server, "classify", signature, {"x": 2.0}, {"x": 20.0})
        assert [[tuple(one) for one in row] for row in rows] == expected
        answer = grpc_client.predictions.Classify(
            request_for("Classify", signature, example(x=2.0), example(x=20.0)), SECONDS
        )
        found = [[(c.label, c.score) for c in row.classes] for row in answer.result.classifications]
        assert found == expected
        spec = answer.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", signature, 123)


def test_regress(server: ServerProcess, grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testRegress; http_rest_api_handler_test.cc, Regress: a number each."""
    for signature, expected in (("regress_x_to_y", [3.0, 42.0]), ("regress_x_to_y2", [4.0, 43.0])):
        assert results(server, "regress", signature, {"x": [2.0]}, {"x": 80.0}) == expected
        answer = grpc_client.predictions.Regress(
            request_for("Regress", signature, example(x=2.0), example(x=80.0)), SECONDS
        )
        assert [one.value for one in answer.result.regressions] == expected
        assert answer.model_spec.signature_name == signature


def test_context_is_shared_by_every_example(server: ServerProcess, grpc_client: Grpc) -> None:
    """api_rest, "context", and input.proto, ExampleListWithContext: features of all examples, beside their own."""
    context = {"context": {"x": 2.0}}
    assert results(server, "regress", "regress_x_to_y", {}, {"x2": 1.0}, **context) == [3.0, 3.0]
    assert results(server, "classify", "classify_x_to_y", {}, **context) == [[["", 3.0]]]
    request = request_for("Regress", "regress_x_to_y")
    request.input.example_list_with_context.context.CopyFrom(example(x=2.0))
    call = grpc_client.predictions.Regress
    assert code_and_details(call, request, SECONDS)[0] == "INVALID_ARGUMENT"
    request.input.example_list_with_context.examples.extend([example(), example(x2=1.0)])
    assert [one.value for one in call(request, SECONDS).result.regressions] == [3.0, 3.0]


def test_signatures_of_tensorflow_2_classify(server: ServerProcess) -> None:
    """server.h: enable_signature_method_name_check is off, so a signature with `inputs` and `scores` is enough."""
    body = {"signature_name": "classify_native", "examples": [{"x": 2.0}]}
    assert ask(server, "classify", body, "shapes").json() == {"results": [[["", 7.0]]]}


@pytest.mark.parametrize(("verb", "signature"), BOTH)
def test_rest_of_what_does_not_fit(server: ServerProcess, verb: str, signature: str) -> None:
    """json_tensor.cc, FillClassifyRegressRequestFromJson, AddValueToFeature; else the graph's parsing: 400."""
    for value in (
        *(2, "text", True, None, [], {"wrong": 1}, {"b64": "&&&"}, [[2.0]], [2.0, "text"], [2.0, 3]),
        *([2.0, 3.0], 2**64 - 1),
    ):
        answer = ask(server, verb, {"signature_name": signature, "examples": [{"x": value}]})
        assert answer.status == 400, (value, answer.body)
        assert answer.error
    documents: list[dict[str, Any]] = [{}, {"instances": [2.0]}, {"context": 1, "examples": [{"x": 2.0}]}]
    no_examples: list[Any] = [[], {"x": 2.0}, 2.0, [2.0], [[2.0]], [None], [{}], [{"y": 2.0}]]
    documents += [{"examples": examples} for examples in no_examples]
    for document in documents:
        answer = ask(server, verb, {"signature_name": signature, **document})
        assert answer.status == 400, (document, answer.body)
    sound = {"signature_name": signature, "examples": [{"x": 2.0}]}
    for where, status in (("/versions/123", 200), ("/versions/5", 404), ("/labels/none", 400)):
        path = f"/v1/models/half_plus_two{where}:{verb.lower()}"
        assert server.call("POST", path, sound).status == status
    assert ask(server, verb, sound, "foo").status == 404


@pytest.mark.parametrize("verb", ["Classify", "Regress"])
def test_signatures_that_do_not_fit(server: ServerProcess, grpc_client: Grpc, verb: str) -> None:
    """classifier.cc, regressor.cc: unknown signatures and those of other tensors are InvalidArgument."""
    other = {"Classify": "regress_x_to_y", "Regress": "classify_x_to_y"}[verb]
    for name in ("wrong", "serving_default", "", other):
        answer = ask(server, verb, {"signature_name": name, "examples": [{"x": 2.0}]})
        assert answer.status == 400, (name, answer.body)
        assert (name or "serving_default") in answer.error
        request = request_for(verb, name, example(x=2.0))
        code, _ = code_and_details(getattr(grpc_client.predictions, verb), request, SECONDS)
        assert code == "INVALID_ARGUMENT"


def test_multi_inference(grpc_client: Grpc) -> None:
    """multi_inference_test.cc, RegressAndClassifySignaturesTest: a result for each task, in their order."""
    signatures = ("regress_x_to_y", "classify_x_to_y", "regress_x_to_y2")
    answer = grpc_client.predictions.MultiInference(multi(*signatures, examples=2), SECONDS)
    first, second, third = answer.results
    assert [one.value for one in first.regression_result.regressions] == [3.0, 3.0]
    assert [one.value for one in third.regression_result.regressions] == [4.0, 4.0]
    rows = [[(c.label, c.score) for c in one.classes] for one in second.classification_result.classifications]
    assert rows == [[("", 3.0)]] * 2
    for result, signature in zip(answer.results, signatures, strict=True):
        spec = result.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", signature, 123)


def test_multi_inference_of_what_does_not_fit(grpc_client: Grpc) -> None:
    """multi_inference_test.cc, UndefinedSignatureTest and those after it."""
    foreign = multi("regress_x_to_y")
    foreign.tasks.extend(multi("regress_x_to_y", model="ModelDoesNotExist").tasks)
    for request, expected in (
        (multi("regress_wrong"), "INVALID_ARGUMENT"),
        (multi("regress_x_to_y", "regress_x_to_y"), "INVALID_ARGUMENT"),
        (multi("regress_x_to_y", "regress_x2_to_y3"), "INVALID_ARGUMENT"),
        (multi("regress_x_to_y", examples=0), "INVALID_ARGUMENT"),
        (multi(), "INVALID_ARGUMENT"),
        (foreign, "INVALID_ARGUMENT"),
        (multi("serving_default", method="predict"), "UNIMPLEMENTED"),
        (multi("regress_x_to_y", model="foo"), "NOT_FOUND"),
    ):
        code, details = code_and_details(grpc_client.predictions.MultiInference, request, SECONDS)
        assert code == expected, details
