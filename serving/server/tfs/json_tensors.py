"""From the JSON values of TensorFlow Serving's REST to tensors: numbers without loss, strings, {"b64": ...}."""

from __future__ import annotations

import binascii

import numpy as np

from serving.server.errors import InvalidRequestError, UnimplementedError
from serving.server.tensors.json_numbers import lists, numbers
from serving.server.tensors.signature import BYTES, Array, TensorSpec
from serving.server.tfs.json_faults import EXACT, dtype_word, fault, glimpse, is_lossy, lossy


def tensor(spec: TensorSpec, value: object, rows: bool = False) -> Array:
    """What a value of nested lists, or of `rows` of them, stands for by its spec, in any shape.

    Raises `InvalidRequestError`, and `UnimplementedError` for complex numbers, which have no JSON.
    """
    if spec.dtype.startswith("complex"):
        raise UnimplementedError(
            f"Conversion of JSON Value: {glimpse(value)} to type: {spec.dtype}; input {spec.name!r}"
        )
    try:
        return _texts(spec, lists(value)) if spec.dtype == BYTES else _numbers(spec, value)
    except InvalidRequestError as error:
        raise InvalidRequestError(fault(spec, lists(value), rows) or str(error)) from None


def _texts(spec: TensorSpec, value: object) -> Array:
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
    try:
        array = numbers(spec.name, "float32" if spec.dtype == "bfloat16" else spec.dtype, value)
    except InvalidRequestError as error:
        told = f"JSON Value: {error}; is not of expected type: {dtype_word(spec.dtype)}"
        raise InvalidRequestError(told) from None
    limit = EXACT.get(spec.dtype)
    # NaN is not below anything: what follows is for the few requests that hold something odd.
    if limit is not None and array.size and not np.maximum.reduce(np.abs(array), axis=None).item() < limit:
        _check_exact(spec.dtype, lists(value))
    return array.astype(spec.dtype, copy=False)


def _check_exact(dtype: str, value: object) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif is_lossy(dtype, item):  # type: ignore[arg-type]
            raise lossy(dtype, item)  # type: ignore[arg-type]


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
        raise InvalidRequestError(
            f"input {spec.name!r}: expected strings or base64 data, got {glimpse(value)}"
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
