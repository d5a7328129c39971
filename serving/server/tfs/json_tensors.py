"""Tensors from and to the values of TensorFlow Serving's JSON: numbers, strings, {"b64": ...}, rows and columns.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import binascii
import json

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError, UnimplementedError, quote
from serving.server.tensors.json_numbers import flatten, numbers
from serving.server.tensors.signature import BYTES, Array, Tensors, TensorSpec, is_floating


def tensor(spec: TensorSpec, value: object) -> Array:
    """What a value of nested lists stands for by its spec's dtype, in any shape.

    Raises `InvalidRequestError`, and `UnimplementedError` for complex numbers, which have no JSON.
    """
    if spec.dtype.startswith("complex"):
        raise UnimplementedError(f"input {spec.name!r}: {spec.dtype} has no JSON; send it over gRPC")
    if spec.dtype != BYTES:
        return numbers(spec.name, spec.dtype, value)
    flat, shape = flatten(spec.name, value)
    array: Array = np.empty(len(flat), object)
    array[:] = [_string(spec, item) for item in flat]
    return array.reshape(shape)


def _string(spec: TensorSpec, value: object) -> bytes:
    decoded = value.encode() if isinstance(value, str) else b64(value)
    if decoded is None:
        raise InvalidRequestError(
            f'input {spec.name!r}: expected strings or {{"b64": "..."}} in lists of equal lengths, got {quote(value)}'
        )
    return decoded


def b64(value: object) -> bytes | None:
    """What {"b64": "..."} stands for, None for anything else. Raises `InvalidRequestError` where it is no base64."""
    if not isinstance(value, dict) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        return None
    text = value["b64"]
    if "=" not in text:
        text += "=" * (-len(text) % 4)  # Padding may be left out, but not halved.
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(f'expected base64 in {{"b64": ...}}, got {quote(text)}: {error}') from None


def write(outputs: Tensors, rows: bool) -> bytes:
    """The response body. Raises `InvalidRequestError` where row form is asked of outputs that are no rows."""
    values = {name: _value(name, array) for name, array in outputs.items()}
    plain = len(values) == 1
    if not rows:
        return wrap("outputs", *values.values()) if plain else wrap("outputs", values)
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) != 1 or () in lengths:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise InvalidRequestError(f'expected outputs of equally many rows, got {shapes}: ask with "inputs"')
    if plain:
        return wrap("predictions", *values.values())
    return wrap(
        "predictions", [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    )


def wrap(key: str, value: object) -> bytes:
    """An object of one member, on lines of its own as the original has it; what is inside stays on one line."""
    return b'{\n    "%b": %b\n}' % (key.encode(), _dumps(value))


def _dumps(value: object) -> bytes:
    """JSON in which numbers that are not finite stand as NaN, Infinity and -Infinity, as the original writes them."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:  # which nothing here but such a number becomes
        return text
    return json.dumps(value, default=lambda array: array.tolist(), separators=(",", ":")).encode()


def _value(name: str, array: Array) -> object:
    """What `_dumps` writes as the tensor: strings whose output's name ends in _bytes as base64, as in the original."""
    if array.dtype.kind == "c":
        raise InvalidRequestError(f"output {name!r}: {array.dtype.name} has no JSON; ask over gRPC")
    if array.dtype != np.object_:
        array = array.astype(np.float32) if is_floating(array) and array.itemsize == 2 else array
        return np.ascontiguousarray(array) if array.ndim else array.item()
    if name.endswith("_bytes"):
        texts = np.frompyfunc(lambda value: {"b64": base64.b64encode(value).decode()}, 1, 1)(array)
    else:
        texts = np.frompyfunc(lambda value: value.decode("utf-8", "replace"), 1, 1)(array)
    return texts.tolist() if isinstance(texts, np.ndarray) else texts
