"""The two commands: `tandem-server` and `tandem-tf-serving`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpc import ServerCredentials, ssl_server_credentials

from serving.server import flags, tfs_flags
from serving.server.backends.base import Servable, loader
from serving.server.dataplane import DataPlane
from serving.server.http import App, Request, Response, Route
from serving.server.loading import Loaded, load_version
from serving.server.metrics import Metrics
from serving.server.model_config import ConfigSource, LabelRules
from serving.server.models import Models
from serving.server.policies import ModelConfig, models_below
from serving.server.protocols import oip_rest, tfs_rest
from serving.server.protocols.grpc_service import Service
from serving.server.protocols.tfs_metrics import TfsMetrics
from serving.server.running import Listening, StartError, run
from serving.server.text_configs import ConfigError, read
from serving.server.versions import Limits


def tandem_server(arguments: Sequence[str] | None = None) -> None:
    """Serve a model repository by the Open Inference Protocol, until SIGTERM."""
    options = flags.parser().parse_args(arguments)
    _log_to_stderr("tandem-server")
    root: Path = options.model_repository
    plane = _data_plane(
        options.backend,
        lambda: models_below(root),
        lambda directory: load_version(directory, loader(options.backend), options.threads),
        options.max_rows,
        Limits(options.max_batch_rows, options.max_queue),
    )
    app = App(
        [*oip_rest.routes(plane), metrics_route(plane.metrics, "/metrics")],
        options.max_body_bytes,
        options.request_timeout_seconds,
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
    try:
        _run_or_exit("tandem-tf-serving", lambda: _serve_saved_models(options))
    except ConfigError as error:
        sys.exit(f"tandem-tf-serving: Failed to start server. Error: {error}")


def _serve_saved_models(options: argparse.Namespace) -> None:
    source = _config_source(options)
    plane = _data_plane(
        "tensorflow", source.find, _saved_model_loader(options), options.max_rows, tfs_flags.limits(options)
    )
    source.available = plane.models.available
    metrics = TfsMetrics()
    app = App(
        [
            metrics_route(plane.metrics, tfs_flags.monitoring_path(options), metrics.page),
            *tfs_rest.routes(plane, metrics, options.enable_signature_method_name_check),
        ],
        options.max_body_bytes,
        options.rest_api_timeout_in_ms / 1000,
    )
    listening = Listening(
        options.host,
        options.rest_api_port or None,
        options.port or None,
        options.max_body_bytes,
        tfs_flags.poll_seconds(options),
        options.grace_seconds,
        grpc_socket=options.grpc_socket_path,
        grpc_options=tfs_flags.channel_arguments(options),
        grpc_credentials=_credentials(options.ssl_config_file),
    )
    run(plane, app, lambda: _tfs_services(plane, source, metrics, options), listening)


def _config_source(options: argparse.Namespace) -> ConfigSource:
    if options.model_config_file is not None:
        rules = LabelRules(
            options.allow_version_labels_for_unavailable_models,
            options.force_allow_any_version_labels_for_unavailable_models,
        )
        poll_seconds = options.model_config_file_poll_wait_seconds
        return ConfigSource.from_file(options.model_config_file, poll_seconds, rules)
    if options.model_base_path is None:
        raise ConfigError("expected --model_base_path or --model_config_file, got neither")
    return ConfigSource.of_one(options.model_name, options.model_base_path)


def _saved_model_loader(options: argparse.Namespace) -> Callable[[Path], Loaded]:
    intra, inter = tfs_flags.threads(options)
    times = max(options.num_request_iterations_for_warmup, 1)

    def open_version(directory: Path, file: str, threads: int) -> Servable:
        from serving.server.backends import litert, tensorflow

        if options.prefer_tflite_model and (directory / litert.FILE).is_file():
            return litert.load(directory, file, threads)
        return tensorflow.load(directory, file, threads, inter, options.saved_model_tags.split(","))

    def replay(directory: Path, servable: Servable) -> None:
        from serving.server.protocols import tfs_warm_up

        tfs_warm_up.replay(directory, servable, times, options.max_body_bytes)

    warm_up = replay if options.enable_model_warmup else None
    return lambda directory: load_version(directory, open_version, intra, zeros=False, replay=warm_up)


def _credentials(file: Path | None) -> ServerCredentials | None:
    if file is None:
        return None
    config = read("ssl_config_file", file, "SSLConfig")
    pair = (config.server_key.encode(), config.server_cert.encode())
    return ssl_server_credentials([pair], config.custom_ca.encode() or None, config.client_verify)


def metrics_route(metrics: Metrics, path: str, more: Callable[[], str] = str) -> Route:
    """The page that Prometheus reads, with what else there is to say."""

    async def page(request: Request) -> Response:  # noqa: ARG001 - every handler takes it
        return Response(metrics.page() + more().encode(), metrics.content_type)

    return Route("GET", path, page)


def _data_plane(
    platform: str,
    find: Callable[[], dict[str, ModelConfig]],
    load: Callable[[Path], Loaded],
    max_rows: int,
    limits: Limits,
) -> DataPlane:
    pool = ThreadPoolExecutor(thread_name_prefix="run")
    metrics = Metrics()
    # Pictures have threads of their own, so that many of them cannot hold up the runs.
    decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="picture")
    return DataPlane(Models(find, load, pool, metrics, limits), metrics, decoders, platform, max_rows)


def _oip_services(plane: DataPlane) -> list[Service]:
    from serving.server.protocols import oip_grpc

    return oip_grpc.services(plane)


def _tfs_services(
    plane: DataPlane, source: ConfigSource, metrics: TfsMetrics, options: argparse.Namespace
) -> list[Service]:
    # TensorFlow takes seconds to import, and nothing is in flight yet: SIGTERM need not wait for it.
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from serving.server.backends import tensorflow  # noqa: F401 - not under way when the first model loads
    from serving.server.protocols import tfs_grpc

    signal.signal(signal.SIGTERM, before)
    choices = tfs_grpc.Options(
        options.max_body_bytes,
        options.enable_signature_method_name_check,
        options.enable_serialization_as_tensor_content,
    )
    return tfs_grpc.services(plane, source, metrics, choices)


def _run_or_exit(command: str, serve: Callable[[], None]) -> None:
    try:
        serve()
    except StartError as error:
        sys.exit(f"{command}: {error}")


def _log_to_stderr(command: str) -> None:
    # Else TensorFlow, where it is used, greets every start with pages of advice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
