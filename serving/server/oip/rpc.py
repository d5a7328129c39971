"""Open Inference Protocol v2 over gRPC: GRPCInferenceService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.json_format import ParseDict

from serving.server import protos
from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, ServerError
from serving.server.grpc import health, reflection
from serving.server.grpc.service import Service
from serving.server.protocols import oip_codec
from serving.server.protocols import oip_description as description
from serving.server.tensors.json_numbers import numbers
from serving.server.oip.parameters import check_offered, timeout_seconds
from serving.server.tensors.signature import Array, Tensors, dtype_of
from serving.server.repository.versions import Version

PROTOCOL = "oip-grpc"

pb = protos.load(Path(__file__).with_name("open_inference.proto"))
Message: TypeAlias = Any
"""One of `pb`: ModelInfer takes a ModelInferRequest, and gives a ModelInferResponse."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of InferTensorContents that carries each datatype; FP16 and BF16 travel in raw form only."""


def services(plane: DataPlane) -> list[Service]:
    """The service, and those that describe it and the server's health."""
    inference = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    described = [inference, health.pb.DESCRIPTOR.services_by_name["Health"]]
    return [Service(inference, OipGrpc(plane)), *reflection.services(described)]


class OipGrpc:
    """The service."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def ServerLive(self, _request: Message) -> Message:  # noqa: N802
        """Whether the process answers at all."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: Message) -> Message:  # noqa: N802
        """Whether every model answers."""
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(self, request: Message) -> Message:  # noqa: N802
        """Whether one model answers."""
        try:
            self._plane.models.model(request.name).version(_number(request.version))
        except ServerError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, _request: Message) -> Message:  # noqa: N802
        """Server metadata."""
        return ParseDict(description.SERVER, pb.ServerMetadataResponse())

    async def ModelMetadata(self, request: Message) -> Message:  # noqa: N802
        """Names, datatypes and shapes of a model."""
        document = description.metadata(self._plane, request.name, _number(request.version))
        return ParseDict(document, pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Message) -> Message:  # noqa: N802
        """A model's configuration in Triton's words."""
        document = description.configuration(self._plane, request.name, _number(request.version))
        return ParseDict({"config": document}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Message) -> Message:  # noqa: N802
        """Statistics of a version, of a model's versions, or of all models."""
        document = description.statistics(self._plane, request.name or None, _number(request.version))
        return ParseDict(document, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Message) -> Message:  # noqa: N802
        """What the repository holds."""
        models = description.index(await self._plane.models.index(), request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Message) -> Message:  # noqa: N802
        """Load what the repository holds of a model."""
        description.check_repository_parameters(request.parameters)
        await self._plane.models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Message) -> Message:  # noqa: N802
        """Unload a model until it is loaded again."""
        await self._plane.models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Message) -> Message:  # noqa: N802
        """Inference."""
        return await self._infer(request)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        """Inference for each request of a stream, one after the other; an error does not end the stream."""
        async for request in requests:
            try:
                answer = pb.ModelStreamInferResponse(infer_response=await self._infer(request))
            except ServerError as error:
                answer = pb.ModelStreamInferResponse(error_message=str(error))
                answer.infer_response.id = request.id
            yield answer

    async def _infer(self, request: Message) -> Message:
        with self._plane.serve(PROTOCOL, request.model_name, _number(request.model_version)) as version:
            timeout = timeout_seconds(_parameters(request.parameters)) if request.parameters else None
            key = description.default_key(version)
            call = Call(_inputs(request), _wanted(request), key, timeout=timeout)
            outputs = await self._plane.infer(version, call)
            return _respond(version, request, outputs)


def _number(version: str) -> int | None:
    if not version:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise InvalidRequestError(f"expected a version number, got {version[:40]!r}")
    return int(version)


def _parameters(parameters: Mapping[str, Message]) -> dict[str, object]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in parameters.items()
    }


def _wanted(request: Message) -> tuple[str, ...]:
    names = tuple(output.name for output in request.outputs)
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"each output can be asked for once, got {', '.join(names)[:200]}")
    for output in request.outputs:
        check_offered(output.parameters, "output", output.name)
    return names


def _inputs(request: Message) -> Tensors:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"expected {len(request.inputs)} raw_input_contents, one an input, got {len(raw)}"
        )
    inputs: Tensors = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise InvalidRequestError(f"input {tensor.name!r} is given twice")
        check_offered(tensor.parameters, "input", tensor.name)
        if raw:
            if tensor.HasField("contents"):
                raise InvalidRequestError(
                    f"input {tensor.name!r}: expected raw_input_contents or contents, got both"
                )
            shape = oip_codec.shape(tensor.name, list(tensor.shape))
            inputs[tensor.name] = oip_codec.from_raw(tensor.name, tensor.datatype, shape, raw[index])
        else:
            inputs[tensor.name] = _typed(tensor)
    return inputs


def _typed(tensor: Message) -> Array:
    kind = oip_codec.dtype(tensor.name, tensor.datatype)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequestError(
            f"input {tensor.name!r}: {tensor.datatype} travels in raw_input_contents only"
        )
    filled = [name.name for name, _ in tensor.contents.ListFields()]
    if filled and filled != [field]:
        raise InvalidRequestError(
            f"input {tensor.name!r}: expected {field} for {tensor.datatype}, got {', '.join(filled)}"
        )
    values = getattr(tensor.contents, field)
    shape = oip_codec.shape(tensor.name, list(tensor.shape))
    if tensor.datatype == "BYTES":
        return oip_codec.strings(tensor.name, shape, list(values))
    return oip_codec.fit_shape(tensor.name, numbers(tensor.name, kind, list(values)), shape)


def _respond(version: Version, request: Message, outputs: Tensors) -> Message:
    arrays = {name: np.asarray(array) for name, array in outputs.items()}
    described = tuple((name, dtype_of(array), array.shape) for name, array in arrays.items())
    response = pb.ModelInferResponse.FromString(_description(version.model, version.number, described))
    response.id = request.id
    response.raw_output_contents.extend([oip_codec.to_raw(array) for array in arrays.values()])
    return response


@lru_cache(256)  # Its making costs five times as much as its parsing.
def _description(model: str, version: int, tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """A response but for its id and contents."""
    outputs = [
        pb.ModelInferResponse.InferOutputTensor(name=name, datatype=oip_codec.datatype(dtype), shape=shape)
        for name, dtype, shape in tensors
    ]
    message: bytes = pb.ModelInferResponse(
        model_name=model, model_version=str(version), outputs=outputs
    ).SerializeToString()
    return message
