"""The JSON that TensorFlow Serving's predict takes: row form, column form, and {"b64": ...} for strings.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson

from serving.server.errors import InvalidRequestError, quote
from serving.server.tensors.signature import Signature, Tensors
from serving.server.tfs.json_tensors import tensor

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse(body: bytes) -> dict[str, object]:
    """A request's JSON object, with NaN, Infinity and -Infinity, which JSON has not, but the original takes.

    Raises `InvalidRequestError`.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)  # Which clients on Windows send, and the original reads.
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise InvalidRequestError(f"expected JSON, but it cannot be read: {error}") from None
        document = _parse_with_nan(body)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object, got {quote(document)}")
    return document


def signature_name(document: Mapping[str, object]) -> str:
    """The signature that a request asks for, "" for the default. Raises `InvalidRequestError`."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequestError(f'expected "signature_name" to be a string, got {quote(name)}')
    return name


def read(document: Mapping[str, object], signature: Signature) -> tuple[Tensors, bool]:
    """The inputs of a request, and whether it is in row form. Raises `InvalidRequestError`."""
    rows = "instances" in document
    if rows == ("inputs" in document):
        raise InvalidRequestError(f'expected "instances" or "inputs", got {"both" if rows else "neither"}')
    columns = _rows(document["instances"], signature) if rows else _columns(document["inputs"], signature)
    given = (spec for spec in signature.inputs if spec.name in columns)
    return {spec.name: tensor(spec, columns[spec.name]) for spec in given}, rows


def _parse_with_nan(body: bytes) -> object:
    try:
        document = json.loads(body)
        orjson.dumps(document)  # It writes nothing that it would not read, such as half a surrogate pair.
        return document
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequestError(f"expected JSON, but it cannot be read: {error}") from None


def _rows(instances: object, signature: Signature) -> dict[str, object]:
    if not isinstance(instances, list) or not instances:
        raise InvalidRequestError(f'expected "instances" to be a list of rows, got {quote(instances)}')
    named = [_named(instance) for instance in instances]
    if not any(named):
        return {_only_input("instances", signature): instances}
    required = signature.required - signature.defaults.keys()
    keys = instances[0].keys() if named[0] else required
    for index, instance in enumerate(instances):
        if not named[index]:
            raise InvalidRequestError(
                f'row {index} of "instances": expected an object, like other rows; got none'
            )
        if not required <= instance.keys() <= signature.names or instance.keys() != keys:
            raise InvalidRequestError(
                f'row {index} of "instances": expected values of {", ".join(signature.input_names)}, the same in '
                f"each row; got {quote(', '.join(instance)) if instance else 'none'}"
            )
    return {name: [instance[name] for instance in instances] for name in keys}


def _columns(inputs: object, signature: Signature) -> dict[str, object]:
    if not isinstance(inputs, dict) or not _named(inputs):
        return {_only_input("inputs", signature): inputs}
    return inputs  # Like the original, it passes over what is no input.


def _only_input(key: str, signature: Signature) -> str:
    if len(signature.inputs) != 1:
        raise InvalidRequestError(
            f'expected "{key}" to name the values of {", ".join(signature.input_names) or "no input"}, got plain ones'
        )
    return signature.input_names[0]


def _named(value: object) -> bool:
    """Whether this is an object of named values, not {"b64": "..."}."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))
