"""What answers a request line. Those asked for often are found without a regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import httptools

from serving.server.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, ServerError
from serving.server.http.messages import Request, Response, Route

REMEMBERED = 256
"""Request lines whose routes are known by heart, each of at most `REMEMBERED_BYTES`."""
REMEMBERED_BYTES = 512


@dataclass(frozen=True, slots=True)
class Target:
    """What a request line asks for: a route, or the error that says that there is none."""

    method: str = ""
    path: str = ""
    found: Route | ServerError = field(default_factory=lambda: NotFoundError("nothing was asked for"))
    variables: Mapping[str, str] = field(default_factory=dict)


class Routes:
    """The first route that fits answers; with `cors`, every path also answers a browser's preflight."""

    def __init__(self, routes: Sequence[Route], *, cors: bool) -> None:
        self._routes = [(re.compile(route.path), route) for route in routes]
        self._cors = cors
        self._known: dict[tuple[bytes, bytes], Target] = {}

    def target(self, method: bytes, url: bytes) -> Target:
        """What answers `method` at `url`. Raises `InvalidRequestError` where it is no URL."""
        target = self._known.get((method, url))
        if target is None:
            target = self._find(method.decode("ascii"), _path(url))
            if isinstance(target.found, Route) and len(url) <= REMEMBERED_BYTES:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[method, url] = target
        return target

    def _find(self, method: str, path: str) -> Target:
        allowed = []
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == method or (route.method, method) == ("GET", "HEAD"):
                # Decoded only now: what is escaped in a name, such as a slash, does not divide the path.
                variables = {name: text and unquote(text) for name, text in match.groupdict().items()}
                return Target(method, path, route, variables)
            allowed.append(route.method)
        if self._cors and method == "OPTIONS" and (allowed or path == "*"):
            return Target(method, path, Route("GET", path, _preflight))
        error: ServerError = NotFoundError(f"nothing is served at {path[:200]}")
        if allowed:
            names = sorted(set(allowed))
            message = f"expected {' or '.join(names)} {path}, got {method}"
            error = MethodNotAllowedError(message, ", ".join([*names, *(["HEAD"] if "GET" in names else [])]))
        return Target(method, path, error)


def _path(url: bytes) -> str:
    try:
        path: str = (httptools.parse_url(url).path or b"/").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        raise InvalidRequestError(f"expected a URL, got {url[:80]!r}") from None
    return path


async def _preflight(_request: Request) -> Response:
    return Response(b"")
