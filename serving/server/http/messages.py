"""What the REST fronts see of HTTP: requests, responses, routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.server.errors import InvalidRequestError

JSON = "application/json"


class Headers(Mapping[str, str]):
    """Headers by their lower-case names, decoded when they are asked for."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as Mapping has it
        """A header's value, or `default`: most are asked for in vain, and an exception would cost too much."""
        value = self._raw.get(name.encode())
        return default if value is None else value.decode("latin-1")

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode()].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


@dataclass(slots=True)
class Request:
    """One HTTP request; `variables` are the named groups of its route, `headers` have lower-case names."""

    method: str
    path: str
    variables: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body as JSON. Raises `InvalidRequestError` with where it breaks."""
        return parse_json(self.body)


@dataclass(slots=True)
class Response:
    """One HTTP response."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = field(default=())
    code: str = "OK"
    """By the names of gRPC's status codes, for the log."""

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """A response of JSON; numpy arrays become lists."""
        return cls(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status=status)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """A method, a path as a regular expression that matches it whole, and what answers there."""

    method: str
    path: str
    handler: Handler


def parse_json(text: bytes | memoryview) -> object:
    """JSON as RFC 8259 has it: no NaN, no Infinity, and nested less deep than 1,024 levels."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"expected JSON, got a body that is none: {error}{_hint(bytes(text), error)}"
        ) from None


def _hint(text: bytes, error: orjson.JSONDecodeError) -> str:
    # `pos` counts characters; for the ASCII of numbers these are bytes.
    if re.match(rb"-?(NaN|Infinity)", text[error.pos : error.pos + 9]):
        return "; JSON has no NaN and no Infinity, and the model takes finite numbers"
    if "depth" in str(error):
        return "; at most 1024 levels are read"
    return ""
