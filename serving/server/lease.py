"""A version held for one request, and the request counted with what became of it."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from serving.server import exchange
from serving.server.errors import DEADLINE_PASSED, ServerError
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.versions import Version

TIMED = frozenset(("OK", "INTERNAL", "DEADLINE_EXCEEDED"))
"""The codes of requests whose duration tells of the server: it refuses in no time, and clients leave when they will."""


class Lease:
    """A context, entered once; a class, for a generator costs every request twice as much."""

    __slots__ = (
        "_found",
        "_label",
        "_metrics",
        "_model",
        "_models",
        "_number",
        "_protocol",
        "_start",
        "_version",
    )

    def __init__(
        self, models: Models, metrics: Metrics, protocol: str, model: str, number: int | None, label: str
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._protocol = protocol
        self._model = model
        self._number = number
        self._label = label
        self._found = ""
        self._version: Version | None = None
        self._start = time.perf_counter()

    def __enter__(self) -> Version:
        """The version. Raises `NotFoundError`, `UnavailableError` or `InvalidRequestError`."""
        try:
            served = self._models.model(self._model)
            self._found = self._model
            version = served.version(self._number, self._label)
        except BaseException as error:
            self._count(error)
            raise
        self._version = version
        return version.__enter__()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        version = self._version
        assert version is not None
        version.__exit__()
        self._count(error)

    def _count(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._start
        version, number = self._version, ""
        code = "OK" if error is None else _code(error)
        if version is not None:
            number = str(version.number)
            version.statistics.request(seconds, error is None)
        self._metrics.request(self._found, number, self._protocol, code, seconds, code in TIMED)
        seen = exchange.current.get()
        if seen is not None:
            seen.protocol, seen.model, seen.version, seen.code = self._protocol, self._found, number, code


def _code(error: BaseException) -> str:
    if isinstance(error, ServerError):
        return error.code.name
    if isinstance(error, asyncio.CancelledError):
        return "DEADLINE_EXCEEDED" if DEADLINE_PASSED in error.args else "CANCELLED"
    return "INTERNAL"
