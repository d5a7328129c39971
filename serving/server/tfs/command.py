"""The command `tandem-tf-serving`: SavedModels, REST, gRPC, metrics."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.server.assembly import data_plane, log_to_stderr, metrics_route, serve
from serving.server.backends.base import Servable
from serving.server.repository.loading import Loaded, load_version
from serving.server.tfs import flags
from serving.server.tfs.metrics import TfsMetrics
from serving.server.tfs.model_config import ConfigSource

COMMAND = "tandem-tf-serving"
TFLITE_FILE = "model.tflite"
"""The file in a version's folder that --prefer_tflite_model serves."""

log = logging.getLogger("tandem.server")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as the flags say, until SIGTERM."""
    log_to_stderr(COMMAND)
    try:
        options = flags.parse(arguments)
        source = ConfigSource(options)
    except flags.ConfigError as error:
        sys.exit(f"{COMMAND}: {error}")
    # Importing TensorFlow takes seconds; a stop need not wait for it, as no request has begun.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    log.info("Tandem's server with TensorFlow Serving's protocols; it is not tensorflow_model_server")
    from serving.server.backends import tensorflow  # noqa: F401 - imported before the first model loads
    from serving.server.tfs import rest, rpc

    plane = data_plane("tensorflow", source.find, _saved_model_loader(options), options)
    source.available = plane.models.available
    routes = rest.routes(plane, options.enable_signature_method_name_check)
    if options.metrics_path is not None:
        routes.insert(0, metrics_route(plane.metrics, re.escape(options.metrics_path)))
    services = rpc.services(plane, source, options)
    serve(COMMAND, plane, routes, services, options, TfsMetrics(plane.metrics.registry).request)


def _saved_model_loader(options: argparse.Namespace) -> Callable[[Path], Loaded]:
    times = max(options.num_request_iterations_for_warmup, 1)

    def open_version(directory: Path, file: str, threads: int) -> Servable:
        # Imported on demand: not every image has both libraries.
        if options.prefer_tflite_model and (directory / TFLITE_FILE).is_file():
            from serving.server.backends import litert

            return litert.load(directory, file, threads)
        from serving.server.backends import tensorflow

        return tensorflow.load(
            directory, file, threads, options.inter_op, options.saved_model_tags.split(",")
        )

    def replay(directory: Path, servable: Servable) -> None:
        from serving.server.tfs import warm_up

        warm_up.replay(directory, servable, times, options.max_body_bytes)

    warm_up = replay if options.enable_model_warmup else None
    return lambda directory: load_version(
        directory, open_version, options.intra_op, zeros=False, replay=warm_up
    )
