"""From a request to its response: the limits of its body, its handler, its deadline, and errors in JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from serving.server import exchange
from serving.server.errors import DEADLINE_PASSED, DeadlineError, ServerError
from serving.server.http.bodies import IDENTITY, WORTH_COMPRESSING, Bodies, compress
from serving.server.http.heads import Heads
from serving.server.http.incoming import Incoming
from serving.server.http.known_heads import KnownHeads
from serving.server.http.messages import Headers, Request, Response, Route
from serving.server.http.routes import Routes, Target
from serving.server.observer import Observer

log = logging.getLogger("tandem.server")


class App:
    """Routes with their limits: bodies of at most `max_body_bytes`, `timeout_seconds` for body and answer.

    With `cors`, pages of other origins may read every answer.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        max_body_bytes: int,
        timeout_seconds: float,
        *,
        cors: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._routes = Routes(routes, cors=cors)
        self._bodies = Bodies(max_body_bytes)
        self.known_heads = KnownHeads(self._bodies)
        self._heads = Heads(cors=cors)
        self._observer = observer or Observer()
        self.timeout_seconds = timeout_seconds
        self._late = f"no answer within {timeout_seconds:g} s"
        self.closing = False
        """Whether connections end with the next answer."""

    def admit(
        self, method: bytes, url: bytes, headers: Mapping[bytes, bytes], client: str, *, keep_alive: bool
    ) -> Incoming:
        """A request by its head; one that is refused already waits for no body.

        Raises `InvalidRequestError` where the URL is none.
        """
        target = self._routes.target(method, url)
        incoming = Incoming(self._bodies, headers, target)
        incoming.keep_alive = keep_alive
        parent = headers.get(b"traceparent")
        if parent is not None or self._observer.curious:
            incoming.seen = incoming.context.run(
                self._observer.begin,
                target.method,
                target.path,
                client,
                None if parent is None else parent.decode("latin-1"),
                headers.get(b"tracestate", b"").decode("latin-1"),
            )
        if isinstance(target.found, ServerError):
            incoming.refusal = target.found
        elif target.found.method == "GET":
            incoming.encoding = IDENTITY  # A body would mean nothing here.
        else:
            incoming.refusal = self._bodies.refusal(incoming.encoding, headers.get(b"content-length", b""))
        if incoming.refusal is not None and incoming.has_body:
            # The rest of a body that is refused would be read and thrown away, for ever where it has no end.
            incoming.refuse(incoming.refusal)
        return incoming

    def refuse(self, error: ServerError) -> Incoming:
        """What stands for a request whose head cannot be read."""
        incoming = Incoming(self._bodies, {}, Target())
        incoming.refuse(error)
        return incoming

    async def respond(self, incoming: Incoming) -> Response:
        """The response to a request that is whole, errors included. Only a client that has gone ends it without."""
        target = incoming.target
        try:
            if incoming.refusal is not None:
                return _failure(incoming.refusal)
            body = incoming.body() if incoming.encoding == IDENTITY else await incoming.inflated()
            seen = incoming.seen
            if seen is not None:
                seen.request_bytes = len(body)
            assert isinstance(target.found, Route)
            exchange.deadline.set((incoming.begun + self.timeout_seconds, self._late))
            request = Request(target.method, target.path, target.variables, Headers(incoming.headers), body)
            response = await target.found.handler(request)
            if len(response.body) >= WORTH_COMPRESSING:
                response = await compress(response, request.headers.get("accept-encoding", ""))
        except asyncio.CancelledError as error:
            if DEADLINE_PASSED not in error.args:
                raise
            return _failure(DeadlineError(self._late))
        except ServerError as error:
            if error.status == 500:
                log.error("%s %s: %s", target.method, target.path, error)
            return _failure(error)
        except Exception:
            log.exception("%s %s failed", target.method, target.path)
            incoming.keep_alive = False
            return _failure(ServerError("the server failed on this request; its log says why"))
        else:
            return response
        finally:
            incoming.release()

    def reply(self, incoming: Incoming, response: Response) -> bytes:
        """A response as it is sent; the request is done with."""
        seen = incoming.seen
        trace = () if seen is None else self._tell(seen, response.status, response.code, len(response.body))
        head = self._heads.head(response, trace, close=self.closing or not incoming.keep_alive)
        return head if incoming.target.method == "HEAD" else head + response.body

    def give_up(self, incoming: Incoming) -> None:
        """The client of a request has gone."""
        incoming.release()
        if incoming.seen is not None:
            self._tell(incoming.seen, 499, "CANCELLED", 0)  # As nginx has it.

    def _tell(self, seen: exchange.Exchange, status: int, code: str, size: int) -> Sequence[tuple[str, str]]:
        seen.status, seen.code, seen.response_bytes = status, code, size
        return self._observer.end(seen)


def _failure(error: ServerError) -> Response:
    response = Response.json({"error": str(error)}, error.status)
    response.code = error.code.name
    response.headers = error.headers
    return response
