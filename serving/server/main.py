"""The two commands: `tandem-server` and `tandem-tf-serving`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.server import flags, workers
from serving.server.assembly import data_plane, metrics_route, patience
from serving.server.backends.base import loader
from serving.server.dataplane import DataPlane
from serving.server.grpc.service import Service
from serving.server.http import App
from serving.server.limits import Limits
from serving.server.loading import load_version
from serving.server.policies import models_below
from serving.server.protocols import oip_rest
from serving.server.running import Listening, StartError, bind, run


def tandem_server(arguments: Sequence[str] | None = None) -> None:
    """Serve a model repository by the Open Inference Protocol, until SIGTERM."""
    options = flags.parser().parse_args(arguments)
    _log_to_stderr("tandem-server")
    inherited = workers.inherited()
    if options.workers > 1 and inherited is None:
        _run_or_exit("tandem-server", lambda: sys.exit(_supervise(options)))
    root: Path = options.model_repository
    plane = data_plane(
        options.backend,
        lambda: models_below(root),
        lambda directory: load_version(directory, loader(options.backend), options.threads),
        Limits(options.max_batch_rows, options.max_queue),
        options,
    )
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
                patience(options),
                inherited,
            ),
        ),
    )


def tandem_tf_serving(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as `tensorflow_model_server` does, with its flags, until SIGTERM."""
    from serving.server import tfs_flags, tfs_serving
    from serving.server.text_configs import ConfigError

    options = tfs_flags.parser().parse_args(arguments)
    _log_to_stderr("tandem-tf-serving")
    logging.getLogger("tandem.server").info(
        "Tandem's embedded server, speaking TensorFlow Serving's protocol; "
        "it is not the original tensorflow_model_server"
    )
    tfs_flags.warn_of_unimplemented(options)
    try:
        _run_or_exit("tandem-tf-serving", lambda: tfs_serving.serve(options))
    except ConfigError as error:
        sys.exit(f"tandem-tf-serving: Failed to start server. Error: {error}")


def _supervise(options: argparse.Namespace) -> int:
    http = bind(options.host, options.http_port, "HTTP")
    grpc = bind(options.host, options.grpc_port, "gRPC")
    return workers.supervise(options.workers, http, grpc, options.grace_seconds)


def _oip_services(plane: DataPlane) -> list[Service]:
    from serving.server.protocols import oip_grpc

    return oip_grpc.services(plane)


def _run_or_exit(command: str, serve: Callable[[], None]) -> None:
    try:
        serve()
    except StartError as error:
        sys.exit(f"{command}: {error}")


def _log_to_stderr(command: str) -> None:
    # Else TensorFlow, where it is used, greets every start with pages of advice.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
