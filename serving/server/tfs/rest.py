"""TensorFlow Serving's REST: predict, classify, regress, status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, quote
from serving.server.http import Request, Response, Route
from serving.server.tensors.signature import DEFAULT_SIGNATURE, signature_of
from serving.server.tfs.inference import CLASSIFY, REGRESS, by_examples, input_of
from serving.server.tfs.json import parse, read, signature_name, wrap, write
from serving.server.tfs.model_access import lease, signature_defs, statuses

PROTOCOL = "tfs-rest"
VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
MODEL = rf"(?ai:/v1/models/(?P<model>[^/:]+){VERSION})"
"""Case-insensitive but for names, as in the original."""
LARGEST = 2**63 - 1


def routes(plane: DataPlane) -> list[Route]:
    return [
        Route("POST", f"{MODEL}:predict", partial(_predict, plane)),
        Route("POST", f"{MODEL}:classify", partial(_classify, plane)),
        Route("POST", f"{MODEL}:regress", partial(_regress, plane)),
        Route("GET", f"{MODEL}/metadata", partial(_metadata, plane)),
        Route("GET", f"{MODEL}(?ai:/metadata)?", partial(_status, plane)),
        Route("*", "(?ai:/v1)/.*", _malformed),
    ]


async def _predict(plane: DataPlane, request: Request) -> Response:
    """Predict in row form (`instances` -> `predictions`) or column form (`inputs` -> `outputs`)."""
    document = parse(request.body)
    key = signature_name(document) or DEFAULT_SIGNATURE
    with lease(plane, request.record, PROTOCOL, "predict", _asked(request)) as version:
        inputs, rows = read(document, signature_of(version.signatures, key))
        # A picture is hundreds of lists, which the garbage collector would traverse while requests queue.
        del document
        call = Call(inputs, signature=key, pictures=False)
        return Response(write(await plane.infer(version, call, request.record), rows))


async def _classify(plane: DataPlane, request: Request) -> Response:
    result = await _infer(plane, request, CLASSIFY)
    # As doubles they would be written with more digits than a float has.
    rows = [[[c.label, np.float32(c.score)] for c in row.classes] for row in result.classifications]
    return Response(wrap("results", rows))


async def _regress(plane: DataPlane, request: Request) -> Response:
    result = await _infer(plane, request, REGRESS)
    return Response(wrap("results", [np.float32(r.value) for r in result.regressions]))


async def _infer(plane: DataPlane, request: Request, method: str) -> Any:
    document = parse(request.body)
    key, given = signature_name(document), input_of(document)
    operation = method.rpartition("/")[2]
    with lease(plane, request.record, PROTOCOL, operation, _asked(request)) as version:
        infer = partial(plane.infer, version, record=request.record)
        _, result = await by_examples(infer, version.signatures, method, key, given)
        return result


async def _status(plane: DataPlane, request: Request) -> Response:
    return _indented(_document(statuses(plane, _asked(request))))


async def _metadata(plane: DataPlane, request: Request) -> Response:
    spec = _asked(request)
    with lease(plane, request.record, PROTOCOL, "metadata", spec) as version:
        asked = {"name": spec.name, "signature_name": "", "version": str(version.number)}
        definitions = {"signature_def": _document(signature_defs(version))}
        return _indented({"model_spec": asked, "metadata": definitions})


async def _malformed(request: Request) -> Response:
    record = request.record
    raise InvalidRequestError(f"nothing is served at {record.method} {quote(record.path)}")


def _asked(request: Request) -> Any:
    """Return the ModelSpec of a path."""
    given = request.variables
    spec = ModelSpec(name=given["model"], version_label=given["label"] or None)
    if given["version"]:
        number = int(given["version"][:20])
        if number > LARGEST:
            got = quote(given["version"])
            raise InvalidRequestError(f"expected a version of at most {LARGEST}, got {got}")
        spec.version.value = number
    return spec


def _document(message: Any) -> dict[str, Any]:
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def _indented(document: object) -> Response:
    """Return JSON with protobuf's line breaks: scripts search for '"state": "AVAILABLE"'."""
    return Response(json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
