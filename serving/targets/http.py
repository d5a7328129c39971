"""One kept-alive HTTP connection to an endpoint, with errors that say what the endpoint answered.

The standard library's client: `tandem status` has no time to import a larger one.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from serving.targets.base import TargetError


@dataclass(frozen=True)
class Answer:
    """A response, read to its end; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpConnection:
    """Requests to one host and port over one connection that is kept alive."""

    def __init__(self, host: str, port: int, timeout: float = 30.0) -> None:
        self.base = f"http://{host}:{port}"
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """The answer, whatever its status. Raises `TargetError` where there is none."""
        fresh = self._connection.sock is None
        try:
            return self._exchange(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # A server may close an idle connection just as we send: that says nothing about the request.
            if fresh or not isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                raise TargetError(
                    f"{self.base}{path} does not answer: {error or type(error).__name__}"
                ) from error
        try:
            return self._exchange(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise TargetError(
                f"{self.base}{path} does not answer: {error or type(error).__name__}"
            ) from error

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Raises `TargetError` where the endpoint does not answer, or answers with an error."""
        answer = self.exchange(method, path, body, headers)
        if answer.status >= 400:
            text = answer.body.decode(errors="replace")[:500]
            raise TargetError(f"{self.base}{path} answered {answer.status}: {text}")
        return answer

    def json(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401
        """Send and receive JSON. Raises `TargetError` as `request` does, or where the answer is not JSON."""
        data = None if body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data else {}
        answer = self.request(method, path, data, own | (headers or {}))
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise TargetError(f"{self.base}{path} answered what is not JSON: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        return Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, content
        )
