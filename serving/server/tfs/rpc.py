"""TensorFlow Serving's PredictionService and ModelService, by the messages of tensorflow-serving-api."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from grpc import StatusCode
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, ServerError, quote
from serving.server.metrics import RequestRecord
from serving.server.repository.versions import Version
from serving.server.rpc import Service
from serving.server.tfs.inference import CLASSIFY, REGRESS, by_examples, by_tasks, predict_call, tasks_of
from serving.server.tfs.model_access import lease, signature_defs, statuses
from serving.server.tfs.model_config import ConfigSource
from serving.server.tfs.tensors import to_proto

log = logging.getLogger("tandem.server")

PROTOCOL = "tfs-grpc"


def services(plane: DataPlane, source: ConfigSource, max_tensor_bytes: int) -> list[Service]:
    """Return both services; `max_tensor_bytes` limits an input whose last value fills the rest of it."""
    return [
        _service(prediction_service_pb2.DESCRIPTOR, PredictionService(plane, max_tensor_bytes)),
        _service(model_service_pb2.DESCRIPTOR, ModelService(plane, source)),
    ]


def _service(file: Any, front: object) -> Service:
    """Return the service of the front's name, with the methods that the front has."""
    descriptor = file.services_by_name[type(front).__name__]
    names = [method.name for method in descriptor.methods if hasattr(front, method.name)]
    return Service(descriptor, {name: getattr(front, name) for name in names})


class PredictionService:
    def __init__(self, plane: DataPlane, max_tensor_bytes: int) -> None:
        self._plane = plane
        self._max_tensor_bytes = max_tensor_bytes

    async def Predict(self, request: Any, record: RequestRecord) -> Any:
        """Run a signature (`serving_default` unless named); `output_filter` selects outputs."""
        with lease(self._plane, record, PROTOCOL, "Predict", request.model_spec) as version:
            call = predict_call(request, version.signatures, self._max_tensor_bytes)
            outputs = await self._plane.infer(version, call, record)
            response = predict_pb2.PredictResponse(model_spec=_spec(version, call.signature))
            for name, array in outputs.items():
                to_proto(array, response.outputs[name])
            return response

    async def Classify(self, request: Any, record: RequestRecord) -> Any:
        return await self._infer(request, record, CLASSIFY, classification_pb2.ClassificationResponse)

    async def Regress(self, request: Any, record: RequestRecord) -> Any:
        return await self._infer(request, record, REGRESS, regression_pb2.RegressionResponse)

    async def MultiInference(self, request: Any, record: RequestRecord) -> Any:
        spec = tasks_of(request)[0].model_spec
        with lease(self._plane, record, PROTOCOL, "MultiInference", spec) as version:
            infer = partial(self._plane.infer, version, record=record)
            return await by_tasks(infer, version.signatures, request, partial(_spec, version))

    async def GetModelMetadata(self, request: Any, record: RequestRecord) -> Any:
        """Return the signatures of a version; signature_def is the only metadata field."""
        if set(request.metadata_field) != {"signature_def"}:
            got = quote(", ".join(request.metadata_field)) if request.metadata_field else "none"
            raise InvalidRequestError(f"expected the metadata_field signature_def, got {got}")
        with lease(self._plane, record, PROTOCOL, "GetModelMetadata", request.model_spec) as version:
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_spec(version))
            response.metadata["signature_def"].Pack(signature_defs(version))
            return response

    async def _infer(self, request: Any, record: RequestRecord, method: str, response: Any) -> Any:
        operation = "Classify" if method == CLASSIFY else "Regress"
        with lease(self._plane, record, PROTOCOL, operation, request.model_spec) as version:
            infer = partial(self._plane.infer, version, record=record)
            key = request.model_spec.signature_name
            key, result = await by_examples(infer, version.signatures, method, key, request.input)
            return response(model_spec=_spec(version, key), result=result)


class ModelService:
    """ModelService: the status of versions, and the models to serve."""

    def __init__(self, plane: DataPlane, source: ConfigSource) -> None:
        self._plane = plane
        self._source = source

    async def GetModelStatus(self, request: Any, _record: RequestRecord) -> Any:
        if not request.HasField("model_spec"):
            raise InvalidRequestError("expected a ModelSpec, got none")
        return statuses(self._plane, request.model_spec)

    async def HandleReloadConfigRequest(self, request: Any, _record: RequestRecord) -> Any:
        """Serve the given ModelServerConfig; returns when its versions are loaded or refused."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequestError("expected a ModelServerConfig with model_config_list, got none")
        new = self._source.replace(request.config)
        await self._plane.models.refresh()
        added = [self._plane.models.model(name) for name in sorted(new)]
        accounts = [model.account() for model in added if not model.ready]
        if accounts:
            error = ServerError(f"{len(accounts)} model(s) did not become available: {'; '.join(accounts)}")
            error.code = StatusCode.UNKNOWN  # As the original.
            raise error
        log.info("serving by a new configuration: %s", ", ".join(sorted(self._source.find())) or "no models")
        return model_management_pb2.ReloadConfigResponse(status={"error_code": 0})


def _spec(version: Version, key: str = "") -> Any:
    return ModelSpec(name=version.model, signature_name=key, version={"value": version.number})
