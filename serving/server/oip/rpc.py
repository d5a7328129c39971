"""Open Inference Protocol v2 over gRPC: GRPCInferenceService."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, ServerError, quote
from serving.server.oip import codec, description
from serving.server.oip import open_inference_pb2 as pb
from serving.server.records import RequestRecord
from serving.server.repository.versions import Version
from serving.server.rpc import Service
from serving.server.tensors.json_numbers import MAX_DIMENSIONS, numbers
from serving.server.tensors.signature import Array, Signature, Tensors, dtype_of, strings

PROTOCOL = "oip-grpc"

CONTENTS = {
    **{name: f"{name.lower()}_contents" for name in ("BOOL", "INT64", "UINT64", "FP32", "FP64", "BYTES")},
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""The fields of InferTensorContents by datatype; FP16 and BF16 have none."""


def services(plane: DataPlane, repository_control: bool) -> list[Service]:
    """Return the service. Without `repository_control`, loading and unloading are refused."""
    descriptor = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    return [Service(descriptor, OipGrpc(plane, repository_control))]


class OipGrpc:
    def __init__(self, plane: DataPlane, repository_control: bool) -> None:
        self._plane = plane
        self._repository_control = repository_control

    async def ServerLive(self, _request: pb.ServerLiveRequest, _record: RequestRecord) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _record: RequestRecord) -> Message:
        return pb.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, _record: RequestRecord) -> Message:
        try:
            description.readiness(self._plane, request.name, _number(request.version))
        except ServerError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest, _record: RequestRecord) -> Message:
        return ParseDict(description.SERVER, pb.ServerMetadataResponse())

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _record: RequestRecord) -> Message:
        document = description.metadata(self._plane, request.name, _number(request.version))
        return ParseDict(document, pb.ModelMetadataResponse())

    async def ModelConfig(self, request: pb.ModelConfigRequest, _record: RequestRecord) -> Message:
        document = description.configuration(self._plane, request.name, _number(request.version))
        return ParseDict({"config": document}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, _record: RequestRecord) -> Message:
        document = description.statistics(self._plane, request.name, _number(request.version))
        return ParseDict(document, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, _record: RequestRecord) -> Message:
        models = description.index(await self._plane.models.index(), request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, _record: RequestRecord
    ) -> Message:
        description.check_change(self._repository_control, request.parameters)
        await self._plane.models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, _record: RequestRecord
    ) -> Message:
        description.check_change(self._repository_control, request.parameters)
        await self._plane.models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: pb.ModelInferRequest, record: RequestRecord) -> pb.ModelInferResponse:
        number = _number(request.model_version)
        with self._plane.lease(record, PROTOCOL, request.model_name, number) as version:
            key, signature = description.default(version)
            inputs = _inputs(request, signature)
            outputs = codec.outputs_wanted(request.outputs, lambda o: (o.name, o.parameters), signature)
            call = Call(inputs, tuple(outputs), key, timeout=_timeout(request.parameters))
            return _respond(version, request, await self._plane.infer(version, call, record))

    async def ModelStreamInfer(self, request: pb.ModelInferRequest, record: RequestRecord) -> Message:
        """Answer one request of a stream; an error does not end the stream."""
        try:
            return pb.ModelStreamInferResponse(infer_response=await self.ModelInfer(request, record))
        except ServerError as error:
            record.code = error.code.name
            answer = pb.ModelStreamInferResponse(error_message=str(error))
            answer.infer_response.id = request.id
            return answer


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
    return codec.timeout_seconds(
        {"timeout": getattr(value, value.WhichOneof("parameter_choice") or "", None)}
    )


def _inputs(request: pb.ModelInferRequest, signature: Signature) -> Tensors:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"expected {len(request.inputs)} raw_input_contents, one an input, got {len(raw)}"
        )
    inputs: Tensors = {}
    for index, tensor in enumerate(request.inputs):
        # One size too many is refused below; a million would take long to copy.
        shape = list(tensor.shape[: MAX_DIMENSIONS + 1])
        described = codec.describe(signature, tensor.name, tensor.datatype, shape, tensor.parameters, inputs)
        if not raw:
            inputs[tensor.name] = _typed(described, tensor)
        elif tensor.HasField("contents"):
            raise described.spec.refused("expected raw_input_contents or contents, got both")
        else:
            inputs[tensor.name] = codec.from_raw(described, raw[index])
    return inputs


def _typed(described: codec.Described, tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise described.spec.refused(f"{tensor.datatype} travels in raw_input_contents only")
    filled = [name.name for name, _ in tensor.contents.ListFields()]
    if filled and filled != [field]:
        raise described.spec.refused(f"expected {field} for {tensor.datatype}, got {', '.join(filled)}")
    values = getattr(tensor.contents, field)
    codec.check_shape(described, (len(values),))
    if tensor.datatype == "BYTES":
        return strings(list(values)).reshape(described.shape)
    return numbers(tensor.name, described.dtype, list(values)).reshape(described.shape)


def _respond(version: Version, request: pb.ModelInferRequest, outputs: Tensors) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(
        model_name=version.model, model_version=str(version.number), id=request.id
    )
    for name, array in outputs.items():
        response.outputs.add(name=name, datatype=codec.name_of(dtype_of(array)), shape=array.shape)
        response.raw_output_contents.append(codec.to_raw(array))
    return response
