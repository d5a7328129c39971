"""The origin of a version, as `tandem lineage` prints it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import models.base
from pipelines import publish
from pipelines.records import lineage, tables
from pipelines.records.lineage import Execution, Run
from serving import repository, targets
from serving.repository import Manifest
from serving.settings import Settings


def manifests(settings: Settings, version: int | None) -> dict[str, Manifest]:
    """The manifests of a version (None: the published one) by target. Raises `ModelError` or `PublishError` where
    there is no such model or version."""
    root, model = settings.repository, settings.model
    models.base.load(model)
    if version is None:
        version = publish.published(root, model).version
    publish.require(root, model, version)
    return {
        target: repository.read_manifest(repository.version_dir(root, target, model, version))
        for target in targets.NAMES
    }


def show(settings: Settings, version: int | None, write: Callable[[str], None]) -> None:
    """Print the data, code, parameters and run of a version, and the runs before it that published nothing."""
    by_target = manifests(settings, version)
    manifest = next(iter(by_target.values()))
    known = lineage.runs(settings.lineage, settings.model)
    run = lineage.of_version(known, manifest.version)
    for line in _origin(settings, manifest, run):
        write(line)
    rows = []
    for target, artifact in by_target.items():
        batched, digest = "yes" if artifact.batched else "no", lineage.digest(artifact.files)[:16]
        rows.append([target, artifact.source, batched, str(len(artifact.files)), digest])
    write("\n" + tables.render(["target", "weights of", "batched", "files", "sha256"], rows))
    if run is not None:
        steps = [_step(step) for step in run.executions]
        write("\n" + tables.render(["step", "state", "time", "from", "to"], steps))
    refused = lineage.refused_before(known, manifest.version)
    write(f"\non the way, not published: {len(refused)}" if refused else "\nnothing was refused on the way")
    for attempt in refused:
        lines = attempt.reason.splitlines()
        page = settings.artifacts / attempt.page
        write(f"  {attempt.started} {attempt.state}, run {attempt.id} ({page})")
        for line in lines[1:] if attempt.state == "refused" else lines[:1]:
            write(f"    {line.strip()}")


def _origin(settings: Settings, manifest: Manifest, run: Run | None) -> list[str]:
    now = publish.pointer(settings.repository, manifest.model)
    served = "published now" if now and now.version == manifest.version else "not the published one"
    rows = [
        ["data", f"sha256 {manifest.data_digest}"],
        ["code", f"{manifest.git_commit or 'no commit'}, fingerprint {manifest.fingerprint[:16]}"],
        ["parameters", _listed({"seed": manifest.seed} | manifest.parameters)],
        ["libraries", _listed(manifest.libraries)],
        *([framework, f"weights sha256 {digest}"] for framework, digest in manifest.weights.items()),
        ["metrics", _listed({k: f"{v:.4f}" for k, v in manifest.metrics.items() if k.count("/") == 1})],
    ]
    if run is None:
        rows.append(["run", f"not in {settings.lineage}: what is above is from the manifest"])
    else:
        names = [
            artifact.name
            for step in run.executions
            for artifact in step.inputs
            if artifact.type == "Examples"
        ]
        rows[0][1] = " ".join([*names[:1], rows[0][1]])
        rows.append(["run", f"{run.id} by the {run.orchestrator} runner, {run.seconds:.0f} s"])
        rows.append(["page", str(settings.artifacts / run.page)])
    head = f"version {manifest.version} of {manifest.model}, made {manifest.created}, {served}"
    return [head, *(f"  {name:12}{text}" for name, text in rows)]


def _step(step: Execution) -> list[str]:
    used = step.inputs, step.outputs
    read, written = (", ".join(dict.fromkeys(artifact.name for artifact in part)) for part in used)
    return [step.type, step.state, f"{step.seconds:.1f} s", read, written]


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
