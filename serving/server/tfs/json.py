"""TensorFlow Serving's JSON: rows and columns of numbers, strings and {"b64": ...}, from and to tensors.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError, UnimplementedError, quote
from serving.server.tensors.json_numbers import flatten, numbers
from serving.server.tensors.signature import (
    BYTES,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    is_floating,
    shapes,
    strings,
)


def parse(body: bytes) -> dict[str, object]:
    """Parse a request's JSON object; NaN, Infinity and -Infinity are accepted, as in the original.

    Raises `InvalidRequestError`.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")  # Clients on Windows send it, and the original accepts it.
    try:
        document = _loads(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequestError(f"expected JSON, but it cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object, got {quote(document)}")
    return document


def _loads(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
        document = json.loads(body)
        orjson.dumps(document)  # Raises for what it would not read, such as half a surrogate pair.
        return document


def signature_name(document: Mapping[str, object]) -> str:
    """Return the name of the signature to call, "" for the default. Raises `InvalidRequestError`."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequestError(f'expected "signature_name" to be a string, got {quote(name)}')
    return name


def read(document: Mapping[str, object], signature: Signature) -> tuple[Tensors, bool]:
    """Return the inputs of a request, and True if it is in row form. Raises `InvalidRequestError`."""
    rows = "instances" in document
    if rows == ("inputs" in document):
        raise InvalidRequestError(f'expected "instances" or "inputs", got {"both" if rows else "neither"}')
    columns = document["inputs"] if not rows else _rows(document["instances"], signature)
    if not _named(columns):
        columns = {_only_input("inputs", signature): columns}
    # Others are ignored, as in the original.
    given = (spec for spec in signature.inputs if spec.name in columns)
    return {spec.name: _tensor(spec, columns[spec.name]) for spec in given}, rows


def string_of(value: object) -> bytes | None:
    """Return the bytes of a string or {"b64": "..."}; None for other values. Raises `InvalidRequestError`."""
    if isinstance(value, str):
        return value.encode()
    if not _is_b64(value):
        return None
    text = value["b64"]
    if "=" not in text:
        text += "=" * (-len(text) % 4)  # Padding may be left out, but not halved.
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(f'expected base64 in {{"b64": ...}}, got {quote(text)}: {error}') from None


def write(outputs: Tensors, rows: bool) -> bytes:
    """Return the response body. Raises `InvalidRequestError` if the outputs cannot be written in row form."""
    values = {name: _value(name, array) for name, array in outputs.items()}
    plain = next(iter(values.values())) if len(values) == 1 else None
    if not rows:
        return wrap("outputs", values if plain is None else plain)
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) != 1 or () in lengths:
        got = f'{shapes(outputs)}: ask with "inputs"'
        raise InvalidRequestError(f"expected outputs of equally many rows, got {got}")
    if plain is not None:
        return wrap("predictions", plain)
    together = zip(*values.values(), strict=True)
    return wrap("predictions", [dict(zip(values, row, strict=True)) for row in together])


def wrap(key: str, value: object) -> bytes:
    """Return a JSON object of one member, with the line breaks of the original."""
    return b'{\n    "%b": %b\n}' % (key.encode(), _dumps(value))


def _rows(instances: object, signature: Signature) -> dict[str, object]:
    if not isinstance(instances, list) or not instances:
        raise InvalidRequestError(f'expected "instances" to be a list of rows, got {quote(instances)}')
    if not any(map(_named, instances)):
        return {_only_input("instances", signature): instances}
    wanted = instances[0].keys() if _named(instances[0]) else signature.required
    for index, instance in enumerate(instances):
        keys = instance.keys() if _named(instance) else None
        if keys is None or not signature.required <= keys <= signature.names or keys != wanted:
            raise InvalidRequestError(
                f'row {index} of "instances": expected values of {", ".join(signature.input_names)}, the same in '
                f"each row; got {quote(', '.join(keys)) if keys else 'none'}"
            )
    return {name: [instance[name] for instance in instances] for name in wanted}


def _only_input(key: str, signature: Signature) -> str:
    if len(signature.inputs) != 1:
        names = ", ".join(signature.input_names) or "no input"
        raise InvalidRequestError(f'expected "{key}" to name the values of {names}, got plain ones')
    return signature.input_names[0]


def _named(value: object) -> TypeGuard[dict[str, object]]:
    """Return True if this is an object of named values."""
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _tensor(spec: TensorSpec, value: object) -> Array:
    """Return the array of a value of nested lists, of the spec's dtype and any shape."""
    if spec.dtype.startswith("complex"):
        raise UnimplementedError(f"input {spec.name!r}: {spec.dtype} has no JSON; send it over gRPC")
    if spec.dtype != BYTES:
        return numbers(spec.name, spec.dtype, value)
    items, shape = flatten(spec.name, value)
    found = []
    for item in items:
        text = string_of(item)
        if text is None:
            raise spec.refused(
                f'expected strings or {{"b64": "..."}} in lists of equal lengths, got {quote(item)}'
            )
        found.append(text)
    return strings(found).reshape(shape)


def _dumps(value: object) -> bytes:
    """Return JSON; numbers that are not finite are NaN, Infinity and -Infinity, as in the original."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:  # only such a number becomes null here
        return text
    return json.dumps(value, default=lambda array: array.tolist(), separators=(",", ":")).encode()


def _value(name: str, array: Array) -> object:
    """Return the value for `_dumps`: strings are base64 if the output's name ends in _bytes, as in the original."""
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
