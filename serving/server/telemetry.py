"""Traces to an OpenTelemetry collector, by OpenTelemetry's own instrumentations. Needs the extra `otel`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from serving.server.app import App
from serving.server.lifecycle import StartError

EXPORT_SECONDS = 2.0
"""For a batch of spans: a stop waits for the last one."""


def trace(
    app: App, endpoint: str, service: str
) -> tuple[Any, Sequence[grpc.aio.ServerInterceptor[Any, Any]], Callable[[], None]]:
    """The ASGI application and what else traces requests, by HTTP and gRPC; and what sends the last spans.

    They go to the collector at `endpoint`, such as http://127.0.0.1:4318; OTEL_* variables apply. Raises `StartError`
    where the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.grpc import aio_server_interceptor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartError(
            f"--otlp-endpoint needs the extra otel of a clone: pip install '.[otel]' ({error})"
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # One span a request: those of single ASGI messages tell nothing more.
    traced = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    interceptor = aio_server_interceptor(tracer_provider=provider)  # type: ignore[no-untyped-call]
    return traced, [interceptor], provider.shutdown
