"""The two commands: `tandem-server` and `tandem-tf-serving`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving.server import flags
from serving.server.assembly import data_plane, log_to_stderr, metrics_route, serve
from serving.server.backends.base import BACKENDS, loader
from serving.server.repository.loading import load_version
from serving.server.repository.policies import models_below


def tandem_server(arguments: Sequence[str] | None = None) -> None:
    """Serve a model repository by the Open Inference Protocol, until SIGTERM."""
    options = flags.parser().parse_args(arguments)
    log_to_stderr("tandem-server")
    from serving.server.oip import rest, rpc

    root: Path = options.model_repository
    with _installed("tandem-server"):
        load, file = loader(options.backend), BACKENDS[options.backend]
    plane = data_plane(
        options.backend,
        lambda: models_below(root),
        lambda directory: load_version(directory, load, options.threads),
        options,
        layout=f"<model>/<version>/{file} below the model repository, such as fashion/1/{file}",
    )
    serve(
        "tandem-server",
        plane,
        [*rest.routes(plane, options.repository_control), metrics_route(plane.metrics, "/metrics")],
        rpc.services(plane, options.repository_control),
        options,
    )


def tandem_tf_serving(arguments: Sequence[str] | None = None) -> None:
    """Serve SavedModels as `tensorflow_model_server` does, with its flags, until SIGTERM."""
    with _installed("tandem-tf-serving"):
        # Its packages are only in images for SavedModels.
        from serving.server.tfs import command

        command.main(arguments)


@contextmanager
def _installed(command: str) -> Iterator[None]:
    """Exit with one line if a runtime's package is missing, as in the extra `server`."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"{command}: the package {error.name} is not installed here")
