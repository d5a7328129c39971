"""Open Inference Protocol v2 over REST.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

from serving.server.dataplane import Call, DataPlane, signature_of
from serving.server.errors import InvalidRequestError, UnavailableError
from serving.server.http import Request, Response, Route
from serving.server.protocols import oip_codec
from serving.server.protocols.oip_body import parse, respond
from serving.server.signature import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.server.versions import Version

PROTOCOL = "oip-rest"
SERVER = {"name": "tandem", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
MODEL = r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>\d{1,18}))?"


def routes(plane: DataPlane) -> list[Route]:
    """The front's routes."""
    front = OipRest(plane)
    return [
        Route("POST", f"{MODEL}/infer", front.infer),
        Route("GET", "/v2/?", front.server),
        Route("GET", "/v2/health/live", front.live),
        Route("GET", "/v2/health/ready", front.ready),
        Route("GET", MODEL, front.metadata),
        Route("GET", f"{MODEL}/ready", front.model_ready),
    ]


class OipRest:
    """The handlers; each answers or raises a `ServerError`."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def server(self, _request: Request) -> Response:
        """Server metadata."""
        return Response.json(SERVER)

    async def live(self, _request: Request) -> Response:
        """Whether the process answers at all."""
        return Response.json({"live": True})

    async def ready(self, _request: Request) -> Response:
        """Whether every model answers."""
        if not self._plane.ready:
            raise UnavailableError(self._plane.account())
        return Response.json({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """Whether one model answers."""
        name, version = _target(request)
        served = self._plane.models.model(name).version(version)
        return Response.json({"name": name, "version": str(served.number), "ready": True})

    async def metadata(self, request: Request) -> Response:
        """Names, datatypes and shapes of a model; `versions` are those that answer."""
        name, number = _target(request)
        model = self._plane.models.model(name)
        version = model.version(number)
        signature = default_signature(version)
        return Response.json(
            {
                "name": name,
                "versions": [str(n) for n in model.loaded],
                "platform": self._plane.platform,
                "inputs": [_describe(spec) for spec in signature.inputs],
                "outputs": [_describe(spec) for spec in signature.outputs],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Inference."""
        name, number = _target(request)
        with self._plane.serve(PROTOCOL, name, number) as version:
            asked = parse(request, default_signature(version))
            call = Call(asked.inputs, tuple(asked.outputs), default_key(version))
            outputs = await self._plane.infer(version, call)
            return respond(version, asked, outputs)


def default_key(version: Version) -> str:
    """The one signature that the protocol can call."""
    return (
        DEFAULT_SIGNATURE
        if DEFAULT_SIGNATURE in version.signatures
        else next(iter(sorted(version.signatures)))
    )


def default_signature(version: Version) -> Signature:
    """As `default_key`. Raises `InvalidRequestError` where the model has none."""
    if not version.signatures:
        raise InvalidRequestError(f"model {version.model} has no signature to call")
    return signature_of(version, default_key(version))


def _target(request: Request) -> tuple[str, int | None]:
    version = request.variables["version"]
    return request.variables["model"], int(version) if version else None


def _describe(spec: TensorSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "datatype": oip_codec.DATATYPES[spec.dtype],
        "shape": list(spec.shape) if spec.shape is not None else [-1],
    }
