"""TensorFlow Serving's requests as calls of a signature, their tf.Examples, and their results.

https://www.tensorflow.org/tfx/serving/api_rest#classify_and_regress_api
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.inference_pb2 import MultiInferenceResponse
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from serving.server.dataplane import Call
from serving.server.errors import FailedPreconditionError, InvalidRequestError, UnimplementedError, quote
from serving.server.tensors.signature import (
    BYTES,
    DEFAULT_SIGNATURE,
    Array,
    Signatures,
    Tensors,
    dtype_of,
    shapes,
    signature_of,
    strings,
)
from serving.server.tfs.json import string_of
from serving.server.tfs.tensors import from_proto

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
INPUTS, SCORES, CLASSES, OUTPUTS = "inputs", "scores", "classes", "outputs"
"""The tensor names that signatures of these methods must have."""

Infer = Callable[[Call], Awaitable[Tensors]]
"""Runs a call of a version."""


def input_of(document: Mapping[str, object]) -> Any:
    """Return the Input for the "examples" and "context" of a REST request. Raises `InvalidRequestError`."""
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        got = quote(examples) if "examples" in document else "none"
        raise InvalidRequestError(f'expected "examples" to be a list of objects, got {got}')
    made = [_example(example) for example in examples]
    if "context" in document:
        return Input(example_list_with_context={"context": _example(document["context"]), "examples": made})
    return Input(example_list={"examples": made})


def _serialized(given: Any) -> Array:
    """Serialize the examples of an Input, each with its context: object [N] of bytes. Raises `InvalidRequestError`."""
    examples = getattr(given, given.WhichOneof("kind") or "example_list")
    # Concatenated messages of one type are their merger.
    context = examples.context.SerializeToString() if hasattr(examples, "context") else b""
    if not examples.examples:
        raise InvalidRequestError("expected at least one example, got none")
    return strings([context + example.SerializeToString() for example in examples.examples])


def predict_call(request: Any, signatures: Signatures, max_bytes: int) -> Call:
    """Return the call for a PredictRequest. Raises `InvalidRequestError` or another `ServerError`."""
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature_of(signatures, key, FailedPreconditionError)
    inputs = {name: from_proto(name, proto, max_bytes) for name, proto in request.inputs.items()}
    return Call(inputs, tuple(request.output_filter), key, pictures=False)


async def by_examples(
    infer: Infer, signatures: Signatures, method: str, key: str, given: Any
) -> tuple[str, Any]:
    """Run the examples of an Input; returns the key of the signature and its result.

    Raises `InvalidRequestError`, and as `infer` does.
    """
    key = key or DEFAULT_SIGNATURE
    signature = signature_of(signatures, key)
    wanted = (OUTPUTS,) if method == REGRESS else (CLASSES, SCORES)
    outputs = tuple(name for name in wanted if name in signature.output_names)
    if signature.input_names != (INPUTS,) or not outputs or len(signature.outputs) > len(wanted):
        raise InvalidRequestError(
            f"expected a signature that takes {INPUTS} and gives {' or '.join(wanted)}, but {key} takes "
            f"{', '.join(signature.input_names) or 'nothing'} and gives {', '.join(signature.output_names)}"
        )
    examples = _serialized(given)
    found = await infer(Call({INPUTS: examples}, outputs, key, pictures=False))
    if method == REGRESS:
        return key, _regressions(found[OUTPUTS], len(examples))
    return key, _classes(found, len(examples))


def tasks_of(request: Any) -> Any:
    """Return the tasks of a MultiInferenceRequest: at least one, all of one model. Raises `InvalidRequestError`."""
    names = sorted({task.model_spec.name for task in request.tasks})
    if len(names) != 1 or names == [""]:
        got = quote(", ".join(names)) if names else "none"
        raise InvalidRequestError(f"expected tasks of one model, named in each ModelSpec, got {got}")
    return request.tasks


async def by_tasks(infer: Infer, signatures: Signatures, request: Any, spec_of: Callable[[str], Any]) -> Any:
    """Return a MultiInferenceResponse; `spec_of` returns the ModelSpec of a signature. Raises `ServerError`."""
    response = MultiInferenceResponse()
    keys: set[str] = set()
    for task in tasks_of(request):
        method = task.method_name
        if method not in (CLASSIFY, REGRESS):
            raise UnimplementedError(f"expected tasks by {CLASSIFY} or {REGRESS}, got {quote(method)}")
        name = task.model_spec.signature_name
        key, result = await by_examples(infer, signatures, method, name, request.input)
        if key in keys:
            raise InvalidRequestError(f"expected tasks by different signatures, got {key} twice")
        keys.add(key)
        field = "classification_result" if method == CLASSIFY else "regression_result"
        response.results.add(model_spec=spec_of(key), **{field: result})
    return response


def _regressions(values: Array, count: int) -> Any:
    if values.shape not in ((count,), (count, 1)) or values.dtype != np.float32:
        raise InvalidRequestError(
            f"expected {OUTPUTS} of dtype float32 and shape [{count}] or [{count}, 1], "
            f"got {dtype_of(values)} and {list(values.shape)}"
        )
    return RegressionResult(regressions=[{"value": value} for value in values.ravel().tolist()])


def _classes(outputs: Tensors, count: int) -> Any:
    (shape, *others) = {array.shape for array in outputs.values()}
    if others or len(shape) != 2 or shape[0] != count:
        expected = f"expected outputs of one shape [{count}, number of classes]"
        raise InvalidRequestError(f"{expected}, got {shapes(outputs)}")
    for name, dtype in ((CLASSES, BYTES), (SCORES, "float32")):
        if name in outputs and dtype_of(outputs[name]) != dtype:
            raise InvalidRequestError(f"expected {name} of dtype {dtype}, got {dtype_of(outputs[name])}")
    labels = outputs.get(CLASSES, np.full(shape, b"", object)).tolist()
    scores = outputs.get(SCORES, np.zeros(shape)).tolist()
    result = ClassificationResult()
    for row in zip(labels, scores, strict=True):
        classes = result.classifications.add().classes
        for label, score in zip(*row, strict=True):
            classes.add(label=label.decode("utf-8", "replace"), score=score)
    return result


def _example(value: object) -> Any:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected an example to be an object of features, got {quote(value)}")
    made = Example()
    for name, content in value.items():
        items = [_item(name, item) for item in (content if isinstance(content, list) else [content])]
        kinds = sorted({kind for kind, _ in items})
        if len(kinds) > 1:
            expected = f"feature {quote(name)}: expected values of one type"
            raise InvalidRequestError(f"{expected}, got {', '.join(kinds)}")
        for kind, item in items:
            getattr(made.features.feature[name], kind).value.append(item)
    return made


def _item(name: str, value: object) -> tuple[str, bytes | int | float]:
    """Return the field of a Feature for a value, and the value to store."""
    decoded = string_of(value)
    if decoded is not None:
        return "bytes_list", decoded
    if isinstance(value, int) and -(2**63) <= value < 2**63:  # bool too: features have no booleans
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    expected = "expected numbers of 64 bits, strings or base64 data"
    raise InvalidRequestError(f"feature {quote(name)}: {expected}, got {quote(value)}")
