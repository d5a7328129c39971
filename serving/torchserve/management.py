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
        self._timeout, self._model = timeout, settings.model
        try:
            self._address = management_address(settings).removeprefix("http://")
        except FileNotFoundError:
            raise TargetError("torchserve: the server was not started") from None

    def describe(self) -> dict[str, Any] | None:
        """Return the default version of the model; None if there is none."""
        found: list[dict[str, Any]] | None = self._ask("GET", f"/models/{self._model}")
        return found[0] if found else None

    def versions(self) -> list[int]:
        """Return the registered versions of the model."""
        return [int(entry["modelVersion"]) for entry in self._ask("GET", f"/models/{self._model}/all") or []]

    def register(self, archive: str) -> None:
        """Register an archive of the model store, start its worker, and wait until that is ready."""
        options = "initial_workers=1&synchronous=true"
        self._ask("POST", f"/models?model_name={self._model}&url={archive}&{options}")

    def set_default(self, version: int) -> None:
        """Make a version the default."""
        self._ask("PUT", f"/models/{self._model}/{version}/set-default")

    def unregister(self, version: int) -> None:
        """Remove a version and stop its worker."""
        self._ask("DELETE", f"/models/{self._model}/{version}")

    def call(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and JSON of a call. Raises `TargetError` without a response."""
        with closing(HttpConnection(self._address, timeout=self._timeout)) as connection:
            answer = connection.exchange(method, path)
        try:
            return answer.status, json.loads(answer.body)
        except ValueError:
            return answer.status, answer.body[:200].decode(errors="replace")

    def _ask(self, method: str, path: str) -> Any:  # noqa: ANN401
        """Return the JSON of a call; None if there is nothing to read or delete. Raises `TargetError` for errors."""
        status, answer = self.call(method, path)
        if status == 404 and method in ("GET", "DELETE"):
            return None
        if status >= 400:
            raise TargetError(f"torchserve: {method} {path} answered {status}: {answer}")
        return answer
