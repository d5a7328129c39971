"""HTTP for the REST protocols: requests, responses, routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

import orjson

from serving.server.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, quote
from serving.server.metrics import RequestRecord


@dataclass(slots=True)
class Request:
    """One HTTP request; `variables` are the named groups of its route, decoded."""

    variables: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    """Headers by lower-case name."""
    body: bytes
    record: RequestRecord

    def header(self, name: str) -> str | None:
        """Return a header's value by its lower-case name."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class Response:
    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """Return a response of JSON; numpy arrays become lists."""
        return cls(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status=status)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A method ("*": any), a regular expression that matches a whole path, and the handler."""

    method: str
    path: str
    handler: Handler


def router(routes: Sequence[Route]) -> Callable[[str, str], tuple[Handler, Mapping[str, str]]]:
    """Return a function from a method and a raw path to the handler and variables of the first matching route.

    It raises `NotFoundError` or `MethodNotAllowedError`.
    """
    compiled = [(re.compile(route.path), route) for route in routes]

    @lru_cache(256)  # Clients use few paths, each very often.
    def find(method: str, path: str) -> tuple[Handler, Mapping[str, str]]:
        allowed = set()
        for pattern, route in compiled:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method in ("*", method) or (route.method, method) == ("GET", "HEAD"):
                # Decoded after the match: an escaped slash does not divide the path.
                return route.handler, {k: text and unquote(text) for k, text in match.groupdict().items()}
            allowed.add(route.method)
        if not allowed:
            raise NotFoundError(f"nothing is served at {quote(path)}")
        names = sorted(allowed)
        error = MethodNotAllowedError(f"expected {' or '.join(names)} at {quote(path)}, got {method}")
        allow = ", ".join([*names, "HEAD"] if "GET" in names else names)
        error.headers = ((b"allow", allow.encode()),)
        raise error

    return find


def parse_object(text: bytes | memoryview) -> dict[str, object]:
    """Parse a JSON object by RFC 8259: no NaN, no Infinity, at most 1,024 levels; an empty text is {}.

    Raises `InvalidRequestError`.
    """
    try:
        document = orjson.loads(text or b"{}")
    except orjson.JSONDecodeError as error:
        hint = ""
        # `pos` counts characters, which are bytes in ASCII.
        if re.match(rb"-?(NaN|Infinity)", bytes(text[error.pos : error.pos + 9])):
            hint = "; JSON has no NaN and no Infinity: send such values as binary tensors or over gRPC"
        raise InvalidRequestError(f"expected JSON, but it cannot be read: {error}{hint}") from None
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected a JSON object, got {type(document).__name__}")
    return document
