"""Open Inference Protocol v2 over gRPC: GRPCInferenceService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import Message

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, ServerError, quote
from serving.server.metrics import RequestRecord
from serving.server.oip import codec, description
from serving.server.oip import open_inference_pb2 as pb
from serving.server.oip.description import Document
from serving.server.repository.versions import Version
from serving.server.rpc import Method, Service
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

    def told(describe: Callable[[Any], Document]) -> Method:
        async def answer(request: Message, _record: RequestRecord) -> Document:
            return describe(request)

        return answer

    def changed(change: Callable[[str], Awaitable[None]]) -> Method:
        async def answer(request: pb.RepositoryModelLoadRequest, _record: RequestRecord) -> Document:
            description.check_change(repository_control, request.parameters)
            await change(request.model_name)
            return {}

        return answer

    async def index(request: pb.RepositoryIndexRequest, _record: RequestRecord) -> Document:
        return {"models": description.index(await plane.models.index(), request.ready)}

    methods: dict[str, Method] = {
        "ServerLive": told(lambda _: {"live": True}),
        "ServerReady": told(lambda _: {"ready": plane.ready}),
        "ServerMetadata": told(lambda _: description.SERVER),
        "ModelReady": told(partial(_readiness, plane)),
        "ModelMetadata": told(lambda asked: description.metadata(plane, *_target(asked))),
        "ModelConfig": told(lambda asked: {"config": description.configuration(plane, *_target(asked))}),
        "ModelStatistics": told(lambda asked: description.statistics(plane, *_target(asked))),
        "RepositoryIndex": index,
        "RepositoryModelLoad": changed(plane.models.load),
        "RepositoryModelUnload": changed(plane.models.unload),
        "ModelInfer": partial(_infer, plane),
        "ModelStreamInfer": partial(_stream_infer, plane),
    }
    return [Service(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"], methods)]


def _readiness(plane: DataPlane, request: pb.ModelReadyRequest) -> Document:
    try:
        description.readiness(plane, *_target(request))
    except ServerError:
        return {"ready": False}
    return {"ready": True}


async def _infer(
    plane: DataPlane, request: pb.ModelInferRequest, record: RequestRecord
) -> pb.ModelInferResponse:
    number = _number(request.model_version)
    with plane.lease(record, PROTOCOL, request.model_name, number) as version:
        key, signature = description.default(version)
        inputs = _inputs(request, signature)
        pairs = ((output.name, output.parameters) for output in request.outputs)
        outputs = codec.outputs_wanted(len(request.outputs), pairs, signature)
        call = Call(inputs, tuple(outputs), key, timeout=_timeout(request.parameters))
        return _respond(version, request, await plane.infer(version, call, record))


async def _stream_infer(plane: DataPlane, request: pb.ModelInferRequest, record: RequestRecord) -> Message:
    """Answer one request of a stream; an error does not end the stream."""
    try:
        return pb.ModelStreamInferResponse(infer_response=await _infer(plane, request, record))
    except ServerError as error:
        record.code = error.code.name
        failed = pb.ModelInferResponse(id=request.id)
        return pb.ModelStreamInferResponse(error_message=str(error), infer_response=failed)


def _target(request: Any) -> tuple[str, int | None]:  # noqa: ANN401 - a request for a model
    return request.name, _number(request.version)


def _number(version: str) -> int | None:
    if not version:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 19):
        raise InvalidRequestError(f"expected a version number, got {quote(version)}")
    return int(version)


def _timeout(parameters: Mapping[str, pb.InferParameter]) -> float | None:
    given = parameters.get("timeout")
    choice = given.WhichOneof("parameter_choice") if given is not None else None
    return codec.timeout_seconds(getattr(given, choice) if choice else 0)


def _inputs(request: pb.ModelInferRequest, signature: Signature) -> Tensors:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(f"expected {len(request.inputs)} raw_input_contents, got {len(raw)}")
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
    number = str(version.number)
    response = pb.ModelInferResponse(model_name=version.model, model_version=number, id=request.id)
    for name, array in outputs.items():
        response.outputs.add(name=name, datatype=codec.name_of(dtype_of(array)), shape=array.shape)
        response.raw_output_contents.append(codec.to_raw(array))
    return response
