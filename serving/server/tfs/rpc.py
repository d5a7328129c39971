"""TensorFlow Serving's PredictionService, by the messages of tensorflow-serving-api."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, quote
from serving.server.records import RequestRecord
from serving.server.repository.versions import Version
from serving.server.rpc import Service
from serving.server.tfs import examples
from serving.server.tfs.examples import CLASSIFY, REGRESS
from serving.server.tfs.messages import (
    check_signatures,
    check_tasks,
    model_spec,
    predict_call,
    signature_defs,
)
from serving.server.tfs.model_access import lease
from serving.server.tfs.model_config import ConfigSource
from serving.server.tfs.model_service import ModelService
from serving.server.tfs.tensors import to_proto

PROTOCOL = "tfs-grpc"


def services(
    plane: DataPlane, source: ConfigSource, *, max_tensor_bytes: int, check_methods: bool, as_content: bool
) -> list[Service]:
    """Both services, over one data plane.

    `max_tensor_bytes`: of a tensor that a request describes; `check_methods`: classify and regress only by
    signatures that were saved for it; `as_content`: answer Predict with tensor_content.
    """
    prediction = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    return [
        Service(prediction, PredictionService(plane, max_tensor_bytes, check_methods, as_content)),
        Service(models, ModelService(plane, source)),
    ]


class PredictionService:
    """PredictionService."""

    def __init__(
        self, plane: DataPlane, max_tensor_bytes: int, check_methods: bool, as_content: bool
    ) -> None:
        self._plane = plane
        self._max_tensor_bytes = max_tensor_bytes
        self._check_methods = check_methods
        self._as_content = as_content

    async def Predict(self, request: Any, record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """Prediction by a signature (`serving_default` unless named); `output_filter` picks outputs."""
        spec = model_spec(request.model_spec)
        with lease(self._plane, record, PROTOCOL, "Predict", spec) as version:
            call = predict_call(request, version.signatures, self._max_tensor_bytes)
            outputs = await self._plane.infer(version, call, record)
            response = predict_pb2.PredictResponse()
            _fill(response.model_spec, version, call.signature)
            for name, array in outputs.items():
                to_proto(array, response.outputs[name], self._as_content)
            return response

    async def Classify(self, request: Any, record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """Classification of tf.Examples."""
        return await self._infer(request, record, CLASSIFY, classification_pb2.ClassificationResponse())

    async def Regress(self, request: Any, record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """Regression of tf.Examples."""
        return await self._infer(request, record, REGRESS, regression_pb2.RegressionResponse())

    async def MultiInference(self, request: Any, record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """Classifications and regressions of the same tf.Examples by signatures of one model."""
        tasks = check_tasks(request)
        spec = model_spec(tasks[0].model_spec)
        with lease(self._plane, record, PROTOCOL, "MultiInference", spec) as version:
            keys = check_signatures(tasks, version.signatures, self._check_methods)
            strings = examples.serialized(request.input)
            response = inference_pb2.MultiInferenceResponse()
            for task, key in zip(tasks, keys, strict=True):
                call = examples.examples_call(version.signatures, task.method_name, key, strings)
                outputs = await self._plane.infer(version, call, record)
                result = response.results.add()
                _fill(result.model_spec, version, key)
                field = "classification_result" if task.method_name == CLASSIFY else "regression_result"
                getattr(result, field).CopyFrom(examples.result(task.method_name, outputs, len(strings)))
            return response

    async def GetModelMetadata(self, request: Any, record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """The signatures of a version; the one metadata field is signature_def."""
        if not request.HasField("model_spec"):
            raise InvalidRequestError("expected a ModelSpec, got none")
        if set(request.metadata_field) != {"signature_def"}:
            got = quote(", ".join(request.metadata_field)) if request.metadata_field else "none"
            raise InvalidRequestError(f"expected the metadata_field signature_def, got {got}")
        with lease(
            self._plane, record, PROTOCOL, "GetModelMetadata", model_spec(request.model_spec)
        ) as version:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            response.metadata["signature_def"].Pack(signature_defs(version))
            return response

    async def _infer(self, request: Any, record: RequestRecord, method: str, response: Any) -> Any:  # noqa: ANN401
        operation = "Classify" if method == CLASSIFY else "Regress"
        with lease(self._plane, record, PROTOCOL, operation, model_spec(request.model_spec)) as version:
            key = request.model_spec.signature_name
            key = examples.signature_for(version.signatures, method, key, self._check_methods)
            strings = examples.serialized(request.input)
            call = examples.examples_call(version.signatures, method, key, strings)
            outputs = await self._plane.infer(version, call, record)
            response.result.CopyFrom(examples.result(method, outputs, len(strings)))
            _fill(response.model_spec, version, key)
            return response


def _fill(spec: Any, version: Version, key: str) -> None:  # noqa: ANN401 - a ModelSpec's message
    spec.name = version.model
    spec.signature_name = key
    spec.version.value = version.number
