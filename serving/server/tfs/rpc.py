"""TensorFlow Serving's PredictionService, by the messages of tensorflow-serving-api."""

from __future__ import annotations

from dataclasses import dataclass
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
from serving.server.errors import InvalidRequestError
from serving.server.grpc.service import Service
from serving.server.protocols import tfs_examples
from serving.server.repository.versions import Version
from serving.server.tfs.examples import CLASSIFY, REGRESS
from serving.server.tfs.metadata import signature_defs
from serving.server.tfs.metrics import TfsMetrics
from serving.server.tfs.model_config import ConfigSource
from serving.server.tfs.model_service import ModelService
from serving.server.tfs.models import Served
from serving.server.tfs.requests import check_signatures, check_tasks, model_spec, predict_call
from serving.server.tfs.tensors import to_proto


@dataclass(frozen=True)
class Options:
    """What an operator can choose of this front."""

    max_tensor_bytes: int
    """Of a tensor that a request describes."""
    check_methods: bool = False
    """Whether only signatures that were saved for it classify and regress."""
    as_content: bool = False
    """Whether answers carry their values as tensor_content."""
    batching: bool = False
    """Whether requests share runs."""


def services(plane: DataPlane, source: ConfigSource, metrics: TfsMetrics, options: Options) -> list[Service]:
    """Both services, over one data plane."""
    served = Served(plane, "tfs-grpc", "GRPC", metrics, options.batching)
    prediction = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    return [Service(prediction, Prediction(served, options)), Service(models, ModelService(plane, source))]


class Prediction:
    """PredictionService."""

    def __init__(self, served: Served, options: Options) -> None:
        self._served = served
        self._plane = served.plane
        self._options = options

    async def Predict(self, request: Any) -> Any:  # noqa: ANN401, N802
        """Prediction by a signature (`serving_default` unless named); `output_filter` picks outputs."""
        with self._served.lease(model_spec(request.model_spec), "Predict") as version:
            call = predict_call(request, version.signatures, self._options.max_tensor_bytes)
            outputs = await self._served.infer(version, call, "Predict")
            response = predict_pb2.PredictResponse()
            _fill(response.model_spec, version, call.signature)
            for name, array in outputs.items():
                to_proto(array, response.outputs[name], self._options.as_content)
            return response

    async def Classify(self, request: Any) -> Any:  # noqa: ANN401, N802
        """Classification of tf.Examples."""
        return await self._infer(request, CLASSIFY, classification_pb2.ClassificationResponse())

    async def Regress(self, request: Any) -> Any:  # noqa: ANN401, N802
        """Regression of tf.Examples."""
        return await self._infer(request, REGRESS, regression_pb2.RegressionResponse())

    async def MultiInference(self, request: Any) -> Any:  # noqa: ANN401, N802
        """Classifications and regressions of the same tf.Examples by signatures of one model."""
        tasks = check_tasks(request)
        with self._served.lease(model_spec(tasks[0].model_spec), "MultiInference") as version:
            keys = check_signatures(tasks, version.signatures, self._options.check_methods)
            examples = tfs_examples.serialized(request.input)
            response = inference_pb2.MultiInferenceResponse()
            for task, key in zip(tasks, keys, strict=True):
                answer = await tfs_examples.infer(self._served, version, task.method_name, key, examples)
                result = response.results.add()
                _fill(result.model_spec, version, key)
                field = "classification_result" if task.method_name == CLASSIFY else "regression_result"
                getattr(result, field).CopyFrom(answer)
            return response

    async def GetModelMetadata(self, request: Any) -> Any:  # noqa: ANN401, N802
        """The signatures of a version; the one metadata field is signature_def."""
        if not request.HasField("model_spec"):
            raise InvalidRequestError("Missing ModelSpec")
        if not request.metadata_field:
            raise InvalidRequestError("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidRequestError(f"Metadata field {field} is not supported; signature_def is")
        with self._served.lease(model_spec(request.model_spec), "GetModelMetadata") as version:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            response.metadata["signature_def"].Pack(signature_defs(version))
            return response

    async def _infer(self, request: Any, method: str, response: Any) -> Any:  # noqa: ANN401 - stubs without types
        api = "Classify" if method == CLASSIFY else "Regress"
        with self._served.lease(model_spec(request.model_spec), api) as version:
            key = request.model_spec.signature_name
            key = tfs_examples.signature_for(version.signatures, method, key, self._options.check_methods)
            examples = tfs_examples.serialized(request.input)
            answer = await tfs_examples.infer(self._served, version, method, key, examples)
            response.result.CopyFrom(answer)
            _fill(response.model_spec, version, key)
            return response


def _fill(spec: Any, version: Version, key: str) -> None:  # noqa: ANN401 - a ModelSpec's message
    spec.name = version.model
    spec.signature_name = key
    spec.version.value = version.number
