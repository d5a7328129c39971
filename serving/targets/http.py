"""HTTP to an endpoint over a kept-alive connection, with errors that quote the response.

By the standard library's client: importing another one would slow down `tandem status`.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from models.signature import Signature
from serving.settings import Settings
from serving.targets.base import Endpoint, Target, TargetError

Read = TypeVar("Read")


@dataclass(frozen=True)
class Answer:
    """A response; names of headers are case-insensitive."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class HttpConnection:
    """Requests to one server; `host` may include the port, or be `unix:<path>`."""

    def __init__(self, host: str, port: int | None = None, timeout: float = 30.0) -> None:
        self._connection: http.client.HTTPConnection
        if host.startswith("unix:"):
            self.base, self._connection = host, UnixConnection(host.removeprefix("unix:"), timeout)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)
            self.base = f"http://{self._connection.host}:{self._connection.port}"

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Return the response, with any status. Raises `TargetError` if there is none."""
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, path, body, headers or {})
            response = self._connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # The server may have closed the idle connection.
            if kept and isinstance(error, ConnectionError):
                return self.exchange(method, path, body, headers)
            raise TargetError(
                f"{self.base}{path} does not answer: {error or type(error).__name__}"
            ) from error

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Return the response. Raises `TargetError` for an error or no response."""
        answer = self.exchange(method, path, body, headers)
        if answer.status >= 400:
            text = answer.body.decode(errors="replace")[:500]
            raise TargetError(f"{self.base}{path} answered {answer.status}: {text}")
        return answer

    def json(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401
        """Send and receive JSON. Raises `TargetError` as `request` does, or if the response is not JSON."""
        data = None if body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data else {}
        answer = self.request(method, path, data, own | (headers or {}))
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise TargetError(f"{self.base}{path} answered with invalid JSON: {error}") from error

    def close(self) -> None:
        self._connection.close()


class HttpClient:
    """A client of a model's predictions at `PATH`."""

    PATH: ClassVar[str]

    def __init__(self, host: str, port: int, model: str, signature: Signature) -> None:
        self._http = HttpConnection(host, port)
        self._path, self._signature = self.PATH.format(model=model), signature

    def close(self) -> None:
        self._http.close()


def ask(target: Target, settings: Settings, read: Callable[[HttpConnection], Read]) -> Read | None:
    """Return what `read` reads from a running target; None after any failure."""
    with closing(HttpConnection(settings.host, target.port(settings, "http"), timeout=5)) as connection:
        try:
            return read(connection)
        except (TargetError, LookupError, TypeError, ValueError, AttributeError):
            # Another server may listen there.
            return None


def endpoints(target: Target, settings: Settings, predict: str, *body: str) -> list[Endpoint]:
    """Return the endpoints of a target with REST, gRPC and metrics; `body` are curl's options for `predict`."""
    purpose = "metrics" if "metrics" in target.container.ports else "http"
    rest = f"http://{settings.host}:{target.port(settings, 'http')}{predict}"
    metrics = f"http://{settings.host}:{target.port(settings, purpose)}{target.container.metrics}"
    return [
        Endpoint("REST", rest, shlex.join(["curl", "-s", rest, *body])),
        Endpoint("gRPC", f"{settings.host}:{target.port(settings, 'grpc')}"),
        Endpoint("metrics", metrics, f"curl -s {metrics}"),
    ]
