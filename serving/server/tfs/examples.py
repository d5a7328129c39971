"""Classification and regression: features become tf.Examples, and a signature's outputs become results.

https://www.tensorflow.org/tfx/serving/api_rest#classify_and_regress_api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from serving.server.dataplane import Call
from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Array, Signature, Signatures, Tensors
from serving.server.tfs.json_tensors import b64

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
INPUTS, SCORES, CLASSES, OUTPUTS = "inputs", "scores", "classes", "outputs"
"""The names that signatures of these methods must give to their tensors."""

INT64 = range(-(2**63), 2**63)
KINDS = {"bytes_list": "bytes", "int64_list": "int64", "float_list": "float"}
"""What the original calls the kinds of features."""


def input_of(document: Mapping[str, object]) -> Any:  # noqa: ANN401 - an Input, whose package has no types
    """The Input that a REST request's "examples" and "context" describe. Raises `InvalidRequestError`."""
    context = _example(document["context"]) if "context" in document else None
    if "examples" not in document:
        raise InvalidRequestError("When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise InvalidRequestError(f'expected "examples" to be a list, got {quote(examples)}')
    if not examples:
        raise InvalidRequestError("'examples' value is an empty array")
    made = Input()
    if context is not None:
        made.example_list_with_context.context.CopyFrom(context)
        made.example_list_with_context.examples.extend(map(_example, examples))
    else:
        made.example_list.examples.extend(map(_example, examples))
    return made


def serialized(given: Any) -> Array:  # noqa: ANN401 - an Input
    """The examples of an Input, object [N] of bytes, each with its context. Raises `InvalidRequestError`."""
    examples = getattr(given, given.WhichOneof("kind") or "example_list")
    # Serialized messages of one type, one after the other, are their merger.
    context = examples.context.SerializeToString() if hasattr(examples, "context") else b""
    strings = [context + example.SerializeToString() for example in examples.examples]
    if not strings:
        raise InvalidRequestError("Input is empty.")
    array: Array = np.empty(len(strings), object)
    array[:] = strings
    return array


def signature_for(signatures: Signatures, method: str, key: str, checked: bool) -> str:
    """The key of a signature that can answer by `method`; where it is `checked`, one that was saved for it.

    Raises `InvalidRequestError`.
    """
    key = key or DEFAULT_SIGNATURE
    if key not in signatures:
        known = ", ".join(sorted(signatures))
        raise InvalidRequestError(f"No signature was found with the name: {key}; the model has: {known}")
    signature = signatures[key]
    what = "classification" if method == CLASSIFY else "regression"
    if checked and signature.method != method:
        raise InvalidRequestError(
            f"Expected {what} signature method_name to be {method}. Was: {signature.method}"
        )
    if len(signature.inputs) != 1:
        raise InvalidRequestError("Expected one input Tensor.")
    outputs = {spec.name for spec in signature.outputs}
    if signature.inputs[0].name != INPUTS:
        raise InvalidRequestError(f"No {what} inputs found in SignatureDef: {_tensors(signature)}")
    if method == REGRESS:
        if len(outputs) != 1:
            raise InvalidRequestError("Expected one output Tensor.")
        if OUTPUTS not in outputs:
            raise InvalidRequestError(f"No regression outputs found in SignatureDef: {_tensors(signature)}")
    elif len(outputs) > 2:
        raise InvalidRequestError(f"Expected one or two output Tensors, found {len(outputs)}")
    elif not outputs & {CLASSES, SCORES}:
        raise InvalidRequestError(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {_tensors(signature)}"
        )
    return key


def examples_call(signatures: Signatures, method: str, key: str, examples: Array) -> Call:
    """The call of a signature that `signature_for` has found."""
    wanted = (OUTPUTS,) if method == REGRESS else (CLASSES, SCORES)
    known = [spec.name for spec in signatures[key].outputs]
    outputs = tuple(name for name in wanted if name in known)
    return Call({INPUTS: examples}, outputs, key, pictures=False)


def result(method: str, outputs: Tensors, count: int) -> Any:  # noqa: ANN401 - one of two messages
    """A signature's outputs as a result for `count` examples. Raises `InvalidRequestError`."""
    return _regressions(outputs[OUTPUTS], count) if method == REGRESS else _classifications(outputs, count)


def _regressions(values: Array, count: int) -> Any:  # noqa: ANN401 - see above
    if values.shape not in ((count,), (count, 1)):
        raise InvalidRequestError(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    if values.dtype != np.float32:
        raise InvalidRequestError(f"Expected output Tensor of DT_FLOAT. Got: {values.dtype.name}")
    made = RegressionResult()
    for value in values.ravel().tolist():
        made.regressions.add().value = value
    return made


def _classifications(outputs: Tensors, count: int) -> Any:  # noqa: ANN401 - see above
    dtypes = {CLASSES: ("DT_STRING", np.dtype(object)), SCORES: ("DT_FLOAT", np.dtype(np.float32))}
    for name, array in outputs.items():
        if array.ndim != 2 or len(array) != count:
            raise InvalidRequestError(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)} for {count} examples"
            )
        if array.dtype != dtypes[name][1]:
            raise InvalidRequestError(f"Expected {name} Tensor of {dtypes[name][0]}. Got: {array.dtype.name}")
    widths = {array.shape[1] for array in outputs.values()}
    if len(widths) != 1:
        raise InvalidRequestError(
            f"Tensors class and score should match in dim_size(1). Got {sorted(widths)}"
        )
    (width,) = widths
    labels = outputs[CLASSES].tolist() if CLASSES in outputs else [[b""] * width] * count
    scores = outputs[SCORES].tolist() if SCORES in outputs else [[0.0] * width] * count
    made = ClassificationResult()
    for row_of_labels, row_of_scores in zip(labels, scores, strict=True):
        classes = made.classifications.add().classes
        for label, score in zip(row_of_labels, row_of_scores, strict=True):
            classes.add(label=label.decode("utf-8", "replace"), score=score)
    return made


def _tensors(signature: Signature) -> str:
    inputs, outputs = (", ".join(s.name for s in specs) for specs in (signature.inputs, signature.outputs))
    return f"inputs {inputs}; outputs {outputs}; method {signature.method}"


def _example(value: object) -> Any:  # noqa: ANN401 - an Example
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected an example to be an object of features, got {quote(value)}")
    made = Example()
    for name, content in value.items():
        made.features.feature[name].CopyFrom(
            _feature(name, content if isinstance(content, list) else [content])
        )
    return made


def _feature(name: str, values: list[object]) -> Any:  # noqa: ANN401 - a Feature
    made = Feature()
    first = ""
    for value in values:
        kind, item = _feature_item(name, value)
        first = first or kind
        if kind != first:
            raise InvalidRequestError(
                f"Unexpected element type in feature: {name} expecting type: {KINDS[first]}, got {KINDS[kind]}"
            )
        getattr(made, kind).value.append(item)
    return made


def _feature_item(name: str, value: object) -> tuple[str, bytes | int | float]:
    decoded = b64(value)
    if decoded is not None:
        return "bytes_list", decoded
    if isinstance(value, str):
        return "bytes_list", value.encode()
    if isinstance(value, int):  # bool too: features have no booleans
        if value not in INT64:
            raise InvalidRequestError(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    raise InvalidRequestError(
        f"feature {quote(name)}: expected numbers, strings or base64 data, got {quote(value)}"
    )
