"""From the JSON values of TensorFlow Serving's REST to tensors: numbers without loss, strings, {"b64": ...}."""

from __future__ import annotations

import binascii

import ml_dtypes
import numpy as np

from serving.server.errors import InvalidRequestError, UnimplementedError
from serving.server.protocols.json_numbers import lists, numbers
from serving.server.signature import BYTES, Array, TensorSpec

EXACT = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}
"""Below this, a dtype holds every whole number."""


def tensor(spec: TensorSpec, value: object) -> Array:
    """What a value of nested lists stands for by its spec, in any shape.

    Raises `InvalidRequestError`, and `UnimplementedError` for complex numbers, which have no JSON.
    """
    if spec.dtype != BYTES:
        return _numbers(spec, value)
    value = lists(value)
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    strings = _strings(spec, value, shape)
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(shape)


def _numbers(spec: TensorSpec, value: object) -> Array:
    # numpy's own dtypes only: bfloat16 is read as what holds it.
    kind = "float32" if spec.dtype == "bfloat16" else spec.dtype
    if kind.startswith("complex"):
        raise UnimplementedError(f"input {spec.name!r}: Conversion of JSON Value to type: {kind}")
    try:
        array = numbers(spec.name, kind, value)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"JSON Value: {error}; is not of expected type: {_word(spec)}") from None
    limit = EXACT.get(spec.dtype)
    # NaN is not below anything: what follows is for the few requests that hold something odd.
    if limit is not None and array.size and not np.maximum.reduce(np.abs(array), axis=None).item() < limit:
        _check_exact(spec, lists(value), limit)
    return array.astype(spec.dtype, copy=False)


def _check_exact(spec: TensorSpec, value: object, limit: int) -> None:
    stack = [value]
    largest = float(ml_dtypes.finfo(spec.dtype).max)  # type: ignore[no-untyped-call]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif (isinstance(item, int) and abs(item) >= limit) or largest < abs(float(item)) < np.inf:  # type: ignore[arg-type]
            raise InvalidRequestError(
                f"Cannot convert JSON value: {glimpse(item)} to {_word(spec)} without loss of precision."
            )


def _word(spec: TensorSpec) -> str:
    return {"float32": "float", "float64": "double", "float16": "half"}.get(spec.dtype, spec.dtype)


def _strings(spec: TensorSpec, value: object, shape: list[int]) -> list[bytes]:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise InvalidRequestError(
                f"input {spec.name!r}: expected lists of equal lengths, got ragged data"
            )
        return [string for element in value for string in _strings(spec, element, shape[1:])]
    if isinstance(value, str):
        return [value.encode()]
    decoded = b64(value)
    if decoded is None:
        if isinstance(value, dict):
            raise InvalidRequestError(f"JSON Value: {glimpse(value)} not formatted correctly for base64 data")
        raise InvalidRequestError(
            f"input {spec.name!r}: JSON Value: {glimpse(value)} is not of expected type: string"
        )
    return [decoded]


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
        raise InvalidRequestError(f"Unable to base64 decode: {error}") from None


def glimpse(value: object) -> str:
    """The beginning of a JSON value, for a message."""
    text = str(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''}"
