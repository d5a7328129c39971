"""Open Inference Protocol v2 over gRPC: GRPCInferenceService, by the stubs that tritonclient carries."""

from __future__ import annotations

import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError, ServerError
from serving.server.protocols import oip_codec
from serving.server.protocols.grpc_service import Service, answers_errors
from serving.server.protocols.json_numbers import numbers
from serving.server.protocols.oip_rest import SERVER, default_key, default_signature
from serving.server.signature import Array, Tensors, TensorSpec, dtype_of
from serving.server.versions import Version

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
"""The field of InferTensorContents that carries each datatype; FP16 travels in raw form only."""


def services(plane: DataPlane) -> list[Service]:
    """The one service."""

    def inference(server: grpc.aio.Server) -> None:
        rpc.add_GRPCInferenceServiceServicer_to_server(OipGrpc(plane), server)

    return [Service("inference.GRPCInferenceService", inference)]


class OipGrpc(rpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The service."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    @answers_errors
    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: object) -> pb.ServerLiveResponse:  # noqa: N802
        """Whether the process answers at all."""
        return pb.ServerLiveResponse(live=True)

    @answers_errors
    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: object) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether every model answers."""
        return pb.ServerReadyResponse(ready=self._plane.ready)

    @answers_errors
    async def ModelReady(self, request: pb.ModelReadyRequest, _context: object) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether one model answers."""
        try:
            self._plane.models.model(request.name).version(_number(request.version))
        except ServerError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    @answers_errors
    async def ServerMetadata(  # noqa: N802
        self, _request: pb.ServerMetadataRequest, _context: object
    ) -> pb.ServerMetadataResponse:
        """Server metadata."""
        return pb.ServerMetadataResponse(**SERVER)

    @answers_errors
    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, _context: object
    ) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of a model; `versions` are those that answer."""
        model = self._plane.models.model(request.name)
        signature = default_signature(model.version(_number(request.version)))
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=[str(number) for number in model.loaded],
            platform=self._plane.platform,
            inputs=[_describe(spec) for spec in signature.inputs],
            outputs=[_describe(spec) for spec in signature.outputs],
        )

    @answers_errors
    async def ModelInfer(self, request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:  # noqa: N802
        """Inference."""
        with self._plane.serve(PROTOCOL, request.model_name, _number(request.model_version)) as version:
            call = Call(_inputs(request), tuple(o.name for o in request.outputs), default_key(version))
            outputs = await self._plane.infer(version, call)
            return _respond(version, request, outputs)


def _number(version: str) -> int | None:
    if not version:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise InvalidRequestError(f"expected a version number, got {version[:40]!r}")
    return int(version)


def _describe(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name,
        datatype=oip_codec.DATATYPES[spec.dtype],
        shape=spec.shape if spec.shape is not None else [-1],
    )


def _inputs(request: pb.ModelInferRequest) -> Tensors:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"expected {len(request.inputs)} raw_input_contents, one an input, got {len(raw)}"
        )
    inputs: Tensors = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise InvalidRequestError(f"input {tensor.name!r} is given twice")
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


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
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


def _respond(version: Version, request: pb.ModelInferRequest, outputs: Tensors) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(
        model_name=version.model,
        model_version=str(version.number),
        id=request.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=name, datatype=oip_codec.DATATYPES[dtype_of(array)], shape=array.shape
            )
            for name, array in outputs.items()
        ],
        raw_output_contents=[oip_codec.to_raw(np.asarray(array)) for array in outputs.values()],
    )
