"""The record of a request: filled in by the layers, read by the metrics and the access log at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """One request. Times are in seconds, sizes in bytes."""

    method: str
    """HTTP's method, or "gRPC"."""
    path: str
    """The URL's path as it was sent, or the gRPC method's."""
    client: str
    protocol: str = ""
    """Set for requests to a model: "oip-rest", "oip-grpc", "tfs-rest" or "tfs-grpc"."""
    operation: str = ""
    """The request's name in TensorFlow Serving's metrics: "predict", "Classify", ..."""
    model: str = ""
    """Name of a served model, never another string of the client."""
    version: str = ""
    code: str = "OK"
    """A gRPC status code's name."""
    status: int = 0
    """HTTP's status; 0 for gRPC."""
    rows: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    begun: float = field(default_factory=time.perf_counter)


Observe = Callable[[RequestRecord], None]
"""Called once with each finished request, in the event loop."""


def observers(*observes: Observe) -> Observe:
    """Return an observer that sets a request's duration and calls all `observes`."""

    def finish(record: RequestRecord) -> None:
        record.seconds = time.perf_counter() - record.begun
        for observe in observes:
            observe(record)

    return finish
