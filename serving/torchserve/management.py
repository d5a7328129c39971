"""A client of TorchServe's management API, which needs no token."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.http import HttpConnection
from serving.torchserve.config import management_address


class Management:
    """Calls the management API of the running server. Raises `TargetError` if none was started."""

    def __init__(self, settings: Settings, timeout: float = 10) -> None:
        self._timeout = timeout
        try:
            self._address = management_address(settings).removeprefix("http://")
        except FileNotFoundError:
            raise TargetError("torchserve: the server was not started") from None

    def describe(self, model: str, version: int | None = None) -> dict[str, Any] | None:
        """Return a version of a model, by default the default one; None if there is none."""
        path = f"/models/{model}" if version is None else f"/models/{model}/{version}"
        found: list[dict[str, Any]] | None = self._ask(f"describe {model}", "GET", path, 200, unless=404)
        return found[0] if found else None

    def versions(self, model: str) -> list[int]:
        """Return the registered versions of a model."""
        found = self._ask(f"list the versions of {model}", "GET", f"/models/{model}/all", 200, unless=404)
        return sorted(int(entry["modelVersion"]) for entry in found or [])

    def register(self, model: str, archive: str) -> None:
        """Register an archive of the model store and start its worker; does not wait for it."""
        path = f"/models?model_name={model}&url={archive}&initial_workers=1&synchronous=false"
        self._ask(f"register {archive}", "POST", path, 202, unless=409)

    def set_default(self, model: str, version: int) -> None:
        """Make a version the default."""
        path = f"/models/{model}/{version}/set-default"
        self._ask(f"make {version} the default of {model}", "PUT", path, 200)

    def unregister(self, model: str, version: int) -> None:
        """Remove a version and stop its worker."""
        path = f"/models/{model}/{version}"
        self._ask(f"unregister version {version} of {model}", "DELETE", path, 200, unless=404)

    def call(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and JSON of a call. Raises `TargetError` without a response."""
        with closing(HttpConnection(self._address, timeout=self._timeout)) as connection:
            answer = connection.exchange(method, path)
        try:
            return answer.status, json.loads(answer.body) if answer.body else {}
        except ValueError:
            return answer.status, {"message": answer.body[:200].decode(errors="replace")}

    def _ask(self, action: str, method: str, path: str, expected: int, unless: int = 0) -> Any:  # noqa: ANN401
        """Return the JSON; None for the status `unless`. Raises `TargetError` for others than `expected`."""
        status, answer = self.call(method, path)
        if status == unless:
            return None
        if status != expected:
            message = answer.get("message") or answer.get("status") if isinstance(answer, dict) else answer
            raise TargetError(f"torchserve: cannot {action}: {status}, {message}")
        return answer
