"""TensorFlow Serving's REST: predict in row and column form, status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.server.dataplane import Call, DataPlane, signature_of
from serving.server.errors import InvalidRequestError, NotFoundError
from serving.server.http import Request, Response, Route
from serving.server.protocols import tfs_json
from serving.server.signature import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.server.versions import Status

PROTOCOL = "tfs-rest"
MODEL = r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d{1,18}))?"

DTYPES = {
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "bool": "DT_BOOL",
    "bytes": "DT_STRING",
    **{f"int{bits}": f"DT_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"DT_UINT{bits}" for bits in (8, 16, 32, 64)},
}


def routes(plane: DataPlane) -> list[Route]:
    """The front's routes."""
    front = TfsRest(plane)
    return [
        Route("POST", f"{MODEL}:predict", front.predict),
        Route("GET", MODEL, front.status),
        Route("GET", f"{MODEL}/metadata", front.metadata),
    ]


class TfsRest:
    """The handlers; each answers or raises a `ServerError`."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def predict(self, request: Request) -> Response:
        """Prediction in row form (`instances` -> `predictions`) or column form (`inputs` -> `outputs`)."""
        model, number = _target(request)
        with self._plane.serve(PROTOCOL, model, number) as version:
            document = request.json()
            if not isinstance(document, dict):
                raise InvalidRequestError(f"expected a JSON object, got {type(document).__name__}")
            key = document.get("signature_name", DEFAULT_SIGNATURE)
            if not isinstance(key, str):
                raise InvalidRequestError(f"expected signature_name to be a string, got {type(key).__name__}")
            inputs, rows = tfs_json.read(document, signature_of(version, key))
            outputs = await self._plane.infer(version, Call(inputs, signature=key, pictures=False))
            return Response(tfs_json.write(outputs, rows))

    async def status(self, request: Request) -> Response:
        """The state of every version, or of one."""
        name, number = _target(request)
        statuses = versions_asked(self._plane.models.model(name).statuses, name, number)
        return Response.json({"model_version_status": [_state(n, status) for n, status in statuses]})

    async def metadata(self, request: Request) -> Response:
        """The signatures of a version."""
        name, number = _target(request)
        version = self._plane.models.model(name).version(number)
        definitions = {key: _definition(signature) for key, signature in version.signatures.items()}
        return Response.json(
            {
                "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
                "metadata": {"signature_def": {"signature_def": definitions}},
            }
        )


def versions_asked(statuses: Mapping[int, Status], name: str, number: int | None) -> list[tuple[int, Status]]:
    """The versions that a status request is about, newest first. Raises `NotFoundError`."""
    if number is None:
        if not statuses:
            raise NotFoundError(f"could not find any versions of model {name}")
        return sorted(statuses.items(), reverse=True)
    if number not in statuses:
        raise NotFoundError(f"could not find version {number} of model {name}")
    return [(number, statuses[number])]


def _target(request: Request) -> tuple[str, int | None]:
    version = request.variables["version"]
    return request.variables["model"], int(version) if version else None


def _state(number: int, status: Status) -> dict[str, object]:
    fault = status.fault
    return {
        "version": str(number),
        "state": status.state.value,
        "status": {
            "error_code": fault.code.name if fault else "OK",
            "error_message": str(fault) if fault else "",
        },
    }


def _definition(signature: Signature) -> dict[str, object]:
    return {
        "inputs": {spec.name: _info(spec) for spec in signature.inputs},
        "outputs": {spec.name: _info(spec) for spec in signature.outputs},
        "method_name": signature.method,
        "defaults": {},
    }


def _info(spec: TensorSpec) -> dict[str, object]:
    return {
        "dtype": DTYPES[spec.dtype],
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape or ()],
            "unknown_rank": spec.shape is None,
        },
        "name": f"{spec.name}:0",
    }
