"""From a version's folder to a servable that has already run once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from serving import repository
from serving.server.backends.base import Loader, Servable
from serving.server.errors import ArtifactError, ServerError
from serving.server.signature import example


@dataclass(frozen=True)
class Loaded:
    """A warm servable, and the seconds that one row took in the last warm-up run (0 where none was made)."""

    servable: Servable
    row_seconds: float


def load_version(directory: Path, loader: Loader, threads: int) -> Loaded:
    """Verify the files where the version has a manifest, load it, and run each signature that takes numbers.

    Raises `ArtifactError` with the reason.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} does not exist")
    try:
        servable = loader(directory, _file_to_serve(directory), threads)
        return Loaded(servable, _warm_up(servable))
    except ArtifactError:
        raise
    except ServerError as error:
        raise ArtifactError(f"{directory} loads but does not run: {error}") from error
    except Exception as error:
        # Whatever a runtime makes of a bad artifact must refuse this version, not end the server.
        raise ArtifactError(f"{directory} cannot be loaded: {type(error).__name__}: {error}") from error


def _file_to_serve(directory: Path) -> str:
    if not (directory / repository.MANIFEST).exists():
        return ""
    try:
        return repository.verify(directory).serve
    except repository.RepositoryError as error:
        raise ArtifactError(str(error)) from error


def _warm_up(servable: Servable) -> float:
    seconds = 0.0
    for key, signature in servable.signatures.items():
        # The first run builds kernels and buffers; the second shows what a request will cost.
        for _ in range(2):
            inputs = example(signature)
            if inputs is None:
                break
            start = time.perf_counter()
            servable.run(key, inputs, [spec.name for spec in signature.outputs])
            seconds = time.perf_counter() - start
    return seconds
