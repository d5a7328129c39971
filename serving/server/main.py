"""The two commands: `tandem-server` and `tandem-tf-serving`."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from serving.server import flags
from serving.server.assembly import data_plane, end_at_signals, log_to_stderr, metrics_route, serve
from serving.server.backends.base import BACKENDS, loader
from serving.server.metrics import TfsMetrics
from serving.server.repository.loading import Loaded, load_version
from serving.server.repository.policies import models_below

log = logging.getLogger("tandem.server")


def tandem_server(arguments: Sequence[str] | None = None) -> None:
    """Serve a model repository by the Open Inference Protocol, until SIGTERM."""
    command = "tandem-server"
    options = flags.parser().parse_args(arguments)
    log_to_stderr(command)
    end_at_signals()
    from serving.server.oip import rest, rpc

    root: Path = options.model_repository
    with _installed(command):
        load, file = loader(options.backend), BACKENDS[options.backend]
    plane = data_plane(
        options.backend,
        lambda: models_below(root),
        lambda directory: load_version(directory, load, options.threads),
        options,
        layout=f"<model>/<version>/{file} below the model repository, such as fashion/1/{file}",
    )
    routes = rest.routes(plane, options.repository_control)
    routes.append(metrics_route(plane.metrics, "/metrics"))
    serve(command, plane, routes, rpc.services(plane, options.repository_control), options)


def tandem_tf_serving(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as `tensorflow_model_server` does, with its flags, until SIGTERM."""
    command = "tandem-tf-serving"
    log_to_stderr(command)
    with _installed(command):
        # Its packages are only in images for SavedModels.
        from serving.server.tfs.flags import ConfigError, parse
        from serving.server.tfs.model_config import ConfigSource
    try:
        options = parse(arguments)
        source = ConfigSource(options)
    except ConfigError as error:
        sys.exit(f"{command}: {error}")
    end_at_signals()
    log.info("Tandem's server with TensorFlow Serving's protocols; it is not tensorflow_model_server")
    with _installed(command):
        from serving.server.tfs import rest, rpc  # After the flags, as importing TensorFlow takes seconds.

    plane = data_plane("tensorflow", source.find, partial(_load_saved_model, options), options)
    source.available = plane.models.available
    routes = rest.routes(plane)
    if options.metrics_path is not None:
        routes.insert(0, metrics_route(plane.metrics, re.escape(options.metrics_path)))
    services = rpc.services(plane, source, options.max_body_bytes)
    serve(command, plane, routes, services, options, TfsMetrics(plane.metrics.registry).request)


def _load_saved_model(options: argparse.Namespace, directory: Path) -> Loaded:
    """Load a version, with its own requests as the warm-up. Raises `ArtifactError`."""
    # Imported on demand: not every image has both libraries.
    if options.prefer_tflite_model and (directory / BACKENDS["litert"]).is_file():
        load = loader("litert")
    else:
        from serving.server.backends import tensorflow

        load = partial(tensorflow.load, inter_op_threads=options.inter_op)
    from serving.server.tfs import warm_up

    replay = partial(warm_up.replay, max_tensor_bytes=options.max_body_bytes)
    warmed = replay if options.enable_model_warmup else None
    return load_version(directory, load, options.intra_op, zeros=False, replay=warmed)


@contextmanager
def _installed(command: str) -> Iterator[None]:
    """Exit with one line if a runtime's package is missing, as in the extra `server`."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"{command}: the package {error.name} is not installed here")
