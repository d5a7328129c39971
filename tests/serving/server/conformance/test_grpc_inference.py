"""Classify, Regress and MultiInference: servables/tensorflow/{classifier,regressor,multi_inference}_test.cc."""

from __future__ import annotations

from typing import Any

import pytest

from .clients import SECONDS, Grpc, code_and_details, example

METHODS = {"classify_x_to_y": "classify", "regress_x_to_y": "regress"}


def request_for(kind: str, signature: str, *examples: Any, model: str = "half_plus_two") -> Any:
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
    from tensorflow_serving.apis.regression_pb2 import RegressionRequest

    request = ClassificationRequest() if kind == "Classify" else RegressionRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def task(request: Any, signature: str, method: str, model: str = "half_plus_two") -> None:
    one = request.tasks.add()
    one.model_spec.name = model
    one.model_spec.signature_name = signature
    one.method_name = f"tensorflow/serving/{method}"


def multi(*signatures: str, examples: int = 1) -> Any:
    from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest

    request = MultiInferenceRequest()
    for signature in signatures:
        task(request, signature, METHODS.get(signature, signature.partition("_")[0]))
    request.input.example_list.examples.extend([example(x=2.0)] * examples)
    return request


def test_classify(grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testClassify: scores, no labels, the model spec as asked and the version."""
    request = request_for("Classify", "classify_x_to_y", example(x=2.0), example(x=20.0))
    answer = grpc_client.predictions.Classify(request, SECONDS)
    classes = [[(c.label, c.score) for c in one.classes] for one in answer.result.classifications]
    assert classes == [[("", 3.0)], [("", 12.0)]]
    spec = answer.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", "classify_x_to_y", 123)


def test_classify_with_labels(grpc_client: Grpc) -> None:
    """classifier_test.cc: labels and scores, or labels alone."""
    for signature, expected in (
        ("classify_labels", [("2.0", 3.0), ("other", 4.0)]),
        ("classify_names", [("2.0", 0.0), ("other", 0.0)]),
    ):
        answer = grpc_client.predictions.Classify(request_for("Classify", signature, example(x=2.0)), SECONDS)
        (one,) = answer.result.classifications
        assert [(c.label, c.score) for c in one.classes] == expected


def test_regress(grpc_client: Grpc) -> None:
    """tensorflow_model_server_test.py, testRegress."""
    request = request_for("Regress", "regress_x_to_y", example(x=2.0), example(x=80.0))
    answer = grpc_client.predictions.Regress(request, SECONDS)
    assert [one.value for one in answer.result.regressions] == [3.0, 42.0]
    spec = answer.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", "regress_x_to_y", 123)


def test_context(grpc_client: Grpc) -> None:
    """input.proto, ExampleListWithContext: its features are those of every example."""
    request = request_for("Regress", "regress_x_to_y")
    request.input.example_list_with_context.context.CopyFrom(example(x=2.0))
    request.input.example_list_with_context.examples.extend([example(x2=1.0), example()])
    answer = grpc_client.predictions.Regress(request, SECONDS)
    assert [one.value for one in answer.result.regressions] == [3.0, 3.0]


@pytest.mark.parametrize("kind", ["Classify", "Regress"])
def test_no_input(grpc_client: Grpc, kind: str) -> None:
    """classifier_test.cc, EmptyExampleList; util.cc: INVALID_ARGUMENT, "Input is empty"."""
    call = getattr(grpc_client.predictions, kind)
    code, _ = code_and_details(call, request_for(kind, f"{kind.lower()}_x_to_y"), SECONDS)
    assert code == "INVALID_ARGUMENT"
    empty = request_for(kind, f"{kind.lower()}_x_to_y")
    empty.input.example_list_with_context.context.CopyFrom(example(x=2.0))
    assert code_and_details(call, empty, SECONDS)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", ["Classify", "Regress"])
@pytest.mark.parametrize("signature", ["wrong", "other", "serving_default", ""])
def test_signatures_that_do_not_fit(grpc_client: Grpc, kind: str, signature: str) -> None:
    """classifier.cc, regressor.cc: INVALID_ARGUMENT, by the method's name or, without that check, by the tensors."""
    other = {"Classify": "regress_x_to_y", "Regress": "classify_x_to_y"}[kind]
    request = request_for(kind, other if signature == "other" else signature, example(x=2.0))
    code, _ = code_and_details(getattr(grpc_client.predictions, kind), request, SECONDS)
    assert code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", ["Classify", "Regress"])
def test_what_does_not_fit(grpc_client: Grpc, kind: str) -> None:
    """classifier_test.cc, regressor_test.cc: signatures, examples; server_core.cc: model specs."""
    call = getattr(grpc_client.predictions, kind)
    own = f"{kind.lower()}_x_to_y"
    for features in (example(), example(x=2), example(x=b"2"), example(x=[2.0, 3.0])):
        assert code_and_details(call, request_for(kind, own, features), SECONDS)[0] == "INVALID_ARGUMENT"
    assert (
        code_and_details(call, request_for(kind, own, example(x=2.0), model="foo"), SECONDS)[0] == "NOT_FOUND"
    )
    request = request_for(kind, own, example(x=2.0))
    request.model_spec.version.value = 7
    assert code_and_details(call, request, SECONDS)[0] == "NOT_FOUND"
    request.ClearField("model_spec")
    assert code_and_details(call, request, SECONDS)[0] == "INVALID_ARGUMENT"


def test_multi_inference(grpc_client: Grpc) -> None:
    """multi_inference_test.cc, RegressAndClassifySignaturesTest: a result for each task, in their order."""
    answer = grpc_client.predictions.MultiInference(multi("regress_x_to_y", "classify_x_to_y"), SECONDS)
    first, second = answer.results
    assert [one.value for one in first.regression_result.regressions] == [3.0]
    (classes,) = second.classification_result.classifications
    assert [(c.label, c.score) for c in classes.classes] == [("", 3.0)]
    for result, signature in ((first, "regress_x_to_y"), (second, "classify_x_to_y")):
        spec = result.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == ("half_plus_two", signature, 123)


def test_multi_inference_of_one_method(grpc_client: Grpc) -> None:
    """multi_inference_test.cc, MultipleValidRegressSignaturesTest and ValidSingleSignatureTest."""
    answer = grpc_client.predictions.MultiInference(
        multi("regress_x_to_y", "regress_x_to_y2", examples=2), SECONDS
    )
    values = [[one.value for one in result.regression_result.regressions] for result in answer.results]
    assert values == [[3.0, 3.0], [4.0, 4.0]]
    assert len(grpc_client.predictions.MultiInference(multi("classify_x_to_y"), SECONDS).results) == 1


@pytest.mark.parametrize(
    "signatures",
    [["regress_wrong"], ["regress_x_to_y", "regress_x_to_y"], ["regress_x_to_y", "regress_x2_to_y3"]],
    ids=["unknown", "twice", "inputs"],
)
def test_multi_inference_of_what_does_not_fit(grpc_client: Grpc, signatures: list[str]) -> None:
    """multi_inference_test.cc: UndefinedSignature-, EvaluateDuplicateSignatures-, SignaturesWithDifferentInputsTest."""
    answer = code_and_details(grpc_client.predictions.MultiInference, multi(*signatures), SECONDS)
    assert answer[0] == "INVALID_ARGUMENT"


def test_multi_inference_of_another_method_and_model(grpc_client: Grpc) -> None:
    """multi_inference_test.cc, UsupportedSignatureTypeTest, InconsistentModelSpecsInRequestTest, MissingInputTest."""
    call = grpc_client.predictions.MultiInference
    request = multi()
    task(request, "serving_default", "predict")
    code, _ = code_and_details(call, request, SECONDS)
    assert code == "UNIMPLEMENTED"
    request = multi("regress_x_to_y")
    task(request, "regress_x_to_y", "regress", model="ModelDoesNotExist")
    code, _ = code_and_details(call, request, SECONDS)
    assert code == "INVALID_ARGUMENT"
    code, _ = code_and_details(call, multi("regress_x_to_y", examples=0), SECONDS)
    assert code == "INVALID_ARGUMENT"
    request = multi()
    task(request, "regress_x_to_y", "regress", model="foo")
    assert code_and_details(call, request, SECONDS)[0] == "NOT_FOUND"
