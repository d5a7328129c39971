"""From a version's folder to a servable that has already run once."""

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
from serving.server.tensors.signature import DEFAULT_SIGNATURE, example

log = logging.getLogger("tandem.server")

Replay = Callable[[Path, Servable], None]
"""Run the requests that a version's folder brings along for its warm-up, where there are any. Raises `ServerError`."""


@dataclass(frozen=True)
class Loaded:
    """A servable that has run once, and its manifest, if it has one."""

    servable: Servable
    manifest: repository.Manifest | None = None


def load_version(
    directory: Path, loader: Loader, threads: int, zeros: bool = True, replay: Replay | None = None
) -> Loaded:
    """Verify the files where the version has a manifest, load it, and warm it up.

    `zeros` are run through each signature that takes numbers, and always with a manifest: our models keep no
    state. Where they fail, the log says so. Then `replay` runs, and the golden sample that a manifest lists must be
    answered as it says. Raises `ArtifactError` with the reason.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} does not exist")
    before = stamp_of(directory)
    manifest = _manifest(directory)
    if manifest and manifest.serve == repository.MANIFEST:
        loader = null.load
    try:
        servable = loader(directory, manifest.serve if manifest else "", threads)
    except ArtifactError:
        raise
    except Exception as error:
        # Whatever a runtime makes of a bad artifact must refuse this version, not end the server.
        raise ArtifactError(f"{directory} cannot be loaded: {type(error).__name__}: {error}") from error
    if stamp_of(directory) != before:
        servable.close()
        raise ArtifactError(f"{directory} was changed while it was read: rename versions into their place")
    if zeros or manifest:
        _warm_up(directory, servable)
    try:
        if replay is not None:
            replay(directory, servable)
        if manifest and repository.GOLDEN in manifest.files:
            _check_golden(directory, servable)
    except Exception as error:
        servable.close()
        told = error if isinstance(error, ServerError | GoldenError) else f"{type(error).__name__}: {error}"
        what = "is refused" if isinstance(error, GoldenError) else "loads but does not run"
        raise ArtifactError(f"{directory} {what}: {told}") from error
    return Loaded(servable, manifest)


def _manifest(directory: Path) -> repository.Manifest | None:
    if not (directory / repository.MANIFEST).exists():
        return None
    try:
        return repository.verify(directory)
    except repository.RepositoryError as error:
        raise ArtifactError(str(error)) from error


def _check_golden(directory: Path, servable: Servable) -> None:
    sample = golden.read(directory)
    if sample is not None:
        keys = servable.signatures
        key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in keys else next(iter(keys))
        sample.check(servable.run(key, dict(sample.inputs), list(sample.outputs)))


def _warm_up(directory: Path, servable: Servable) -> None:
    for key, signature in servable.signatures.items():
        inputs = example(signature)
        if inputs is None:
            continue
        try:
            servable.run(key, inputs, signature.output_names)
        except Exception as error:  # noqa: BLE001 - the model may still run what its clients send
            log.warning("%s, signature %s: zeros do not warm it up: %s", directory, key, error)
