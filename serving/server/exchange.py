"""One request: when its answer is due, and how logs and traces tell of it, filled in by every floor that it passes."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from serving.server.trace_context import TraceContext


@dataclass(slots=True)
class Exchange:
    """Facts about one request. Sizes are in bytes, times in seconds."""

    method: str
    """HTTP's, or "gRPC"."""
    path: str
    """The URL's, decoded, or the gRPC method."""
    client: str
    trace: TraceContext | None = None
    protocol: str = ""
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
    """From the head of the request read to the response made."""
    started: int = field(default_factory=time.time_ns)
    """Nanoseconds since 1970."""
    begun: float = field(default_factory=time.perf_counter)


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
"""The exchange of the running task, where somebody wants to hear of it."""

deadline: ContextVar[tuple[float, str] | None] = ContextVar("deadline", default=None)
"""When an answer to the running task's request comes too late, by `time.monotonic`, and what is then said."""
