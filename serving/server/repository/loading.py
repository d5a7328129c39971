"""Load a version's folder: verified, loaded, warmed up, checked by its golden sample."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving import golden, repository
from serving.golden import GoldenError
from serving.server.backends import null
from serving.server.backends.base import Loader, Servable
from serving.server.errors import ArtifactError, ServerError
from serving.server.repository.policies import stamp_of
from serving.server.tensors.signature import default_key, example

log = logging.getLogger("tandem.server")


@dataclass(frozen=True)
class Loaded:
    """A warm servable and its manifest, if any."""

    servable: Servable
    manifest: repository.Manifest | None = None


def load_version(
    directory: Path,
    loader: Loader,
    threads: int,
    zeros: bool = True,
    replay: Callable[[Path, Servable], None] | None = None,
) -> Loaded:
    """Load a version, warm it up, and check it against its manifest and golden sample.

    `zeros`: run each signature with zeros; a failure is logged. Versions with a manifest always are, as Tandem's
    models have no state. `replay` runs the folder's own requests. Raises `ArtifactError` with the reason.
    """
    before = stamp_of(directory)
    try:
        if not directory.is_dir():
            raise ArtifactError(f"{directory} does not exist")
        manifest = repository.verify(directory) if (directory / repository.MANIFEST).exists() else None
        load = null.load if manifest and manifest.serve == repository.MANIFEST else loader
        servable = load(directory, manifest.serve if manifest else "", threads)
    except Exception as error:  # Any error of a runtime or a file refuses the version; the server goes on.
        raise ArtifactError(_told(error, f"{directory} cannot be loaded")) from error
    try:
        if stamp_of(directory) != before:
            raise ArtifactError(f"{directory} was changed while it was read: rename it into its place")
        if zeros or manifest:
            _warm_up(directory, servable)
        if replay is not None:
            replay(directory, servable)
        if manifest and repository.GOLDEN in manifest.files:
            _check_golden(directory, servable)
    except Exception as error:
        servable.close()
        raise ArtifactError(_told(error, f"{directory} is refused")) from error
    return Loaded(servable, manifest)


def _told(error: Exception, what: str) -> str:
    if isinstance(error, ArtifactError | repository.RepositoryError):
        return str(error)  # They name the file.
    known = isinstance(error, ServerError | GoldenError)
    return f"{what}: {error}" if known else f"{what}: {type(error).__name__}: {error}"


def _check_golden(directory: Path, servable: Servable) -> None:
    sample = golden.read(directory)
    if sample is not None:
        key = default_key(servable.signatures)
        sample.check(servable.run(key, dict(sample.inputs), list(sample.outputs)))


def _warm_up(directory: Path, servable: Servable) -> None:
    for key, signature in servable.signatures.items():
        inputs = example(signature)
        if inputs is None:
            continue
        try:
            servable.run(key, inputs, signature.output_names)
        except Exception as error:  # noqa: BLE001 - the model may still accept other inputs
            log.warning("%s, signature %s: zeros do not warm it up: %s", directory, key, error)
