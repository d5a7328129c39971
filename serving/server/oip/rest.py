"""Open Inference Protocol v2 over REST, with Triton's extensions of model repository, statistics and configuration.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

from pathlib import Path

import orjson

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import ForbiddenError, InvalidRequestError, UnavailableError, quote
from serving.server.http import Handler, Request, Response, Route
from serving.server.oip import description
from serving.server.oip.body import parse, respond
from serving.server.oip.parameters import parameters_of

PROTOCOL = "oip-rest"
OPENAPI = Path(__file__).with_name("openapi.json").read_bytes()
MODEL = r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[0-9]{1,18}))?"
REPOSITORY_MODEL = r"/v2/repository/models/(?P<model>[^/]+)"


def routes(plane: DataPlane, repository_control: bool) -> list[Route]:
    """The protocol's routes. Without `repository_control`, loading and unloading are refused."""
    front = OipRest(plane, repository_control)
    return [
        Route("POST", f"{MODEL}/infer", front.infer),
        Route("GET", "/v2/?", _always(orjson.dumps(description.SERVER))),
        Route("GET", r"/v2/(docs|openapi\.json)", _always(OPENAPI)),
        Route("GET", "/v2/health/live", _always(b'{"live":true}')),
        Route("GET", "/v2/health/ready", front.ready),
        Route("GET", "/v2/models/stats", front.statistics),
        Route("GET", MODEL, front.metadata),
        Route("GET", f"{MODEL}/ready", front.model_ready),
        Route("GET", f"{MODEL}/config", front.configuration),
        Route("GET", f"{MODEL}/stats", front.statistics),
        Route("POST", "/v2/repository/index", front.index),
        Route("POST", f"{REPOSITORY_MODEL}/load", front.load),
        Route("POST", f"{REPOSITORY_MODEL}/unload", front.unload),
    ]


class OipRest:
    """The handlers; each answers or raises a `ServerError`."""

    def __init__(self, plane: DataPlane, repository_control: bool) -> None:
        self._plane = plane
        self._repository_control = repository_control

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
        """Names, datatypes and shapes of a model."""
        return Response.json(description.metadata(self._plane, *_target(request)))

    async def configuration(self, request: Request) -> Response:
        """A model's configuration in Triton's words."""
        return Response.json(description.configuration(self._plane, *_target(request)))

    async def statistics(self, request: Request) -> Response:
        """Statistics of a model's versions, or of all models."""
        return Response.json(description.statistics(self._plane, *_target(request)))

    async def infer(self, request: Request) -> Response:
        """Inference."""
        name, number = _target(request)
        with self._plane.lease(request.record, PROTOCOL, name, number) as version:
            key = description.default_key(version)
            asked = parse(request, version.signatures[key])
            call = Call(asked.inputs, tuple(asked.outputs), key, timeout=asked.timeout)
            outputs = await self._plane.infer(version, call, request.record)
            return respond(version, asked, outputs)

    async def index(self, request: Request) -> Response:
        """What the repository holds."""
        ready = _object(request).get("ready")
        if ready is not None and not isinstance(ready, bool):
            raise InvalidRequestError(f'expected "ready" to be true or false, got {quote(ready)}')
        return Response.json(description.index(await self._plane.models.index(), bool(ready)))

    async def load(self, request: Request) -> Response:
        """Load what the repository holds of a model."""
        self._check_control(request)
        description.check_repository_parameters(parameters_of(_object(request), "request"))
        await self._plane.models.load(request.variables["model"])
        return Response.json({})

    async def unload(self, request: Request) -> Response:
        """Unload a model until it is loaded again."""
        self._check_control(request)
        parameters_of(_object(request), "request")
        await self._plane.models.unload(request.variables["model"])
        return Response.json({})

    def _check_control(self, request: Request) -> None:
        if not self._repository_control:
            raise ForbiddenError("loading and unloading need the server's flag --repository-control")
        # Whoever may open a page in a browser of this network is not whoever may unload models.
        if request.header("origin") is not None:
            raise ForbiddenError("loading and unloading are refused to pages in browsers (with an Origin)")


def _always(document: bytes) -> Handler:
    async def answer(_request: Request) -> Response:
        return Response(document)

    return answer


def _target(request: Request) -> tuple[str, int | None]:
    """The name and the version in a path; "" stands for all models."""
    version = request.variables.get("version")
    return request.variables.get("model", ""), int(version) if version else None


def _object(request: Request) -> dict[str, object]:
    """The body as a JSON object; an empty one stands for `{}`."""
    document = request.json() if request.body else {}
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object or an empty body, got {type(document).__name__}")
    return document
