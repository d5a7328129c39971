"""Open Inference Protocol v2 over REST, with Triton's extensions of model repository, statistics and configuration.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import orjson

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import ForbiddenError, InvalidRequestError, UnavailableError, quote
from serving.server.http import Handler, Request, Response, Route, parse_object
from serving.server.oip import description
from serving.server.oip.body import parameters_of, parse, respond

PROTOCOL = "oip-rest"
OPENAPI = orjson.loads(Path(__file__).with_name("openapi.json").read_bytes())
MODEL = r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[0-9]{1,19}))?"
REPOSITORY_MODEL = r"/v2/repository/models/(?P<model>[^/]+)"


def routes(plane: DataPlane, repository_control: bool) -> list[Route]:
    """Return the routes. Without `repository_control`, loading and unloading are refused."""

    def told(describe: Callable[[DataPlane, str, int | None], object]) -> Handler:
        async def answer(request: Request) -> Response:
            return Response.json(describe(plane, *_target(request)))

        return answer

    def changed(change: Callable[[str], Awaitable[None]]) -> Handler:
        async def answer(request: Request) -> Response:
            # Pages in browsers of this network must not unload models.
            if request.header("origin") is not None:
                raise ForbiddenError("loading and unloading are refused to browsers (with an Origin)")
            parameters = parameters_of(parse_object(request.body), "request")
            description.check_change(repository_control, parameters)
            await change(request.variables["model"])
            return Response.json({})

        return answer

    return [
        Route("POST", f"{MODEL}/infer", partial(_infer, plane)),
        Route("GET", "/v2/?", told(lambda *_: description.SERVER)),
        Route("GET", r"/v2/(docs|openapi\.json)", told(lambda *_: OPENAPI)),
        Route("GET", "/v2/health/live", told(lambda *_: {"live": True})),
        Route("GET", "/v2/health/ready", told(_ready)),
        Route("GET", "/v2/models/stats", told(description.statistics)),
        Route("GET", MODEL, told(description.metadata)),
        Route("GET", f"{MODEL}/ready", told(description.readiness)),
        Route("GET", f"{MODEL}/config", told(description.configuration)),
        Route("GET", f"{MODEL}/stats", told(description.statistics)),
        Route("POST", "/v2/repository/index", partial(_index, plane)),
        Route("POST", f"{REPOSITORY_MODEL}/load", changed(plane.models.load)),
        Route("POST", f"{REPOSITORY_MODEL}/unload", changed(plane.models.unload)),
    ]


async def _infer(plane: DataPlane, request: Request) -> Response:
    name, number = _target(request)
    with plane.lease(request.record, PROTOCOL, name, number) as version:
        key, signature = description.default(version)
        asked = parse(request, signature)
        call = Call(asked.inputs, tuple(asked.outputs), key, timeout=asked.timeout)
        return respond(version, asked, await plane.infer(version, call, request.record))


async def _index(plane: DataPlane, request: Request) -> Response:
    ready = parse_object(request.body).get("ready")
    if ready is not None and not isinstance(ready, bool):
        raise InvalidRequestError(f'expected "ready" to be true or false, got {quote(ready)}')
    return Response.json(description.index(await plane.models.index(), bool(ready)))


def _ready(plane: DataPlane, *_: object) -> object:
    if not plane.ready:
        raise UnavailableError(plane.account())
    return {"ready": True}


def _target(request: Request) -> tuple[str, int | None]:
    """Return the model and the version of a path; "" for all models."""
    version = request.variables.get("version")
    return request.variables.get("model", ""), int(version) if version else None
