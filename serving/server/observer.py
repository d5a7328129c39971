"""Who hears of each request: the access log and the exporter of traces, where they are asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

from serving.server import exchange, trace_context
from serving.server.access_log import AccessLog
from serving.server.exchange import Exchange
from serving.server.telemetry import Spans


@dataclass(frozen=True)
class Observer:
    """Without a log, spans or new traces it costs a request no more than the look for a `traceparent`."""

    log: AccessLog | None = None
    spans: Spans | None = None
    new_traces: bool = False
    """Whether a request that belongs to no trace begins one."""

    @cached_property
    def curious(self) -> bool:
        """Whether to hear of requests that belong to no trace."""
        return self.log is not None or self.spans is not None or self.new_traces

    def begin(
        self, method: str, path: str, client: str, parent: str | None, state: str = ""
    ) -> Exchange | None:
        """Note that a request has come; None where nobody wants to hear of it."""
        if parent is None and not self.curious:
            return None
        trace = trace_context.parse(parent, state)
        if trace is None and self.new_traces and self.spans is None:  # Spans begin traces of their own.
            trace = trace_context.new()
        seen = Exchange(method, path, client, trace)
        exchange.current.set(seen)
        return seen

    def end(self, seen: Exchange) -> list[tuple[str, str]]:
        """Tell of an answered request; the headers that return its trace to the client."""
        seen.seconds = time.perf_counter() - seen.begun
        if self.spans is not None:
            seen.trace = self.spans.export(seen)
        if self.log is not None:
            self.log.write(seen)
        return [] if seen.trace is None else seen.trace.headers()

    def close(self) -> None:
        """Write and send what is still held."""
        if self.log is not None:
            self.log.close()
        if self.spans is not None:
            self.spans.close()
