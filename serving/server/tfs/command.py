"""TensorFlow Serving's server, put together by its flags: SavedModels, REST, gRPC, metrics."""

from __future__ import annotations

import argparse
import os
import re
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from serving.server import tfs_flags
from serving.server.assembly import data_plane, metrics_route, patience
from serving.server.backends.base import Servable
from serving.server.dataplane import DataPlane
from serving.server.grpc.service import Service
from serving.server.http import App
from serving.server.protocols import tfs_rest
from serving.server.repository.loading import Loaded, load_version
from serving.server.running import Listening, run
from serving.server.tfs.metrics import TfsMetrics
from serving.server.tfs.model_config import ConfigSource, LabelRules
from serving.server.tfs.text_configs import ConfigError, read

TFLITE_FILE = "model.tflite"
"""What --prefer_tflite_model looks for, in the version's folder."""


def serve(options: argparse.Namespace) -> None:
    """Serve SavedModels as the flags say, until SIGTERM. Raises `ConfigError` or `StartError`."""
    if not (options.port or options.rest_api_port or options.grpc_socket_path):
        raise ConfigError("expected --port, --rest_api_port or --grpc_socket_path, got nothing to listen on")
    source = _config_source(options)
    plane = data_plane(
        "tensorflow", source.find, _saved_model_loader(options), tfs_flags.limits(options), options
    )
    source.available = plane.models.available
    metrics = TfsMetrics()
    routes = tfs_rest.routes(
        plane,
        metrics,
        check_methods=options.enable_signature_method_name_check,
        batching=options.enable_batching,
        cors=options.rest_api_enable_cors_support,
    )
    page = tfs_flags.monitoring_path(options)
    app = App(
        [*([metrics_route(plane.metrics, re.escape(page), metrics.page)] if page else []), *routes],
        options.max_body_bytes,
        tfs_flags.rest_seconds(options),
        cors=options.rest_api_enable_cors_support,
        observer=plane.observer,
    )
    listening = Listening(
        options.host,
        options.rest_api_port or None,
        options.port or None,
        options.max_body_bytes,
        tfs_flags.poll_seconds(options),
        options.grace_seconds,
        patience(options),
        grpc_socket=options.grpc_socket_path,
        grpc_options=tfs_flags.channel_arguments(options),
        grpc_tls=_tls(options.ssl_config_file),
    )
    run(plane, app, lambda: _tfs_services(plane, source, metrics, options), listening)


def _config_source(options: argparse.Namespace) -> ConfigSource:
    once = not options.file_system_poll_wait_seconds
    if options.model_config_file is not None:
        rules = LabelRules(
            options.allow_version_labels_for_unavailable_models,
            options.force_allow_any_version_labels_for_unavailable_models,
        )
        poll_seconds = options.model_config_file_poll_wait_seconds
        return ConfigSource.from_file(options.model_config_file, poll_seconds, rules, once=once)
    if options.model_base_path is None:
        raise ConfigError("expected --model_base_path or --model_config_file, got neither")
    return ConfigSource.of_one(options.model_name, options.model_base_path, once=once)


def _saved_model_loader(options: argparse.Namespace) -> Callable[[Path], Loaded]:
    intra, inter = tfs_flags.threads(options)
    times = max(options.num_request_iterations_for_warmup, 1)

    def open_version(directory: Path, file: str, threads: int) -> Servable:
        # Each is imported where it is wanted only: not every image has both libraries.
        if options.prefer_tflite_model and (directory / TFLITE_FILE).is_file():
            from serving.server.backends import litert

            return litert.load(directory, file, threads)
        from serving.server.backends import tensorflow

        return tensorflow.load(directory, file, threads, inter, options.saved_model_tags.split(","))

    def replay(directory: Path, servable: Servable) -> None:
        from serving.server.protocols import tfs_warm_up

        tfs_warm_up.replay(directory, servable, times, options.max_body_bytes)

    warm_up = replay if options.enable_model_warmup else None
    return lambda directory: load_version(directory, open_version, intra, zeros=False, replay=warm_up)


def _tls(file: Path | None) -> ssl.SSLContext | None:
    if file is None:
        return None
    config = read("ssl_config_file", file, "SSLConfig")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2"])
    try:
        with TemporaryDirectory() as folder:  # Python reads keys from files only.
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_text(config.server_cert)
            key.write_text(config.server_key)
            context.load_cert_chain(certificate, key)
        if config.custom_ca:
            context.load_verify_locations(cadata=config.custom_ca)
    except ssl.SSLError as error:
        raise ConfigError(
            f"--ssl_config_file={file}: expected a key and certificates in PEM: {error}"
        ) from None
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


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
        options.enable_batching,
    )
    return tfs_grpc.services(plane, source, metrics, choices)
