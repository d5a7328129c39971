"""The JSON of TensorFlow Serving's predict: row form, column form, and {"b64": ...} for strings."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.protocols.json_numbers import numbers
from serving.server.signature import BYTES, Array, Signature, Tensors, TensorSpec


def read(document: Mapping[str, object], signature: Signature) -> tuple[Tensors, bool]:
    """The inputs of a request, and whether it is in row form. Raises `InvalidRequestError`."""
    if ("instances" in document) == ("inputs" in document):
        raise InvalidRequestError(
            'expected one of "instances" (row form) and "inputs" (column form), got both or none'
        )
    rows = "instances" in document
    columns = _rows(document["instances"], signature) if rows else _columns(document["inputs"], signature)
    specs = {spec.name: spec for spec in signature.inputs}
    unknown = [name for name in columns if name not in specs]
    if unknown or len(columns) < len(specs):
        raise InvalidRequestError(f"expected inputs {', '.join(specs)}, got {', '.join(columns) or 'none'}")
    return {name: _tensor(specs[name], value) for name, value in columns.items()}, rows


def write(outputs: Tensors, rows: bool) -> bytes:
    """The response body. Raises `InvalidRequestError` where row form is asked of outputs that are no rows."""
    finite = all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())
    values = {name: _value(name, array) for name, array in outputs.items()}
    document: dict[str, object]
    if not rows:
        document = {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    else:
        counts = {len(array) if array.ndim else None for array in outputs.values()}
        if len(counts) != 1 or None in counts:
            raise InvalidRequestError("the outputs are no rows of one batch: ask in column form, with inputs")
        document = {"predictions": _predictions(values)}
    if finite:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # TensorFlow Serving writes NaN and Infinity, which are no JSON, and which orjson would turn into null.
    return json.dumps(document, default=lambda array: array.tolist()).encode()


def _rows(instances: object, signature: Signature) -> dict[str, object]:
    if not isinstance(instances, list) or not instances:
        raise InvalidRequestError(
            f'expected "instances" to be a list of at least one, got {_glimpse(instances)}'
        )
    if not _named(instances[0]):
        if len(signature.inputs) != 1:
            names = ", ".join(spec.name for spec in signature.inputs)
            raise InvalidRequestError(f"expected each instance to be an object with {names}, got bare values")
        if any(_named(instance) for instance in instances):
            raise InvalidRequestError("expected instances of one kind, got objects among bare values")
        return {signature.inputs[0].name: instances}
    columns: dict[str, list[object]] = {name: [] for name in instances[0]}
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != columns.keys():
            raise InvalidRequestError(
                f"instance {index}: expected an object with {', '.join(columns)}, as instance 0"
            )
        for name, value in instance.items():
            columns[name].append(value)
    return dict(columns)


def _columns(inputs: object, signature: Signature) -> dict[str, object]:
    if isinstance(inputs, dict) and _named(inputs):
        return dict(inputs)
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise InvalidRequestError(f'expected "inputs" to be an object with {names}, got {_glimpse(inputs)}')
    return {signature.inputs[0].name: inputs}


def _named(value: object) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _tensor(spec: TensorSpec, value: object) -> Array:
    if spec.dtype != BYTES:
        if _holds_base64(value):
            raise InvalidRequestError(
                f"input {spec.name!r}: expected numbers of dtype {spec.dtype}, got base64 strings"
            )
        return numbers(spec.name, spec.dtype, value)
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    strings = _strings(spec, value, shape)
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(shape)


def _holds_base64(value: object) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict)


def _strings(spec: TensorSpec, value: object, shape: list[int]) -> list[bytes]:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise InvalidRequestError(
                f"input {spec.name!r}: expected lists of equal lengths, got ragged data"
            )
        return [string for element in value for string in _strings(spec, element, shape[1:])]
    if isinstance(value, str):
        return [value.encode()]
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return [binascii.a2b_base64(value["b64"], strict_mode=True)]
        except (binascii.Error, ValueError) as error:
            raise InvalidRequestError(f"input {spec.name!r}: {{'b64'}} is no base64: {error}") from None
    raise InvalidRequestError(
        f'input {spec.name!r}: expected strings or {{"b64": ...}}, got {_glimpse(value)}'
    )


def _value(name: str, array: Array) -> object:
    if array.dtype != np.object_:
        array = array.astype(np.float32) if array.dtype == np.float16 else array
        return np.ascontiguousarray(array) if array.ndim else array.item()
    if name.endswith("_bytes"):
        encoded = np.frompyfunc(lambda value: {"b64": base64.b64encode(value).decode()}, 1, 1)(array)
    else:
        encoded = np.frompyfunc(lambda value: value.decode("utf-8", "replace"), 1, 1)(array)
    return encoded.tolist() if isinstance(encoded, np.ndarray) else encoded


def _predictions(values: Mapping[str, object]) -> object:
    if len(values) == 1:
        return next(iter(values.values()))
    columns: list[list[object]] = [list(column) for column in values.values()]  # type: ignore[call-overload]
    return [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]


def _glimpse(value: object) -> str:
    text = str(value)
    return f"{type(value).__name__} {text[:60]}{'…' if len(text) > 60 else ''}"
