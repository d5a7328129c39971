"""`tandem-tf-serving`, put together by its flags: SavedModels, REST, gRPC, metrics."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from serving.server.assembly import data_plane, log_to_stderr, metrics_route, serve
from serving.server.backends.base import Servable
from serving.server.flags import listening
from serving.server.repository.loading import Loaded, load_version
from serving.server.tfs import flags
from serving.server.tfs.configs_pb2 import SSLConfig
from serving.server.tfs.metrics import TfsMetrics
from serving.server.tfs.model_config import ConfigSource
from serving.server.tfs.text_configs import ConfigError, read

COMMAND = "tandem-tf-serving"
TFLITE_FILE = "model.tflite"
"""What --prefer_tflite_model looks for, in the version's folder."""

log = logging.getLogger("tandem.server")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as the flags say, until SIGTERM."""
    options = flags.parser().parse_args(arguments)
    log_to_stderr(COMMAND)
    log.info("Tandem's server with TensorFlow Serving's protocols; it is not tensorflow_model_server")
    flags.warn_of_unimplemented(options)
    try:
        _serve(options)
    except ConfigError as error:
        sys.exit(f"{COMMAND}: {error}")


def _serve(options: argparse.Namespace) -> None:
    if not (options.port or options.rest_api_port or options.grpc_socket_path):
        raise ConfigError("expected --port, --rest_api_port or --grpc_socket_path, got nothing to listen on")
    source = _config_source(options)
    limits = flags.batch_limits(options)
    page = flags.monitoring_path(options)
    rest_port, grpc_port = options.rest_api_port or None, options.port or None
    where = replace(
        listening(options, rest_port, grpc_port, flags.poll_seconds(options)),
        grpc_socket=options.grpc_socket_path,
        grpc_tls=_tls(options.ssl_config_file),
    )
    rpc_options = flags.channel_arguments(options)
    load = _saved_model_loader(options)
    # TensorFlow takes seconds to import, and no request has begun yet: a stop need not wait for it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from serving.server.backends import tensorflow  # noqa: F401 - not under way when the first model loads
    from serving.server.tfs import rest, rpc

    plane = data_plane("tensorflow", source.find, load, options, limits, flags.retries(options))
    source.available = plane.models.available
    routes = rest.routes(plane, options.enable_signature_method_name_check)
    if page is not None:
        routes.insert(0, metrics_route(plane.metrics, re.escape(page)))
    serve(
        COMMAND,
        plane,
        routes,
        rpc.services(
            plane,
            source,
            max_tensor_bytes=options.max_body_bytes,
            check_methods=options.enable_signature_method_name_check,
            as_content=options.enable_serialization_as_tensor_content,
        ),
        where,
        options,
        observe=TfsMetrics(plane.metrics.registry).request,
        timeout_seconds=flags.rest_seconds(options),
        cors=options.rest_api_enable_cors_support,
        rpc_options=rpc_options,
    )


def _config_source(options: argparse.Namespace) -> ConfigSource:
    once = not options.file_system_poll_wait_seconds
    if options.model_config_file is not None:
        return ConfigSource(
            options.model_config_file,
            options.model_config_file_poll_wait_seconds,
            unused_labels=options.allow_version_labels_for_unavailable_models,
            any_label=options.force_allow_any_version_labels_for_unavailable_models,
            once=once,
        )
    if options.model_base_path is None:
        raise ConfigError("expected --model_base_path or --model_config_file, got neither")
    return ConfigSource.of_one(options.model_name, options.model_base_path, once=once)


def _saved_model_loader(options: argparse.Namespace) -> Callable[[Path], Loaded]:
    intra, inter = flags.threads(options)
    times = max(options.num_request_iterations_for_warmup, 1)

    def open_version(directory: Path, file: str, threads: int) -> Servable:
        # Each is imported where it is wanted only: not every image has both libraries.
        if options.prefer_tflite_model and (directory / TFLITE_FILE).is_file():
            from serving.server.backends import litert

            return litert.load(directory, file, threads)
        from serving.server.backends import tensorflow

        return tensorflow.load(directory, file, threads, inter, options.saved_model_tags.split(","))

    def replay(directory: Path, servable: Servable) -> None:
        from serving.server.tfs import warm_up

        warm_up.replay(directory, servable, times, options.max_body_bytes)

    warm_up = replay if options.enable_model_warmup else None
    return lambda directory: load_version(directory, open_version, intra, zeros=False, replay=warm_up)


def _tls(file: Path | None) -> grpc.ServerCredentials | None:
    if file is None:
        return None
    config = read("ssl_config_file", file, SSLConfig)
    pair = (config.server_key.encode(), config.server_cert.encode())
    if not all(text.lstrip().startswith(b"-----BEGIN ") for text in pair):
        raise ConfigError(f"--ssl_config_file={file}: expected server_key and server_cert in PEM, got others")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(f"--ssl_config_file={file}: client_verify needs custom_ca, got none")
    return grpc.ssl_server_credentials([pair], config.custom_ca.encode() or None, config.client_verify)
