"""The two commands: `tandem-server` and `tandem-tf-serving`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.server import cores, flags, tfs_flags, workers
from serving.server.access_log import AccessLog
from serving.server.backends.base import loader
from serving.server.connections import Patience
from serving.server.dataplane import DataPlane
from serving.server.http import App, Request, Response, Route
from serving.server.loading import Loaded, load_version
from serving.server.metrics import Metrics
from serving.server.model_config import ConfigError, ConfigSource, monitoring_path
from serving.server.models import Models
from serving.server.observer import Observer
from serving.server.policies import ModelConfig, models_below
from serving.server.protocols import oip_rest, tfs_rest
from serving.server.protocols.grpc_service import Service
from serving.server.run_threads import RunThreads
from serving.server.running import Listening, StartError, bind, free_grpc_port, run
from serving.server.telemetry import Spans, TelemetryError
from serving.server.versions import Limits


def tandem_server(arguments: Sequence[str] | None = None) -> None:
    """Serve a model repository by the Open Inference Protocol, until SIGTERM."""
    options = flags.parser().parse_args(arguments)
    _log_to_stderr("tandem-server")
    inherited = workers.inherited()
    if options.workers > 1 and inherited is None:
        _run_or_exit("tandem-server", lambda: sys.exit(_supervise(options)))
    root: Path = options.model_repository
    plane = _data_plane(options.backend, lambda: models_below(root), options.threads, options)
    app = App(
        [*oip_rest.routes(plane), metrics_route(plane.metrics, "/metrics")],
        options.max_body_bytes,
        options.request_timeout_seconds,
        observer=plane.observer,
    )
    _run_or_exit(
        "tandem-server",
        lambda: run(
            plane,
            app,
            lambda: _oip_services(plane),
            Listening(
                options.host,
                options.http_port,
                options.grpc_port,
                options.max_body_bytes,
                options.poll_seconds,
                options.grace_seconds,
                _patience(options),
                inherited,
            ),
        ),
    )


def tandem_tf_serving(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as `tensorflow_model_server` does, with its flags, until SIGTERM."""
    options = tfs_flags.parser().parse_args(arguments)
    _log_to_stderr("tandem-tf-serving")
    logging.getLogger("tandem.server").info(
        "Tandem's embedded server, speaking TensorFlow Serving's protocol; "
        "it is not the original tensorflow_model_server"
    )
    tfs_flags.warn_of_unimplemented(options)

    def serve() -> None:
        source = ConfigSource.from_flags(options)
        plane = _data_plane("tensorflow", source.find, options.tensorflow_intra_op_parallelism, options)
        app = App(
            [
                *tfs_rest.routes(plane),
                metrics_route(plane.metrics, monitoring_path(options.monitoring_config_file)),
            ],
            options.max_body_bytes,
            options.rest_api_timeout_in_ms / 1000,
            observer=plane.observer,
        )
        listening = Listening(
            options.host,
            options.rest_api_port or None,
            options.port or None,
            options.max_body_bytes,
            tfs_flags.poll_seconds(options),
            options.grace_seconds,
            _patience(options),
        )
        run(plane, app, lambda: _tfs_services(plane, source), listening)

    try:
        _run_or_exit("tandem-tf-serving", serve)
    except ConfigError as error:
        sys.exit(f"tandem-tf-serving: {error}")


def metrics_route(metrics: Metrics, path: str) -> Route:
    """The page that Prometheus reads."""

    async def page(request: Request) -> Response:  # noqa: ARG001 - every handler takes it
        return Response(metrics.page(), metrics.content_type)

    return Route("GET", path, page)


def _data_plane(
    backend: str, find: Callable[[], dict[str, ModelConfig]], threads: int, options: argparse.Namespace
) -> DataPlane:
    pool = RunThreads(cores.available())
    metrics = Metrics()

    def load(directory: Path) -> Loaded:
        return load_version(directory, loader(backend), threads)

    limits = Limits(options.max_batch_rows, options.max_queue)
    # Pictures have threads of their own, so that many of them cannot hold up the runs.
    decoders = ThreadPoolExecutor(cores.available(), thread_name_prefix="picture")
    return DataPlane(
        Models(find, load, pool, metrics, limits),
        metrics,
        decoders,
        backend,
        options.max_rows,
        _observer(options, metrics),
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


def _patience(options: argparse.Namespace) -> Patience:
    return Patience(options.max_connections, options.head_timeout_seconds, options.idle_timeout_seconds)


def _supervise(options: argparse.Namespace) -> int:
    http = bind(options.host, options.http_port)
    grpc_port = free_grpc_port(options.host, options.grpc_port)
    ports = (f"--http-port={http.getsockname()[1]}", f"--grpc-port={grpc_port}")
    return workers.supervise(options.workers, http, ports, options.grace_seconds)


def _oip_services(plane: DataPlane) -> list[Service]:
    from serving.server.protocols import oip_grpc

    return oip_grpc.services(plane)


def _tfs_services(plane: DataPlane, source: ConfigSource) -> list[Service]:
    from serving.server.protocols import tfs_grpc

    return tfs_grpc.services(plane, source)


def _run_or_exit(command: str, serve: Callable[[], None]) -> None:
    try:
        serve()
    except StartError as error:
        sys.exit(f"{command}: {error}")


def _log_to_stderr(command: str) -> None:
    # Else TensorFlow, where it is used, greets every start with pages of advice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
