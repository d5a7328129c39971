"""Bodies of inference over the Open Inference Protocol's REST: JSON, JSON with binary tensors, one bare tensor.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.http import Request, Response, parse_json
from serving.server.protocols import oip_codec
from serving.server.protocols.oip_parameters import check_offered, timeout_seconds
from serving.server.signature import BYTES, Array, Signature, Tensors, TensorSpec, dtype_of
from serving.server.versions import Version

HEADER_LENGTH = "inference-header-content-length"
PICTURES = ("image/png", "image/jpeg")


@dataclass
class Asked:
    """What an inference request asks for."""

    inputs: Tensors
    outputs: dict[str, bool]
    """By name: whether it goes back as binary."""
    binary: bool = False
    """Whether outputs go back as binary where the request names none."""
    id: str | None = None
    timeout: float | None = None
    """Seconds."""


def parse(request: Request, signature: Signature) -> Asked:
    """Read a request body. Raises `InvalidRequestError`."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in PICTURES:
        return Asked({_picture_input(signature, content_type): oip_codec.one(request.body)}, {})
    header, tail = _split(request)
    if len(header) == 0 and HEADER_LENGTH in request.headers:
        return Asked(_bare(signature, request.body), {}, binary=True)
    document = parse_json(header)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object with inputs, got {type(document).__name__}")
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        raise InvalidRequestError('expected "inputs", a list of tensors with name, datatype, shape and data')
    parsed = Asked({}, {}, id=_id(document.get("id")))
    position = 0
    pictures = {spec.name for spec in signature.inputs if spec.channels_of_picture is not None}
    for tensor in inputs:
        name, array, used = _tensor(tensor, tail[position:], pictures)
        if name in parsed.inputs:
            raise InvalidRequestError(f"input {name!r} is given twice")
        parsed.inputs[name] = array
        position += used
    if position != len(tail):
        raise InvalidRequestError(
            f"the inputs account for {position} bytes of binary data, but {len(tail)} came"
        )
    parameters = _parameters(document, "the", "request")
    parsed.binary = _flag(parameters, "binary_data_output", False)
    parsed.timeout = timeout_seconds(parameters)
    parsed.outputs = _wanted(document.get("outputs"), parsed.binary)
    return parsed


def _split(request: Request) -> tuple[memoryview, memoryview]:
    body = memoryview(request.body)
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdigit() and len(length) <= 18 and int(length) <= len(body)):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length is {length[:40]!r}: expected at most the body's {len(body)} bytes"
        )
    return body[: int(length)], body[int(length) :]


def _id(given: object) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise InvalidRequestError(f'expected "id" to be a string, got {type(given).__name__}')


def _tensor(tensor: object, tail: memoryview, pictures: set[str]) -> tuple[str, Array, int]:
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
        return name, oip_codec.from_json(name, str(datatype), shape, tensor["data"], name in pictures), 0
    if tensor.get("data") is not None:
        raise InvalidRequestError(f'input {name!r}: expected "data" or binary_data_size, got both')
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail):
        raise InvalidRequestError(
            f"input {name!r}: binary_data_size is {size!r}, but {len(tail)} bytes of binary data are left"
        )
    return name, oip_codec.from_raw(name, str(datatype), shape, tail[:size]), size


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


def _picture_input(signature: Signature, content_type: str) -> str:
    names = [spec.name for spec in signature.inputs if spec.channels_of_picture is not None]
    if len(signature.inputs) != 1 or not names:
        raise InvalidRequestError(
            f"a body of {content_type} needs a model whose one input is a batch of pictures"
        )
    return names[0]


def _bare(signature: Signature, body: bytes) -> Tensors:
    """The tensor of a raw binary request, which has no header: its shape follows from its size."""
    if len(signature.inputs) != 1 or signature.inputs[0].shape is None:
        raise InvalidRequestError(
            "a body without an inference header needs a model with one input of known rank"
        )
    spec = signature.inputs[0]
    free = [axis for axis, size in enumerate(spec.shape or ()) if size == -1]
    if spec.dtype == BYTES:
        return {spec.name: oip_codec.one(body).reshape([1] * len(spec.shape or ()))}
    if len(free) > 1:
        raise InvalidRequestError(
            f"a body without an inference header needs a model whose input has at most one free dimension; "
            f"{spec.name!r} has the shape {list(spec.shape or ())}"
        )
    return {
        spec.name: oip_codec.from_raw(
            spec.name, oip_codec.datatype(spec.dtype), _deduced(spec, len(body)), body
        )
    }


def _deduced(spec: TensorSpec, size: int) -> tuple[int, ...]:
    fixed = math.prod(n for n in spec.shape or () if n != -1) * np.dtype(spec.dtype).itemsize
    return tuple(size // max(fixed, 1) if n == -1 else n for n in spec.shape or ())


def respond(version: Version, asked: Asked, outputs: Tensors) -> Response:
    """The response, its outputs in JSON or binary as asked. Raises `InvalidRequestError` as `to_json` does."""
    described: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, array in outputs.items():
        tensor: dict[str, object] = {
            "name": name,
            "datatype": oip_codec.datatype(dtype_of(array)),
            "shape": list(array.shape),
        }
        if asked.outputs.get(name, asked.binary):
            blob = oip_codec.to_raw(array)
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = oip_codec.to_json(name, array)
        described.append(tensor)
    document: dict[str, object] = {"model_name": version.model, "model_version": str(version.number)}
    if asked.id is not None:
        document["id"] = asked.id
    document["outputs"] = described
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Response(header)
    return Response(
        b"".join([header, *blobs]),
        "application/octet-stream",
        headers=((HEADER_LENGTH.encode(), str(len(header)).encode()),),
    )
