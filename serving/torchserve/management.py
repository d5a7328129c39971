"""TorchServe's management API, with its token."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.config import state


class Management:
    """Calls the management API of a running server; used by whoever may read its key file.

    Management keys expire after an hour; the `API` key, which does not, renews them.
    """

    def __init__(self, settings: Settings, timeout: float = 10) -> None:
        self.host, self.port = settings.host, settings.torchserve_management_port
        self.keys: Path = state(settings) / "key_file.json"
        self.timeout = timeout

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
        """Status and JSON of one call. Raises `TargetError` where nothing answers or no key lets us in."""
        status, answer = self._send(method, path, "management")
        if _refused(status, answer):
            self._send("GET", "/token?type=management", "API")
            status, answer = self._send(method, path, "management")
        if _refused(status, answer):
            raise TargetError(
                f"torchserve: {self.host}:{self.port} refuses the keys in {self.keys}; is it another server?"
            )
        return status, answer

    def _send(self, method: str, path: str, key: str) -> tuple[int, Any]:
        try:
            token = json.loads(self.keys.read_text())[key]["key"]
        except (OSError, ValueError, KeyError) as error:
            raise TargetError(
                f"torchserve: no key in {self.keys}; is the server running? ({error})"
            ) from None
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TargetError(f"torchserve: {self.host}:{self.port} does not answer: {error}") from error
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


def _refused(status: int, answer: Any) -> bool:  # noqa: ANN401
    return status == 400 and isinstance(answer, dict) and answer.get("type") == "InvalidKeyException"
