"""Bodies of inference over the Open Inference Protocol's REST: JSON, JSON with binary tensors, one bare tensor.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson

from serving.server.errors import InvalidRequestError
from serving.server.http import Request, Response
from serving.server.protocols import oip_codec, oip_head
from serving.server.protocols.json_arrays import JsonArray, cut, place
from serving.server.oip.head import Head
from serving.server.tensors.signature import BYTES, Signature, Tensors, TensorSpec, dtype_name
from serving.server.repository.versions import Version

HEADER_LENGTH = "inference-header-content-length"
DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
PICTURES = ("image/png", "image/jpeg")


Described = tuple[str, np.dtype[np.generic], tuple[int, ...], int | None]
"""An output's name, dtype, shape, and bytes where it goes back as binary."""


@dataclass
class Asked:
    """What an inference request asks for."""

    inputs: Tensors
    outputs: Mapping[str, bool]
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
    text, tail = _split(request)
    if len(text) == 0 and HEADER_LENGTH in request.headers:
        return Asked(_bare(signature, request.body), {}, binary=True)
    head, identity, arrays = _head(text)
    inputs: Tensors = {}
    position = 0
    for given in head.inputs:
        if given.size is None:
            array = place(given.data, arrays) if arrays else None
            data = given.data if array is None else array
            base64 = given.name in _pictures(signature)
            inputs[given.name] = oip_codec.from_json(given.name, given.datatype, given.shape, data, base64)
            continue
        left = len(tail) - position
        if given.size > left:
            raise InvalidRequestError(
                f"input {given.name!r}: binary_data_size is {given.size}, but {left} bytes of binary data are left"
            )
        raw = tail[position : position + given.size]
        inputs[given.name] = oip_codec.from_raw(given.name, given.datatype, given.shape, raw)
        position += given.size
    if position != len(tail):
        raise InvalidRequestError(
            f"the inputs account for {position} bytes of binary data, but {len(tail)} came"
        )
    return Asked(inputs, head.outputs, head.binary, identity, head.timeout)


def _head(text: bytes) -> tuple[Head, str | None, list[JsonArray]]:
    """The head of a request, its id, and the arrays that were cut out of it."""
    rest, arrays = cut(text, DATA, 0)
    try:
        return *oip_head.recall(rest), arrays
    except InvalidRequestError:
        head = oip_head.parse(text)  # Which says where it is wrong.
        return head, head.id, []


def _split(request: Request) -> tuple[bytes, memoryview]:
    length = request.headers.get(HEADER_LENGTH)
    if length is None:
        return request.body, memoryview(b"")
    body = memoryview(request.body)
    if not (length.isascii() and length.isdigit() and len(length) <= 18 and int(length) <= len(body)):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length is {length[:40]!r}: expected at most the body's {len(body)} bytes"
        )
    return request.body[: int(length)], body[int(length) :]


def _pictures(signature: Signature) -> list[str]:
    return [spec.name for spec in signature.inputs if spec.channels_of_picture is not None]


def _picture_input(signature: Signature, content_type: str) -> str:
    names = _pictures(signature)
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
    described: list[Described] = []
    values: list[bytes] = []
    blobs: list[bytes] = []
    for name, array in outputs.items():
        size = None
        if asked.outputs.get(name, asked.binary):
            blobs.append(oip_codec.to_raw(array))
            size = len(blobs[-1])
        else:
            values.append(oip_codec.to_json(name, array))
        described.append((name, array.dtype, array.shape, size))
    start, *pieces = _template(version.model, version.number, tuple(described))
    parts = [start]
    if asked.id is not None:
        parts += b',"id":', orjson.dumps(asked.id)
    parts.append(pieces[0])
    for value, piece in zip(values, pieces[1:], strict=True):
        parts += value, piece
    if not blobs:
        return Response(b"".join(parts))
    length = sum(map(len, parts))
    return Response(
        b"".join(parts + blobs),
        "application/octet-stream",
        headers=((HEADER_LENGTH.encode(), str(length).encode()),),
    )


@lru_cache(256)
def _template(model: str, number: int, outputs: tuple[Described, ...]) -> tuple[bytes, ...]:
    """The JSON of a response, cut where the request's id belongs, and where the data of each output not in binary."""
    start = orjson.dumps({"model_name": model, "model_version": str(number)})[:-1]
    pieces = [b',"outputs":[']
    for name, dtype, shape, size in outputs:
        datatype = oip_codec.datatype(dtype_name(dtype))
        tensor: dict[str, object] = {"name": name, "datatype": datatype, "shape": shape}
        if size is None:
            pieces[-1] += orjson.dumps(tensor)[:-1] + b',"data":'
            pieces.append(b"},")
        else:
            pieces[-1] += orjson.dumps(tensor | {"parameters": {"binary_data_size": size}}) + b","
    pieces[-1] = pieces[-1].removesuffix(b",") + b"]}"
    return start, *pieces
