"""Traces to an OpenTelemetry collector, by OTLP over HTTP. Needs the extra `otel`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from serving.server.exchange import Exchange
from serving.server.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


EXPORT_SECONDS = 2.0
"""For a batch of spans, tries again included: SIGTERM waits for the last one."""


class TelemetryError(Exception):
    """Traces cannot be exported; the message is for the operator."""


class Spans:
    """One span for each request. OpenTelemetry's own variables (OTEL_TRACES_SAMPLER, ...) apply."""

    def __init__(self, endpoint: str, service: str) -> None:
        """`endpoint` is the collector's base address, such as http://127.0.0.1:4318. Raises `TelemetryError`."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TelemetryError(
                f"--otlp-endpoint needs opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http: {error}"
            ) from None
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)})
        self._provider: TracerProvider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tandem.server")

    def export(self, seen: Exchange) -> TraceContext:
        """Hand an answered request to the exporter's thread; the context of its span."""
        from opentelemetry import trace
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
        )
        from opentelemetry.trace.span import TraceState

        parent = None
        if seen.trace is not None:
            remote = SpanContext(
                int(seen.trace.trace_id, 16),
                int(seen.trace.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(seen.trace.flags),
                trace_state=TraceState.from_header([seen.trace.state]),
            )
            parent = trace.set_span_in_context(NonRecordingSpan(remote))
        span = self._tracer.start_span(
            f"{seen.protocol or seen.method} {seen.model}".strip(),
            parent,
            SpanKind.SERVER,
            start_time=seen.started,
            attributes=_attributes(seen),
        )
        if seen.code in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            span.set_status(Status(StatusCode.ERROR, seen.code))
        span.end(seen.started + round(seen.seconds * 1e9))
        made = span.get_span_context()
        state = seen.trace.state if seen.trace else ""
        return TraceContext(f"{made.trace_id:032x}", f"{made.span_id:016x}", int(made.trace_flags) & 1, state)

    def close(self) -> None:
        """Send what is still held, within the exporter's timeout."""
        self._provider.shutdown()


def _attributes(seen: Exchange) -> dict[str, str | int | float]:
    """By OpenTelemetry's semantic conventions where they have a name for it."""
    attributes: dict[str, str | int | float] = {
        "client.address": seen.client,
        "tandem.protocol": seen.protocol,
        "tandem.model": seen.model,
        "tandem.version": seen.version,
        "tandem.code": seen.code,
        "tandem.rows": seen.rows,
        "tandem.queue_seconds": seen.queue,
        "tandem.compute_seconds": seen.compute,
    }
    if seen.status:
        attributes["http.request.method"] = seen.method
        attributes["url.path"] = seen.path
        attributes["http.response.status_code"] = seen.status
    else:
        attributes["rpc.system"] = "grpc"
        attributes["rpc.method"] = seen.path
    return attributes
