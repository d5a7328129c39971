"""Reproduction: a published version is made again from its manifest, in a folder of its own.

It takes today's sources if they are the version's, otherwise those of its commit, and runs them in a process of their
own, in `artifacts/reproductions/<model>-<version>`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import models.base
from pipelines import data, exporting
from pipelines.records import fingerprint, provenance, tables
from pipelines.training.record import Trained
from serving import golden, repository
from serving.errors import TandemError
from serving.repository import Manifest
from serving.settings import PREFIX, Settings

ROWS = 200
"""Test rows on which two artifacts with different bytes are compared."""


class ReproductionError(TandemError):
    """The version cannot be made again here."""


def reproduce(
    settings: Settings, version: int | None, report: Callable[[str], None], write: Callable[[str], None]
) -> int:
    """Make a version again, and compare the two. Returns 0 if weights and answers are the same, otherwise 1. Raises
    `ReproductionError`, `ModelError`, `PublishError`, and `ManifestError` if the version was changed."""
    manifests = provenance.manifests(settings, version)
    manifest = next(iter(manifests.values()))
    for target in manifests:
        repository.verify(
            repository.version_dir(settings.repository, target, settings.model, manifest.version)
        )
    folder = settings.artifacts / "reproductions" / f"{manifest.model}-{manifest.version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = _settings(settings, manifest)
    code = _code(own, manifest, folder, report)
    _make(own, manifest, code, folder)
    candidate = next((folder / "candidates").glob(f"{manifest.model}-{manifest.fingerprint[:10]}"), None)
    if candidate is None:
        raise ReproductionError(
            f"the sources in {code} have another fingerprint than version {manifest.version}'s "
            f"({manifest.fingerprint[:10]}): libraries differ that neither names"
        )
    report(f"compare: {folder} with version {manifest.version}")
    same = _same_weights(manifest, folder, write) & _same_answers(settings, manifests, candidate, write)
    write("reproduced" if same else "NOT reproduced")
    return 0 if same else 1


def _settings(settings: Settings, manifest: Manifest) -> Settings:
    """Return the settings that a version was made with, for these artifacts and platform."""
    own = {name: value for name, value in manifest.parameters.items() if name != "orchestrator"}
    return Settings(manifest.model, settings.artifacts, settings.platform, **own)


def _code(own: Settings, manifest: Manifest, folder: Path, report: Callable[[str], None]) -> Path:
    """Return the folder of the sources that the version was made from: today's, or those of its commit."""
    project = fingerprint.PIPELINES.parent
    installed = fingerprint.libraries(tuple(manifest.libraries))
    for name, version in manifest.libraries.items():
        if installed.get(name) != version:
            raise ReproductionError(
                f"version {manifest.version} was made with {name} {version}, here is {installed.get(name, 'none')}: "
                "install what its commit pins in requirements/main.txt and run this again"
            )
    model = models.base.load(manifest.model)
    trained = fingerprint.training(model, own, data.load(model, own.artifacts, own.seed).digest)
    if manifest.parameters.get("orchestrator") == "tfx":
        from pipelines.tfx import run

        trained = run.training(trained)
    if fingerprint.version_of(model, own, trained) == manifest.fingerprint:
        report(f"sources: {project}, which are those of version {manifest.version}")
        return project
    commit = manifest.git_commit
    if not commit or commit.endswith("-dirty"):
        raise ReproductionError(
            f"version {manifest.version} was made from sources that no commit holds ({commit or 'no git checkout'}), "
            "and they have changed since: put them back and run this again"
        )
    report(f"sources: commit {commit[:12]}, in {folder / 'code'}")
    return _checked_out(project, commit, folder)


def _checked_out(project: Path, commit: str, folder: Path) -> Path:
    archive, code = folder / "code.tar", folder / "code"
    command = ["git", "archive", "--output", str(archive), f"{commit}:./"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReproductionError(f"commit {commit} cannot be had from {project}: {done.stderr.strip()}")
    shutil.unpack_archive(archive, code, filter="data")
    archive.unlink()
    return code


def _make(own: Settings, manifest: Manifest, code: Path, folder: Path) -> None:
    """Validate, train and export, by the version's orchestrator, in a process that sees nothing that is served."""
    (folder / "data").symlink_to(own.artifacts / "data")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    values = manifest.parameters | {"artifacts": folder, "model": own.model, "platform": own.platform}
    orchestrator = values.pop("orchestrator", "default")
    environment |= {PREFIX + key.upper(): str(value) for key, value in values.items()}
    command = [sys.executable, "-m", "pipelines.cli", "export", f"--orchestrator={orchestrator}"]
    done = subprocess.run(command, cwd=code, env=environment | {"PYTHONPATH": str(code)}, check=False)
    if done.returncode:
        raise ReproductionError(
            f"`tandem export` in {code} ended with status {done.returncode}; its lines are above"
        )


def _same_weights(manifest: Manifest, folder: Path, write: Callable[[str], None]) -> bool:
    """Return True if each framework's weights are the same, to the last bit."""
    result = True
    for framework, digest in manifest.weights.items():
        (run,) = (folder / "runs").iterdir()
        trained = Trained.read(framework, run / framework)
        same = trained is not None and trained.digest == digest
        write(f"{framework}: {'the same weights, to the last bit' if same else 'OTHER WEIGHTS'}")
        result &= same
    return result


def _same_answers(
    settings: Settings, manifests: dict[str, Manifest], candidate: Path, write: Callable[[str], None]
) -> bool:
    """Return True if every artifact has the same bytes as that of the version, or answers the same."""
    model = models.base.load(settings.model)
    dataset = data.load(model, settings.artifacts, settings.seed)
    inputs = dataset.test.take(slice(ROWS)).served(model.spec.signature)
    rows, result = [], True
    for target, manifest in manifests.items():
        served = repository.version_dir(settings.repository, target, manifest.model, manifest.version)
        rebuilt = repository.file_digests(candidate / target)
        differing = sorted({name for name, _digest in rebuilt.items() ^ manifest.files.items()})
        if not differing:
            rows.append([target, "the same bytes", "-", "every file"])
            continue
        exporter = exporting.load(target, manifest.parameters.get("torchserve_form", ""))
        before, now = (
            exporter.run(folder / exporter.serve, model, inputs) for folder in (served, candidate / target)
        )
        difference = max(golden.difference(now[name], before[name]) for name in before)
        result &= difference <= model.spec.tolerances.outputs
        files, why = ", ".join(differing), exporter.unequal_bytes
        rows.append([target, "differ", f"{difference:.1e}", f"{files}: {why}" if why else files])
    write(tables.render(["target", "bytes", "difference", "files"], rows))
    return result
