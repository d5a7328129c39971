"""Bodies of inference by the Open Inference Protocol's REST: JSON, JSON with binary tensors, pictures.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.server.errors import InvalidRequestError, quote
from serving.server.http import Request, Response, parse_object
from serving.server.oip import codec
from serving.server.repository.versions import Version
from serving.server.tensors.signature import Signature, Tensors, dtype_of, strings

HEADER_LENGTH = "inference-header-content-length"
PICTURES = ("image/png", "image/jpeg")


@dataclass
class InferenceRequest:
    inputs: Tensors
    outputs: Mapping[str, bool] = field(default_factory=dict)
    """By name; True for a binary response."""
    binary: bool = False
    """True if all outputs are binary, for requests that name none."""
    id: str | None = None
    timeout: float | None = None
    """The client's time limit in seconds."""


def parse(request: Request, signature: Signature) -> InferenceRequest:
    content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type in PICTURES:
        if len(signature.inputs) != 1 or signature.inputs[0].picture_size is None:
            raise InvalidRequestError(f"{content_type} needs a model whose one input is a batch of pictures")
        return InferenceRequest({signature.inputs[0].name: strings([request.body])})
    text, binary = _split(request)
    document = parse_object(text)
    parameters = parameters_of(document, "request")
    binary_outputs = _flag(parameters, "binary_data_output", False)
    return InferenceRequest(
        _inputs(document.get("inputs"), signature, binary),
        _wanted(document.get("outputs"), signature, binary_outputs),
        binary_outputs,
        _id(document.get("id")),
        codec.timeout_seconds(parameters.get("timeout", 0)),
    )


def respond(version: Version, asked: InferenceRequest, outputs: Tensors) -> Response:
    """Return the response, each output as JSON or binary. Raises `InvalidRequestError` as `to_json` does."""
    document: dict[str, object] = {"model_name": version.model, "model_version": str(version.number)}
    if asked.id is not None:
        document["id"] = asked.id
    tensors: list[dict[str, object]] = []
    blobs: list[bytes] = []
    for name, array in outputs.items():
        datatype = codec.name_of(dtype_of(array))
        tensor: dict[str, object] = {"name": name, "datatype": datatype, "shape": array.shape}
        if asked.outputs.get(name, asked.binary):
            blobs.append(codec.to_raw(array))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = codec.to_json(name, array)
        tensors.append(tensor)
    document["outputs"] = tensors
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Response(text)
    length = (HEADER_LENGTH.encode(), str(len(text)).encode())
    return Response(b"".join([text, *blobs]), "application/octet-stream", headers=(length,))


def _split(request: Request) -> tuple[bytes | memoryview, memoryview]:
    length = request.header(HEADER_LENGTH)
    if length is None:
        return request.body, memoryview(b"")
    body = memoryview(request.body)
    if not (length.isascii() and length.isdigit() and len(length) <= 18 and int(length) <= len(body)):
        expected = f"expected an Inference-Header-Content-Length of at most the body's {len(body)} bytes"
        raise InvalidRequestError(f"{expected}, got {quote(length)}")
    return body[: int(length)], body[int(length) :]


def _inputs(tensors: object, signature: Signature, binary: memoryview) -> Tensors:
    if not isinstance(tensors, list):
        raise InvalidRequestError('expected "inputs", a list of tensors with name, datatype, shape and data')
    inputs: Tensors = {}
    rest = binary
    for tensor in tensors:
        name = _name(tensor, "input")
        parameters = parameters_of(tensor, f"input {quote(name)}")
        datatype, shape = tensor.get("datatype"), tensor.get("shape")
        described = codec.describe(signature, name, datatype, shape, parameters, inputs)
        size = parameters.get("binary_data_size")
        if (size is None) == (tensor.get("data") is None):
            got = "neither" if size is None else "both"
            raise described.spec.refused(f'expected "data" or the parameter binary_data_size, got {got}')
        if size is None:
            inputs[name] = codec.from_json(described, tensor["data"])
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            expected = f"binary_data_size to be a number of bytes, at most the {len(rest)} that are left"
            raise described.spec.refused(f"expected {expected}, got {quote(size)}")
        inputs[name] = codec.from_raw(described, rest[:size])
        rest = rest[size:]
    if len(rest):
        used = len(binary) - len(rest)
        raise InvalidRequestError(f"expected {used} bytes of binary data for the inputs, got {len(binary)}")
    return inputs


def _name(tensor: object, kind: str) -> str:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidRequestError(f"expected each {kind} to be an object with a name")
    name: str = tensor["name"]
    return name


def _id(given: object) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise InvalidRequestError(f'expected "id" to be a string, got {type(given).__name__}')


def _wanted(outputs: object, signature: Signature, binary: bool) -> dict[str, bool]:
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise InvalidRequestError(f'expected "outputs" to be a list, got {type(outputs).__name__}')
    named = ((_name(output, "output"), parameters_of(output, "output")) for output in outputs)
    wanted = codec.outputs_wanted(len(outputs), named, signature)
    return {name: _flag(parameters, "binary_data", binary) for name, parameters in wanted.items()}


def parameters_of(holder: Mapping[str, Any], what: str) -> codec.Parameters:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(f"{what}: expected an object of parameters, got {quote(parameters)}")
    return parameters


def _flag(parameters: codec.Parameters, name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"expected the parameter {name} to be true or false, got {quote(value)}")
    return value
