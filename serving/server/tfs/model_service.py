"""TensorFlow Serving's ModelService: what is served in which state, and what is to be served from now on."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from grpc import StatusCode
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving.server.dataplane import DataPlane
from serving.server.errors import InvalidRequestError, ServerError
from serving.server.records import RequestRecord
from serving.server.tfs.messages import model_spec
from serving.server.tfs.model_access import statuses
from serving.server.tfs.model_config import ConfigSource

log = logging.getLogger("tandem.server")


class LoadError(ServerError):
    """A model that a new configuration names did not load."""

    code: ClassVar[StatusCode] = StatusCode.UNKNOWN


class ModelService:
    """ModelService."""

    def __init__(self, plane: DataPlane, source: ConfigSource) -> None:
        self._plane = plane
        self._source = source

    async def GetModelStatus(self, request: Any, _record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """The state of every version, or of one."""
        if not request.HasField("model_spec"):
            raise InvalidRequestError("expected a ModelSpec, got none")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, status in statuses(self._plane, model_spec(request.model_spec)):
            entry = response.model_version_status.add()
            entry.version = version
            entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(status.state.value)
            entry.status.error_code = status.fault.code.value[0] if status.fault else 0
            entry.status.error_message = str(status.fault) if status.fault else ""
        return response

    async def HandleReloadConfigRequest(self, request: Any, _record: RequestRecord) -> Any:  # noqa: ANN401, N802
        """Serve what the given ModelServerConfig says; answered when its versions are loaded or refused."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequestError("expected a ModelServerConfig with model_config_list, got none")
        new = self._source.replace(request.config)
        await self._plane.models.refresh()
        added = [self._plane.models.model(name) for name in sorted(new)]
        accounts = [model.account() for model in added if not model.ready]
        if accounts:
            raise LoadError(f"{len(accounts)} model(s) did not become available: {'; '.join(accounts)}")
        log.info("serving by a new configuration: %s", ", ".join(sorted(self._source.find())) or "no models")
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response
