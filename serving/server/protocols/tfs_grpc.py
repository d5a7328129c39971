"""TensorFlow Serving's gRPC: PredictionService and ModelService, by the stubs of tensorflow-serving-api."""

from __future__ import annotations

import math
from typing import Any

import grpc.aio
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server.dataplane import Call, DataPlane, signature_of
from serving.server.errors import InvalidRequestError
from serving.server.model_config import ConfigSource
from serving.server.protocols.grpc_service import Service, answers_errors
from serving.server.protocols.tfs_rest import versions_asked
from serving.server.signature import DEFAULT_SIGNATURE, Array, Signature, TensorSpec

PROTOCOL = "tfs-grpc"

VALUES = {
    tf.float16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), "int_val"),
}
"""The field of a TensorProto that carries each dtype where tensor_content does not."""


def services(plane: DataPlane, source: ConfigSource) -> list[Service]:
    """Both services, over one data plane."""

    def prediction(server: grpc.aio.Server) -> None:
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(plane), server)

    def models(server: grpc.aio.Server) -> None:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelStatus(plane, source), server)

    return [
        Service("tensorflow.serving.PredictionService", prediction),
        Service("tensorflow.serving.ModelService", models),
    ]


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """PredictionService."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    @answers_errors
    async def Predict(self, request: Any, _context: object) -> Any:  # noqa: ANN401, N802
        """Prediction by a signature (`serving_default` unless named); `output_filter` picks outputs."""
        asked = request.model_spec
        with self._plane.serve(PROTOCOL, asked.name, _number(asked)) as version:
            key = asked.signature_name or DEFAULT_SIGNATURE
            signature_of(version, key)
            inputs = {name: from_proto(name, proto) for name, proto in request.inputs.items()}
            call = Call(inputs, tuple(request.output_filter), key, pictures=False)
            outputs = await self._plane.infer(version, call)
            response = predict_pb2.PredictResponse()
            response.model_spec.name = asked.name
            response.model_spec.signature_name = key
            response.model_spec.version.value = version.number
            for name, array in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
            return response

    @answers_errors
    async def GetModelMetadata(self, request: Any, _context: object) -> Any:  # noqa: ANN401, N802
        """The signatures of a version; the one metadata field is signature_def."""
        if list(request.metadata_field) != ["signature_def"]:
            raise InvalidRequestError(
                f"expected metadata_field signature_def, got {', '.join(request.metadata_field)}"
            )
        version = self._plane.models.model(request.model_spec.name).version(_number(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version.number
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in version.signatures.items():
            _describe(signature, definitions.signature_def[key])
        response.metadata["signature_def"].Pack(definitions)
        return response


class ModelStatus(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """ModelService."""

    def __init__(self, plane: DataPlane, source: ConfigSource) -> None:
        self._plane = plane
        self._source = source

    @answers_errors
    async def GetModelStatus(self, request: Any, _context: object) -> Any:  # noqa: ANN401, N802
        """The state of every version, or of one."""
        name = request.model_spec.name
        statuses = self._plane.models.model(name).statuses
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, status in versions_asked(statuses, name, _number(request.model_spec)):
            entry = response.model_version_status.add()
            entry.version = number
            entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(status.state.value)
            if status.fault is not None:
                entry.status.error_code = status.fault.code.value[0]
                entry.status.error_message = str(status.fault)
        return response

    @answers_errors
    async def HandleReloadConfigRequest(self, request: Any, _context: object) -> Any:  # noqa: ANN401, N802
        """Serve what the given ModelServerConfig says; answered when its versions are loaded or refused."""
        self._source.replace(request.config)
        await self._plane.models.refresh()
        return model_management_pb2.ReloadConfigResponse()


def from_proto(name: str, proto: Any) -> Array:  # noqa: ANN401 - a TensorProto, whose package has no types
    """A tensor from a TensorProto. Raises `InvalidRequestError` where its values do not fill its shape."""
    try:
        dtype = tf.as_dtype(proto.dtype)
    except TypeError:
        raise InvalidRequestError(f"input {name!r}: expected a dtype, got {proto.dtype}") from None
    field = VALUES.get(dtype)
    if field is None:
        raise InvalidRequestError(f"input {name!r}: dtype {dtype.name} is not served")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InvalidRequestError(f"input {name!r}: expected a shape of non-negative integers, got {shape}")
    count = math.prod(shape)
    content = len(proto.tensor_content)
    if content and (dtype == tf.string or content != count * dtype.size):
        raise InvalidRequestError(
            f"input {name!r}: tensor_content has {content} bytes for {dtype.name} {shape}"
        )
    # A TensorProto may name one value for all; a short message must not become gigabytes.
    given = len(getattr(proto, field))
    if not content and given != count:
        raise InvalidRequestError(
            f"input {name!r}: expected {count} values in {field} for shape {shape}, got {given}"
        )
    array: Array = np.asarray(tf.make_ndarray(proto))
    return array


def _number(spec: Any) -> int | None:  # noqa: ANN401 - a ModelSpec
    if spec.version_label:
        raise InvalidRequestError(
            f"expected a version, got the label {spec.version_label!r}: labels are not configured"
        )
    return spec.version.value if spec.HasField("version") else None


def _describe(signature: Signature, definition: Any) -> None:  # noqa: ANN401 - a SignatureDef
    for specs, infos in ((signature.inputs, definition.inputs), (signature.outputs, definition.outputs)):
        for spec in specs:
            _fill(spec, infos[spec.name])
    definition.method_name = signature.method


def _fill(spec: TensorSpec, info: Any) -> None:  # noqa: ANN401 - a TensorInfo
    info.name = f"{spec.name}:0"
    info.dtype = tf.as_dtype("string" if spec.dtype == "bytes" else spec.dtype).as_datatype_enum
    info.tensor_shape.unknown_rank = spec.shape is None
    for size in spec.shape or ():
        info.tensor_shape.dim.add().size = size
