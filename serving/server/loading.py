"""From a version's folder to a servable that has already run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving import repository
from serving.server.backends.base import Loader, Servable
from serving.server.errors import ArtifactError, InvalidRequestError, ServerError
from serving.server.run_clock import RunClock
from serving.server.signature import example

Replay = Callable[[Path, Servable], None]
"""Run the requests that a version's folder brings along for its warm-up, where there are any. Raises `ServerError`."""


@dataclass(frozen=True)
class Loaded:
    """A warm servable, and the seconds that one row took in the last warm-up run (0 where none was made)."""

    servable: Servable
    row_seconds: float


def load_version(
    directory: Path, loader: Loader, threads: int, zeros: bool = True, replay: Replay | None = None
) -> Loaded:
    """Verify the files where the version has a manifest, load it, and warm it up.

    `zeros` are run through each signature that takes numbers, but through a version with a manifest always:
    that it is ours says that it keeps no state. `replay` then runs what the version brings along.
    Raises `ArtifactError` with the reason.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} does not exist")
    ours = (directory / repository.MANIFEST).exists()
    try:
        servable = loader(directory, _file_to_serve(directory) if ours else "", threads)
    except ArtifactError:
        raise
    except Exception as error:
        # Whatever a runtime makes of a bad artifact must refuse this version, not end the server.
        raise ArtifactError(f"{directory} cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        seconds = _warm_up(servable) if zeros or ours else 0.0
        if replay is not None:
            replay(directory, servable)
        return Loaded(servable, seconds)
    except Exception as error:
        servable.close()
        told = error if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{directory} loads but does not run: {told}") from error


def _file_to_serve(directory: Path) -> str:
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
            clock = RunClock()
            try:
                servable.run(key, inputs, [spec.name for spec in signature.outputs])
            except InvalidRequestError:
                break  # Zeros are not what this signature takes.
            seconds = clock.read()[1]
    return seconds
