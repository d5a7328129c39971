"""Bodies of inference over the Open Inference Protocol's REST: JSON, JSON with binary tensors, one picture.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.http import Request, Response, parse_json
from serving.server.protocols import oip_codec
from serving.server.signature import Array, Signature, Tensors, dtype_of
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
    id: str = ""


def parse(request: Request, signature: Signature) -> Asked:
    """Read a request body. Raises `InvalidRequestError`."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in PICTURES:
        return Asked({_picture_input(signature, content_type): _one(request.body)}, {})
    header, tail = _split(request)
    document = parse_json(header)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object with inputs, got {type(document).__name__}")
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        raise InvalidRequestError('expected "inputs", a list of tensors with name, datatype, shape and data')
    parsed = Asked({}, {}, id=str(document.get("id", "")))
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
    parsed.binary = _parameters(document, "the request").get("binary_data_output") is True
    parsed.outputs = _wanted(document.get("outputs"), parsed.binary)
    return parsed


def _split(request: Request) -> tuple[memoryview, memoryview]:
    body = memoryview(request.body)
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return body, memoryview(b"")
    if not length.isdigit() or int(length) > len(body):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length is {length!r}: expected at most the body's {len(body)} bytes"
        )
    return body[: int(length)], body[int(length) :]


def _tensor(tensor: object, tail: memoryview, pictures: set[str]) -> tuple[str, Array, int]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidRequestError("expected each input to be an object with a name")
    name: str = tensor["name"]
    datatype = tensor.get("datatype")
    oip_codec.dtype(name, datatype)
    shape = oip_codec.shape(name, tensor.get("shape"))
    size = _parameters(tensor, f"input {name!r}").get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise InvalidRequestError(f'input {name!r}: expected "data", or the parameter binary_data_size')
        return name, oip_codec.from_json(name, str(datatype), shape, tensor["data"], name in pictures), 0
    if not isinstance(size, int) or not 0 <= size <= len(tail):
        raise InvalidRequestError(
            f"input {name!r}: binary_data_size is {size!r}, but {len(tail)} bytes of binary data are left"
        )
    return name, oip_codec.from_raw(name, str(datatype), shape, tail[:size]), size


def _wanted(outputs: object, binary: bool) -> dict[str, bool]:
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise InvalidRequestError(f'expected "outputs" to be a list, got {type(outputs).__name__}')
    wanted = {}
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidRequestError("expected each output to be an object with a name")
        as_binary = _parameters(output, f"output {output['name']!r}").get("binary_data", binary)
        wanted[output["name"]] = as_binary is True
    return wanted


def _parameters(holder: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequestError(
            f"{what}: expected parameters to be an object, got {type(parameters).__name__}"
        )
    return parameters


def _picture_input(signature: Signature, content_type: str) -> str:
    names = [spec.name for spec in signature.inputs if spec.channels_of_picture is not None]
    if len(signature.inputs) != 1 or not names:
        raise InvalidRequestError(
            f"a body of {content_type} needs a model whose one input is a batch of pictures"
        )
    return names[0]


def _one(picture: bytes) -> Array:
    array = np.empty(1, object)
    array[0] = picture
    return array


def respond(version: Version, asked: Asked, outputs: Tensors) -> Response:
    """The response, its outputs in JSON or binary as asked."""
    described: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, array in outputs.items():
        tensor: dict[str, object] = {
            "name": name,
            "datatype": oip_codec.DATATYPES[dtype_of(array)],
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
    if asked.id:
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
