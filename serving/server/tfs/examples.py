"""The tf.Examples of requests to classify and regress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.input_pb2 import Input

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import Array, strings
from serving.server.tfs.json import string_of

INT64 = range(-(2**63), 2**63)


def input_of(document: Mapping[str, object]) -> Any:
    """The Input that a REST request's "examples" and "context" describe. Raises `InvalidRequestError`."""
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        got = quote(examples) if "examples" in document else "none"
        raise InvalidRequestError(f'expected "examples" to be a list of objects, got {got}')
    made = [_example(example) for example in examples]
    if "context" in document:
        return Input(example_list_with_context={"context": _example(document["context"]), "examples": made})
    return Input(example_list={"examples": made})


def serialized(given: Any) -> Array:
    """The examples of an Input, object [N] of bytes, each with its context. Raises `InvalidRequestError`."""
    examples = getattr(given, given.WhichOneof("kind") or "example_list")
    # Serialized messages of one type, one after the other, are their merger.
    context = examples.context.SerializeToString() if hasattr(examples, "context") else b""
    if not examples.examples:
        raise InvalidRequestError("expected at least one example, got none")
    return strings([context + example.SerializeToString() for example in examples.examples])


def _example(value: object) -> Any:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected an example to be an object of features, got {quote(value)}")
    made = Example()
    for name, content in value.items():
        items = [_item(name, item) for item in (content if isinstance(content, list) else [content])]
        kinds = sorted({kind for kind, _ in items})
        if len(kinds) > 1:
            got = ", ".join(kinds)
            raise InvalidRequestError(f"feature {quote(name)}: expected values of one type, got {got}")
        feature = made.features.feature[name]
        for kind, item in items:
            getattr(feature, kind).value.append(item)
    return made


def _item(name: str, value: object) -> tuple[str, bytes | int | float]:
    """The field of a Feature that takes a value, and the value as that."""
    decoded = string_of(value)
    if decoded is not None:
        return "bytes_list", decoded
    if isinstance(value, int) and value in INT64:  # bool too: features have no booleans
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    raise InvalidRequestError(
        f"feature {quote(name)}: expected numbers of 64 bits, strings or base64 data, got {quote(value)}"
    )
