"""Open Inference Protocol v2 over REST, with Triton's extensions of model repository, statistics and configuration.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import ForbiddenError, InvalidRequestError, UnavailableError, quote
from serving.server.http import Handler, Request, Response, Route, parse_json
from serving.server.oip import description
from serving.server.oip.body import parameters_of, parse, respond

PROTOCOL = "oip-rest"
OPENAPI = Path(__file__).with_name("openapi.json").read_bytes()
MODEL = r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[0-9]{1,18}))?"
REPOSITORY_MODEL = r"/v2/repository/models/(?P<model>[^/]+)"


def routes(plane: DataPlane, repository_control: bool) -> list[Route]:
    """Return the routes. Without `repository_control`, loading and unloading are refused."""

    def told(describe: Callable[[DataPlane, str, int | None], object]) -> Handler:
        async def answer(request: Request) -> Response:
            return Response.json(describe(plane, *_target(request)))

        return answer

    front = OipRest(plane, repository_control)
    return [
        Route("POST", f"{MODEL}/infer", front.infer),
        Route("GET", "/v2/?", _always(orjson.dumps(description.SERVER))),
        Route("GET", r"/v2/(docs|openapi\.json)", _always(OPENAPI)),
        Route("GET", "/v2/health/live", _always(b'{"live":true}')),
        Route("GET", "/v2/health/ready", front.ready),
        Route("GET", "/v2/models/stats", told(description.statistics)),
        Route("GET", MODEL, told(description.metadata)),
        Route("GET", f"{MODEL}/ready", told(description.readiness)),
        Route("GET", f"{MODEL}/config", told(description.configuration)),
        Route("GET", f"{MODEL}/stats", told(description.statistics)),
        Route("POST", "/v2/repository/index", front.index),
        Route("POST", f"{REPOSITORY_MODEL}/load", front.load),
        Route("POST", f"{REPOSITORY_MODEL}/unload", front.unload),
    ]


class OipRest:
    """The handlers; each returns a response or raises a `ServerError`."""

    def __init__(self, plane: DataPlane, repository_control: bool) -> None:
        self._plane = plane
        self._repository_control = repository_control

    async def ready(self, _request: Request) -> Response:
        if not self._plane.ready:
            raise UnavailableError(self._plane.account())
        return Response.json({"ready": True})

    async def infer(self, request: Request) -> Response:
        name, number = _target(request)
        with self._plane.lease(request.record, PROTOCOL, name, number) as version:
            key, signature = description.default(version)
            asked = parse(request, signature)
            call = Call(asked.inputs, tuple(asked.outputs), key, timeout=asked.timeout)
            outputs = await self._plane.infer(version, call, request.record)
            return respond(version, asked, outputs)

    async def index(self, request: Request) -> Response:
        ready = _object(request).get("ready")
        if ready is not None and not isinstance(ready, bool):
            raise InvalidRequestError(f'expected "ready" to be true or false, got {quote(ready)}')
        return Response.json(description.index(await self._plane.models.index(), bool(ready)))

    async def load(self, request: Request) -> Response:
        await self._plane.models.load(self._to_change(request))
        return Response.json({})

    async def unload(self, request: Request) -> Response:
        await self._plane.models.unload(self._to_change(request))
        return Response.json({})

    def _to_change(self, request: Request) -> str:
        # Pages in browsers of this network must not unload models.
        if request.header("origin") is not None:
            raise ForbiddenError("loading and unloading are refused to pages in browsers (with an Origin)")
        description.check_change(self._repository_control, parameters_of(_object(request), "request"))
        return request.variables["model"]


def _always(document: bytes) -> Handler:
    async def answer(_request: Request) -> Response:
        return Response(document)

    return answer


def _target(request: Request) -> tuple[str, int | None]:
    """Return the model and the version of a path; "" for all models."""
    version = request.variables.get("version")
    return request.variables.get("model", ""), int(version) if version else None


def _object(request: Request) -> dict[str, object]:
    """Return the body as a JSON object; an empty body is `{}`."""
    document = parse_json(request.body) if request.body else {}
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object or an empty body, got {type(document).__name__}")
    return document
