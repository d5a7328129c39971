"""TorchServe's management API, for its own user in its own container: it takes no token."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.config import management_address


class Management:
    """Calls the management API of the server that runs now. Raises `TargetError` where none was started."""

    def __init__(self, settings: Settings, timeout: float = 10) -> None:
        self.timeout = timeout
        try:
            self.address = management_address(settings)
        except FileNotFoundError:
            raise TargetError("torchserve: the server was not started") from None

    def describe(self, model: str, version: int | None = None) -> dict[str, Any] | None:
        """A version of a model, the default one unless named; None where there is none."""
        path = f"/models/{model}" if version is None else f"/models/{model}/{version}"
        status, answer = self.call("GET", path)
        if status == 404:
            return None
        self._expect(status, answer, 200, f"describe {model}")
        found: dict[str, Any] = answer[0]
        return found

    def versions(self, model: str) -> list[int]:
        """The registered versions of a model."""
        status, answer = self.call("GET", f"/models/{model}/all")
        if status == 404:
            return []
        self._expect(status, answer, 200, f"list the versions of {model}")
        return sorted(int(entry["modelVersion"]) for entry in answer)

    def register(self, model: str, archive: str) -> None:
        """Register an archive of the model store and start its worker; returns when that was asked for."""
        path = f"/models?model_name={model}&url={archive}&initial_workers=1&synchronous=false"
        status, answer = self.call("POST", path)
        if status != 409:
            self._expect(status, answer, 202, f"register {archive}")

    def set_default(self, model: str, version: int) -> None:
        """Make calls without a version go to this one."""
        status, answer = self.call("PUT", f"/models/{model}/{version}/set-default")
        self._expect(status, answer, 200, f"make {version} the default of {model}")

    def unregister(self, model: str, version: int) -> None:
        """Remove a version and stop its worker."""
        status, answer = self.call("DELETE", f"/models/{model}/{version}")
        if status != 404:
            self._expect(status, answer, 200, f"unregister version {version} of {model}")

    def call(self, method: str, path: str) -> tuple[int, Any]:
        """Status and JSON of one call. Raises `TargetError` where nothing answers."""
        connection = _connection(self.address, self.timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TargetError(f"torchserve: {self.address} does not answer: {error}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(body) if body else {}
        except ValueError:
            return answer.status, {"message": body[:200].decode(errors="replace")}

    def _expect(self, status: int, answer: Any, expected: int, action: str) -> None:  # noqa: ANN401
        if status != expected:
            message = answer.get("message") or answer.get("status") if isinstance(answer, dict) else answer
            raise TargetError(f"torchserve: cannot {action}: {status}, {message}")


def _connection(address: str, timeout: float) -> http.client.HTTPConnection:
    scheme, _, place = address.partition(":")
    if scheme == "unix":
        return _UnixConnection(place, timeout)
    return http.client.HTTPConnection(place.removeprefix("//"), timeout=timeout)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)
