"""What both commands are put together from, by the flags that they share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.server import cores
from serving.server.access_log import AccessLog
from serving.server.dataplane import DataPlane
from serving.server.http import Request, Response, Route
from serving.server.http.bodies import HELD
from serving.server.http.connection import Patience
from serving.server.limits import Limits
from serving.server.loading import Loaded
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.observer import Observer
from serving.server.policies import ModelConfig
from serving.server.run_threads import RunThreads
from serving.server.telemetry import Spans, TelemetryError


def data_plane(
    platform: str,
    find: Callable[[], dict[str, ModelConfig]],
    load: Callable[[Path], Loaded],
    limits: Limits,
    options: argparse.Namespace,
) -> DataPlane:
    """The floor below the protocols, over the models that `find` names. Exits where a log cannot be had."""
    pool = RunThreads(cores.available())
    metrics = Metrics()
    # Pictures have threads of their own, so that many of them cannot hold up the runs.
    decoders = ThreadPoolExecutor(cores.available(), thread_name_prefix="picture")
    return DataPlane(
        Models(find, load, pool, metrics, limits),
        metrics,
        decoders,
        platform,
        options.max_rows,
        _observer(options, metrics),
        HELD * options.max_body_bytes,
    )


def metrics_route(metrics: Metrics, path: str, more: Callable[[], str] = str) -> Route:
    """The page that Prometheus reads, with what else there is to say."""

    async def page(request: Request) -> Response:  # noqa: ARG001 - every handler takes it
        return Response(metrics.page() + more().encode(), metrics.content_type)

    return Route("GET", path, page)


def patience(options: argparse.Namespace) -> Patience:
    """How many connections there may be, and how long they may take."""
    return Patience(
        options.max_connections,
        options.head_timeout_seconds,
        options.idle_timeout_seconds,
        HELD * options.max_body_bytes,
    )


def _observer(options: argparse.Namespace, metrics: Metrics) -> Observer:
    access = spans = None
    try:
        if options.access_log != "off":
            access = AccessLog(options.access_log, options.access_log_sample, metrics.dropped)
        if options.otlp_endpoint:
            spans = Spans(options.otlp_endpoint, "tandem-server")
    except (OSError, TelemetryError) as error:
        sys.exit(str(error))
    return Observer(access, spans, options.new_traces)
