"""Classification and regression: features become tf.Examples, and a signature's outputs become results.

https://www.tensorflow.org/tfx/serving/api_rest#classify_and_regress_api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from serving.server.dataplane import Call
from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import BYTES, DEFAULT_SIGNATURE, Array, Signatures, Tensors, dtype_of
from serving.server.tfs.json_tensors import b64

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
INPUTS, SCORES, CLASSES, OUTPUTS = "inputs", "scores", "classes", "outputs"
"""The names that signatures of these methods must give to their tensors."""

INT64 = range(-(2**63), 2**63)


def input_of(document: Mapping[str, object]) -> Any:  # noqa: ANN401 - an Input, whose package has no types
    """The Input that a REST request's "examples" and "context" describe. Raises `InvalidRequestError`."""
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        got = quote(examples) if "examples" in document else "none"
        raise InvalidRequestError(f'expected "examples" to be a list of objects, got {got}')
    made = Input()
    if "context" in document:
        made.example_list_with_context.context.CopyFrom(_example(document["context"]))
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
        raise InvalidRequestError("expected at least one example, got none")
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
        raise InvalidRequestError(f"the model has no signature {quote(key)}; it has: {known}")
    signature = signatures[key]
    if checked and signature.method != method:
        raise InvalidRequestError(f"expected a signature for {method}, but {key} is for {signature.method}")
    outputs = set(signature.output_names)
    fits = outputs == {OUTPUTS} if method == REGRESS else len(outputs) <= 2 and outputs & {CLASSES, SCORES}
    if signature.input_names != (INPUTS,) or not fits:
        wanted = OUTPUTS if method == REGRESS else f"{CLASSES} or {SCORES} or both"
        raise InvalidRequestError(
            f"expected a signature that takes {INPUTS} and gives {wanted}, but {key} takes "
            f"{', '.join(signature.input_names) or 'nothing'} and gives {', '.join(signature.output_names)}"
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
    if values.shape not in ((count,), (count, 1)) or values.dtype != np.float32:
        raise InvalidRequestError(
            f"expected {OUTPUTS} of dtype float32 and shape [{count}] or [{count}, 1], "
            f"got {dtype_of(values)} and {list(values.shape)}"
        )
    made = RegressionResult()
    for value in values.ravel().tolist():
        made.regressions.add().value = value
    return made


def _classifications(outputs: Tensors, count: int) -> Any:  # noqa: ANN401 - see above
    (shape, *others) = {array.shape for array in outputs.values()}
    if others or len(shape) != 2 or shape[0] != count:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise InvalidRequestError(f"expected outputs of one shape [{count}, number of classes], got {shapes}")
    for name, dtype in ((CLASSES, BYTES), (SCORES, "float32")):
        if name in outputs and dtype_of(outputs[name]) != dtype:
            raise InvalidRequestError(f"expected {name} of dtype {dtype}, got {dtype_of(outputs[name])}")
    width = shape[1]
    labels = outputs[CLASSES].tolist() if CLASSES in outputs else [[b""] * width] * count
    scores = outputs[SCORES].tolist() if SCORES in outputs else [[0.0] * width] * count
    made = ClassificationResult()
    for row_of_labels, row_of_scores in zip(labels, scores, strict=True):
        classes = made.classifications.add().classes
        for label, score in zip(row_of_labels, row_of_scores, strict=True):
            classes.add(label=label.decode("utf-8", "replace"), score=score)
    return made


def _example(value: object) -> Any:  # noqa: ANN401 - an Example
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected an example to be an object of features, got {quote(value)}")
    made = Example()
    for name, content in value.items():
        items = [_item(name, item) for item in (content if isinstance(content, list) else [content])]
        kinds = {kind for kind, _ in items}
        if len(kinds) > 1:
            raise InvalidRequestError(
                f"feature {quote(name)}: expected values of one type, got {', '.join(sorted(kinds))}"
            )
        feature = made.features.feature[name]
        for kind, item in items:
            getattr(feature, kind).value.append(item)
    return made


def _item(name: str, value: object) -> tuple[str, bytes | int | float]:
    """A value, and the field of a Feature that takes it."""
    decoded = value.encode() if isinstance(value, str) else b64(value)
    if decoded is not None:
        return "bytes_list", decoded
    if isinstance(value, int) and value in INT64:  # bool too: features have no booleans
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    raise InvalidRequestError(
        f"feature {quote(name)}: expected numbers of 64 bits, strings or base64 data, got {quote(value)}"
    )
