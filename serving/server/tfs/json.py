"""The JSON that TensorFlow Serving's predict takes: row form, column form, and {"b64": ...} for strings.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import orjson

from serving.server.errors import InvalidRequestError
from serving.server.protocols.json_arrays import JsonArray, cut, place
from serving.server.tensors.signature import Signature, Tensors
from serving.server.tfs.json_faults import glimpse
from serving.server.tfs.json_tensors import b64, tensor

ARRAY = re.compile(rb'"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
"""What precedes an array that is a value of an object."""
KEYS = ("instances", "inputs")
WORTH_CUTTING = 2048
"""Bytes: for less, setting up simdjson takes longer than orjson takes for all."""
ODD_OR_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"|(-?)\bInf\b|-(NaN)\b')
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse(body: bytes) -> dict[str, object]:
    """A request's JSON object, with NaN, Infinity and -Infinity, which JSON has not, but the original takes.

    Raises `InvalidRequestError`.
    """
    if not body:
        raise InvalidRequestError("JSON Parse error: The document is empty")
    body = body.removeprefix(BYTE_ORDER_MARK)  # Which clients on Windows send, and the original reads.
    document: object = _parse_cut(body) if len(body) > WORTH_CUTTING else None
    try:
        document = orjson.loads(body) if document is None else document
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Inf" not in body:
            hint = "; at most 1024 levels are read" if "depth" in str(error) else ""
            raise InvalidRequestError(f"JSON Parse error: Invalid value. {error}{hint}") from None
        document = _parse_with_nan(body)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"JSON Value: {glimpse(document)} Is not object")
    return document


def signature_name(document: Mapping[str, object]) -> str:
    """The signature that a request asks for, "" for the default. Raises `InvalidRequestError`."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequestError(
            f"JSON Value: {glimpse(name)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read(document: Mapping[str, object], signature: Signature) -> tuple[Tensors, bool]:
    """The inputs of a request, and whether it is in row form. Raises `InvalidRequestError`."""
    rows = "instances" in document
    if rows and "inputs" in document:
        raise InvalidRequestError(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    if not rows and "inputs" not in document:
        raise InvalidRequestError("Missing 'inputs' or 'instances' key")
    specs = {spec.name: spec for spec in signature.inputs}
    columns = _rows(document["instances"], signature) if rows else _columns(document["inputs"], signature)
    return {name: tensor(specs[name], value, rows) for name, value in columns.items()}, rows


def _parse_cut(body: bytes) -> dict[str, object] | None:
    """A request's object with its large arrays of numbers unread; None where it holds none, or might be no JSON."""
    rest, arrays = cut(body, ARRAY, WORTH_CUTTING)
    if not arrays:
        return None
    try:
        document = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    placed = _place(document, KEYS, arrays)
    for key in KEYS:
        rows = document.get(key)
        for row in rows if isinstance(rows, list) else (rows,):
            if isinstance(row, dict):
                placed += _place(row, list(row), arrays)
    return document if placed == len(arrays) else None


def _place(holder: dict[str, object], names: Iterable[str], arrays: Sequence[JsonArray]) -> int:
    """Put arrays where they were cut out, and count them."""
    found = {name: array for name in names if (array := place(holder.get(name), arrays)) is not None}
    holder.update(found)
    return len(found)


def _parse_with_nan(body: bytes) -> object:
    # The original takes Inf for Infinity and -NaN for NaN; strings stay as they are.
    def usual(found: re.Match[bytes]) -> bytes:
        return found[2] or (found[0] if found[1] is None else found[1] + b"Infinity")

    text = ODD_OR_STRING.sub(usual, body)
    try:
        document = json.loads(text)
        orjson.dumps(
            document
        )  # What it would not write, such as half a surrogate pair, it would not have read.
        return document
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequestError(f"JSON Parse error: Invalid value. {error}") from None


def _rows(instances: object, signature: Signature) -> dict[str, object]:
    if not isinstance(instances, list | JsonArray):
        raise InvalidRequestError(
            f"JSON Value: {glimpse(instances)} Expecting 'instances' to be an list/array"
        )
    if not instances:
        raise InvalidRequestError("No values in 'instances' array: expected at least one")
    if isinstance(instances, JsonArray) or not _named(instances[0]):
        name = _only_input("instances is a plain list, but expecting list of objects", signature)
        for index, instance in enumerate(() if isinstance(instances, JsonArray) else instances):
            if _named(instance):
                raise InvalidRequestError(
                    f"Expecting value/list but got object at item {index} of input list"
                )
        return {name: instances}
    columns: dict[str, list[object]] = {name: [] for name in instances[0]}
    expected = {spec.name for spec in signature.inputs}
    fits = expected - signature.defaults.keys() <= columns.keys() <= expected
    for index, instance in enumerate(instances):
        if not _named(instance):
            raise InvalidRequestError(f"Expecting object but got list at item {index} of input list")
        if not fits or instance.keys() != columns.keys():
            raise _unfit(index, instance, expected)
        for name, value in instance.items():
            columns[name].append(value)
    return dict(columns)


def _unfit(index: int, instance: Mapping[str, object], expected: set[str]) -> InvalidRequestError:
    unknown = sorted(instance.keys() - expected)
    keys = f"keys must be equal to: {','.join(sorted(expected))}"
    if unknown:
        return InvalidRequestError(
            f"Failed to process element: {index} key: {unknown[0]} of 'instances' list. Error: INVALID_ARGUMENT: "
            f"JSON object: does not have named input: {', '.join(unknown)}; {keys}"
        )
    return InvalidRequestError(
        f"Failed to process element: {index} of 'instances' list. JSON object: {glimpse(instance)} {keys}"
    )


def _columns(inputs: object, signature: Signature) -> dict[str, object]:
    if not isinstance(inputs, dict) or b64(inputs) is not None:
        return {_only_input("inputs is a plain value/list, but expecting an object", signature): inputs}
    names = [spec.name for spec in signature.inputs]
    for name in names:
        if name not in inputs and name not in signature.defaults:
            raise InvalidRequestError(f"Missing named input: {name} in 'inputs' object.")
    # Like the original, it passes over what is no input.
    return {name: inputs[name] for name in names if name in inputs}


def _only_input(complaint: str, signature: Signature) -> str:
    names = [spec.name for spec in signature.inputs]
    if len(names) != 1:
        raise InvalidRequestError(
            f"{complaint} as multiple input tensors required as per tensorinfo_map: {', '.join(names) or 'none'}"
        )
    return names[0]


def _named(value: object) -> bool:
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))
