"""One request as logs and traces tell of it, filled in by every floor that it passes."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Exchange:
    """Facts about one request. Sizes are in bytes, times in seconds."""

    method: str
    """GET, POST, ... or a gRPC method's full name."""
    path: str
    client: str
    trace_id: str = ""
    parent_id: str = ""
    """The caller's span."""
    sampled: bool = False
    """Whether the caller records its spans."""
    trace_state: str = ""
    started: int = field(default_factory=time.time_ns)
    """Nanoseconds since 1970."""
    begun: float = field(default_factory=time.perf_counter)
    protocol: str = "http"
    model: str = ""
    version: str = ""
    code: str = "OK"
    """By the names of gRPC's status codes."""
    status: int = 0
    """HTTP's; 0 for gRPC."""
    rows: int = 0
    queue: float = 0.0
    compute: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    seconds: float = 0.0
    """From the request read to the response made."""


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
"""The exchange of the running task, where somebody wants to hear of it."""
