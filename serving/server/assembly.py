"""The assembly of a server, shared by both commands."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn

import grpc
import uvloop

from serving.server import lifecycle
from serving.server.access_log import AccessLog
from serving.server.app import App
from serving.server.dataplane import DataPlane
from serving.server.http import Request, Response, Route
from serving.server.metrics import Metrics, Observe, RequestRecord
from serving.server.repository.models import Models
from serving.server.repository.policies import ModelConfig
from serving.server.repository.versions import LoadVersion, Serving
from serving.server.rpc import RpcServer, Service
from serving.server.scheduling import QueueLimits

COLLECT_AFTER = (50_000, 50, 100)
"""Thresholds of the garbage collector.

JSON creates hundreds of lists for a request. With Python's thresholds (700, 10, 10), collections that traverse
TensorFlow's objects delayed all requests by 100 ms and more: at 280 requests a second p99 was 185 ms, and is 21."""


def data_plane(
    platform: str,
    find: Callable[[], dict[str, ModelConfig]],
    load: LoadVersion,
    options: argparse.Namespace,
    layout: str = "",
) -> DataPlane:
    """Return a data plane for the models of `find`; `layout` is their expected layout, for messages."""
    metrics = Metrics()
    limits = QueueLimits(options.max_batch_rows, queue=options.max_queue)
    retries = (options.retries, options.retry_seconds)
    models = Models(find, Serving(load, metrics, limits, *retries, options.batching), layout)
    metrics.show(models.loads)
    # Decoding pictures takes long and must not delay runs.
    decoders = ThreadPoolExecutor(2, thread_name_prefix="picture")
    return DataPlane(models, metrics, decoders, platform, options.max_rows)


def serve(
    command: str,
    plane: DataPlane,
    routes: Sequence[Route],
    services: Sequence[Service],
    options: argparse.Namespace,
    *observes: Observe,
) -> NoReturn:
    """Serve routes and services by the flags, and end the process: with 0 after a stop, 1 if it cannot start."""
    gc.set_threshold(*COLLECT_AFTER)
    with ExitStack() as stack:
        try:
            every = [plane.metrics.request, *observes]
            if options.access_log != "off":
                dropped = plane.metrics.dropped_log_lines
                access = AccessLog(options.access_log, options.access_log_sample, dropped.inc)
                stack.callback(access.close)
                every.append(access.write)

            def observe(record: RequestRecord) -> None:
                record.seconds = time.perf_counter() - record.begun
                for one in every:
                    one(record)

            app: Any = App(routes, observe, options, lambda: plane.stopping)
            interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = ()
            if options.otlp_endpoint:
                app, interceptors, close = _traced(app, options.otlp_endpoint, command)
                stack.callback(close)
            make_rpc = partial(RpcServer, services, observe, options, interceptors)
            # Not closed: that would wait for threads that still load or run a model.
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            runner.run(lifecycle.serve(plane, app, make_rpc, options))
        except OSError as error:
            sys.exit(f"{command}: {error}")
    logging.shutdown()
    os._exit(0)


def _traced(
    app: App, endpoint: str, service: str
) -> tuple[Any, Sequence[grpc.aio.ServerInterceptor[Any, Any]], Callable[[], None]]:
    """Return the application and interceptors with OpenTelemetry's tracing, and a function that sends the last spans.

    `endpoint` is a collector, such as http://127.0.0.1:4318; OTEL_* variables apply. Exits if the extra is not
    installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.grpc import aio_server_interceptor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        sys.exit(f"{service}: --otlp-endpoint needs the extra otel: pip install '.[otel]' ({error})")
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    # A stop waits for the last spans.
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=2.0)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # One span for each request: those of ASGI messages add nothing.
    traced = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    interceptor = aio_server_interceptor(tracer_provider=provider)  # type: ignore[no-untyped-call]
    return traced, [interceptor], provider.shutdown


def metrics_route(metrics: Metrics, path: str) -> Route:
    async def page(_request: Request) -> Response:
        return Response(metrics.page(), metrics.content_type)

    return Route("GET", path, page)


def log_to_stderr(command: str) -> None:
    # Else TensorFlow logs pages of advice at each start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
    # Else clients could fill the log: it warns of each request that is not HTTP.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def end_at_signals() -> None:
    """End the process at a signal: until it serves, nothing has begun, and importing a runtime takes seconds."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
