"""What an inference request over the Open Inference Protocol's REST says beside the values of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.server.errors import InvalidRequestError
from serving.server.http import parse_json
from serving.server.protocols import oip_codec
from serving.server.protocols.json_arrays import PLACE
from serving.server.oip.parameters import check_offered, timeout_seconds

ID = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"([^"\\\x00-\x1f]*)"')
ID_PLACE = "\1"
"""Stands for a request's id in what is remembered: no other string there can be this character."""

MOST_REMEMBERED = 256
LARGEST_REMEMBERED = 2048
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Given:
    """An input: its values are `data`, or `size` bytes of the binary data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: object
    size: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its binary data."""

    inputs: tuple[Given, ...]
    outputs: Mapping[str, bool]
    """By name: whether it goes back as binary."""
    binary: bool
    """Whether outputs go back as binary where the request names none."""
    id: str | None
    """`ID_PLACE` where it was cut out."""
    timeout: float | None
    """Seconds."""


_remembered: dict[bytes, Head] = {}


def recall(text: bytes) -> tuple[Head, str | None]:
    """`parse` for requests like earlier ones, and the request's id.

    Clients repeat their heads, all but the id, with every request: the last ones are remembered.
    """
    if len(text) > LARGEST_REMEMBERED:
        head = parse(text)
        return head, head.id
    found = ID.search(text) if text.isascii() else None
    if found is not None:
        key = text[: found.start(1)] + b"\\u0001" + text[found.end(1) :]
        head = _remembered.get(key) or _remember(key)
        if head.id == ID_PLACE and key.count(b"\\u0001") == 1:
            return head, found[1].decode()
    head = _remembered.get(text) or _remember(text)
    return head, head.id


def _remember(text: bytes) -> Head:
    head = parse(text)
    # What holds values or an id comes once.
    values = [given.data for given in head.inputs if given.data is not None]
    if head.id in (None, ID_PLACE) and all(
        isinstance(value, str) and value.startswith(PLACE) for value in values
    ):
        if len(_remembered) == MOST_REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[text] = head
    return head


def parse(text: bytes) -> Head:
    """The head of a request. Raises `InvalidRequestError`."""
    document = parse_json(text)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object with inputs, got {type(document).__name__}")
    tensors = document.get("inputs")
    if not isinstance(tensors, list):
        raise InvalidRequestError('expected "inputs", a list of tensors with name, datatype, shape and data')
    inputs = tuple(_given(tensor) for tensor in tensors)
    names: set[str] = set()
    for given in inputs:
        if given.name in names:
            raise InvalidRequestError(f"input {given.name!r} is given twice")
        names.add(given.name)
    parameters = _parameters(document, "the", "request")
    binary = _flag(parameters, "binary_data_output", False)
    return Head(
        inputs,
        _wanted(document.get("outputs"), binary),
        binary,
        _id(document.get("id")),
        timeout_seconds(parameters),
    )


def _id(given: object) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise InvalidRequestError(f'expected "id" to be a string, got {type(given).__name__}')


def _given(tensor: object) -> Given:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidRequestError("expected each input to be an object with a name")
    name: str = tensor["name"]
    datatype = tensor.get("datatype")
    oip_codec.dtype(name, datatype)
    parameters = _parameters(tensor, "input", name)
    check_offered(parameters, "input", name)
    shape = oip_codec.shape(name, tensor.get("shape"))
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise InvalidRequestError(f'input {name!r}: expected "data", or the parameter binary_data_size')
    elif tensor.get("data") is not None:
        raise InvalidRequestError(f'input {name!r}: expected "data" or binary_data_size, got both')
    elif not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidRequestError(
            f"input {name!r}: expected binary_data_size to be a number of bytes, got {str(size)[:80]!r}"
        )
    return Given(name, str(datatype), shape, tensor.get("data"), size)


def _wanted(outputs: object, binary: bool) -> dict[str, bool]:
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise InvalidRequestError(f'expected "outputs" to be a list, got {type(outputs).__name__}')
    wanted: dict[str, bool] = {}
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidRequestError("expected each output to be an object with a name")
        name: str = output["name"]
        if name in wanted:
            raise InvalidRequestError(f"output {name!r} is asked for twice")
        parameters = _parameters(output, "output", name)
        check_offered(parameters, "output", name)
        wanted[name] = _flag(parameters, "binary_data", binary)
    return wanted


def _parameters(holder: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(
            f"{kind} {name}: expected parameters to be an object, got {type(parameters).__name__}"
        )
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(
            f"expected the parameter {name} to be true or false, got {str(value)[:80]!r}"
        )
    return value
