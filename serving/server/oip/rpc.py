"""Open Inference Protocol v2 over gRPC: GRPCInferenceService."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf.json_format import ParseDict

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import ForbiddenError, InvalidRequestError, ServerError, quote
from serving.server.oip import codec, description
from serving.server.oip import open_inference_pb2 as pb
from serving.server.oip.parameters import check_count, check_offered, timeout_seconds
from serving.server.records import RequestRecord
from serving.server.repository.versions import Version
from serving.server.rpc import Service
from serving.server.tensors.json_numbers import MAX_DIMENSIONS, numbers
from serving.server.tensors.signature import Array, Signature, Tensors, dtype_of

PROTOCOL = "oip-grpc"

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


def services(plane: DataPlane, repository_control: bool) -> list[Service]:
    """The protocol's service. Without `repository_control`, loading and unloading are refused."""
    descriptor = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    return [Service(descriptor, OipGrpc(plane, repository_control))]


class OipGrpc:
    """The service."""

    def __init__(self, plane: DataPlane, repository_control: bool) -> None:
        self._plane = plane
        self._repository_control = repository_control

    async def ServerLive(  # noqa: N802
        self, _request: pb.ServerLiveRequest, _record: RequestRecord
    ) -> pb.ServerLiveResponse:
        """Whether the process answers at all."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, _request: pb.ServerReadyRequest, _record: RequestRecord
    ) -> pb.ServerReadyResponse:
        """Whether every model answers."""
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, _record: RequestRecord
    ) -> pb.ModelReadyResponse:
        """Whether one model answers."""
        try:
            self._plane.models.model(request.name).version(_number(request.version))
        except ServerError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(  # noqa: N802
        self, _request: pb.ServerMetadataRequest, _record: RequestRecord
    ) -> pb.ServerMetadataResponse:
        """Server metadata."""
        return ParseDict(description.SERVER, pb.ServerMetadataResponse())

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, _record: RequestRecord
    ) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of a model."""
        document = description.metadata(self._plane, request.name, _number(request.version))
        # The message has no field for parameters.
        return ParseDict(document, pb.ModelMetadataResponse(), ignore_unknown_fields=True)

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, _record: RequestRecord
    ) -> pb.ModelConfigResponse:
        """A model's configuration in Triton's words."""
        document = description.configuration(self._plane, request.name, _number(request.version))
        return ParseDict({"config": document}, pb.ModelConfigResponse())

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, _record: RequestRecord
    ) -> pb.ModelStatisticsResponse:
        """Statistics of a version, of a model's versions, or of all models."""
        document = description.statistics(self._plane, request.name or None, _number(request.version))
        return ParseDict(document, pb.ModelStatisticsResponse())

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, _record: RequestRecord
    ) -> pb.RepositoryIndexResponse:
        """What the repository holds."""
        models = description.index(await self._plane.models.index(), request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, _record: RequestRecord
    ) -> pb.RepositoryModelLoadResponse:
        """Load what the repository holds of a model."""
        self._check_control()
        description.check_repository_parameters(request.parameters)
        await self._plane.models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, _record: RequestRecord
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model until it is loaded again."""
        self._check_control()
        await self._plane.models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, record: RequestRecord
    ) -> pb.ModelInferResponse:
        """Inference."""
        return await self._infer(request, record)

    async def ModelStreamInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, record: RequestRecord
    ) -> pb.ModelStreamInferResponse:
        """Inference for each request of a stream, one after the other; an error does not end the stream."""
        try:
            return pb.ModelStreamInferResponse(infer_response=await self._infer(request, record))
        except ServerError as error:
            record.code = error.code.name
            answer = pb.ModelStreamInferResponse(error_message=str(error))
            answer.infer_response.id = request.id
            return answer

    async def _infer(self, request: pb.ModelInferRequest, record: RequestRecord) -> pb.ModelInferResponse:
        number = _number(request.model_version)
        with self._plane.lease(record, PROTOCOL, request.model_name, number) as version:
            key = description.default_key(version)
            signature = version.signatures[key]
            call = Call(
                _inputs(request, signature),
                _wanted(request, signature),
                key,
                timeout=_timeout(request.parameters),
            )
            outputs = await self._plane.infer(version, call, record)
            return _respond(version, request, outputs)

    def _check_control(self) -> None:
        if not self._repository_control:
            raise ForbiddenError("loading and unloading need the server's flag --repository-control")


def _number(version: str) -> int | None:
    if not version:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise InvalidRequestError(f"expected a version number, got {quote(version)}")
    return int(version)


def _timeout(parameters: Mapping[str, pb.InferParameter]) -> float | None:
    if "timeout" not in parameters:
        return None
    value = parameters["timeout"]
    return timeout_seconds({"timeout": getattr(value, value.WhichOneof("parameter_choice") or "", None)})


def _wanted(request: pb.ModelInferRequest, signature: Signature) -> tuple[str, ...]:
    check_count(len(request.outputs), signature)
    for output in request.outputs:
        check_offered(output.parameters, "output", output.name)
    names = tuple(output.name for output in request.outputs)
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"an output is asked for twice: {quote(', '.join(names))}")
    return names


def _inputs(request: pb.ModelInferRequest, signature: Signature) -> Tensors:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"expected {len(request.inputs)} raw_input_contents, one an input, got {len(raw)}"
        )
    inputs: Tensors = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise InvalidRequestError(f"input {quote(tensor.name)} is given twice")
        check_offered(tensor.parameters, "input", tensor.name)
        # One size too many is refused, and a million would take long to copy.
        shape = list(tensor.shape[: MAX_DIMENSIONS + 1])
        described = codec.describe(signature, tensor.name, tensor.datatype, shape)
        if not raw:
            inputs[tensor.name] = _typed(described, tensor)
        elif tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {quote(tensor.name)}: expected raw_input_contents or contents, got both"
            )
        else:
            inputs[tensor.name] = codec.from_raw(described, raw[index])
    return inputs


def _typed(described: codec.Described, tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequestError(
            f"input {quote(tensor.name)}: {tensor.datatype} travels in raw_input_contents only"
        )
    filled = [name.name for name, _ in tensor.contents.ListFields()]
    if filled and filled != [field]:
        raise InvalidRequestError(
            f"input {quote(tensor.name)}: expected {field} for {tensor.datatype}, got {', '.join(filled)}"
        )
    values = getattr(tensor.contents, field)
    codec.check_shape(described, (len(values),))
    if tensor.datatype == "BYTES":
        return codec.strings(list(values)).reshape(described.shape)
    return numbers(tensor.name, described.dtype, list(values)).reshape(described.shape)


def _respond(version: Version, request: pb.ModelInferRequest, outputs: Tensors) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(
        model_name=version.model, model_version=str(version.number), id=request.id
    )
    for name, output in outputs.items():
        array = np.asarray(output)
        response.outputs.add(name=name, datatype=codec.name_of(dtype_of(array)), shape=array.shape)
        response.raw_output_contents.append(codec.to_raw(array))
    return response
