"""Where a version came from, as `tandem lineage` tells it."""

from __future__ import annotations

from collections.abc import Callable

import models.base
from pipelines import publish
from pipelines.records import lineage, tables
from pipelines.records.lineage import Execution, Run
from serving import repository, targets
from serving.repository import Manifest
from serving.settings import Settings


def manifests(settings: Settings, version: int | None) -> dict[str, Manifest]:
    """The manifests of a version (None: the published one) by target.

    Raises `ModelError` or `PublishError` where there is no such model or version.
    """
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
    """Print from which data, code, parameters and run a version came, and what was refused on the way to it."""
    own = manifests(settings, version)
    manifest = next(iter(own.values()))
    known = lineage.runs(settings.lineage, settings.model)
    run = lineage.of_version(known, manifest.version)
    for line in _origin(settings, manifest, run):
        write(line)
    rows = []
    for name, one in own.items():
        batched = "yes" if one.batched else "no"
        rows.append([name, one.source, batched, str(len(one.files)), lineage.digest(one.files)[:16]])
    write("\n" + tables.render(["target", "weights of", "batched", "files", "sha256"], rows))
    if run is not None:
        steps = [_step(step) for step in run.executions]
        write("\n" + tables.render(["step", "state", "time", "from", "to"], steps))
    refused = lineage.refused_before(known, manifest.version)
    write(f"\non the way, not published: {len(refused)}" if refused else "\nnothing was refused on the way")
    for one_run in refused:
        lines = one_run.reason.splitlines()
        page = settings.artifacts / one_run.page
        write(f"  {one_run.started} {one_run.state}, run {one_run.id} ({page})")
        for line in lines[1:] if one_run.state == "refused" else lines[:1]:
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
        data = [one for step in run.executions for one in step.inputs if one.type == "Examples"][:1]
        rows[0][1] = " ".join([*(one.name for one in data), rows[0][1]])
        rows.append(["run", f"{run.id} by the {run.orchestrator} runner, {run.seconds:.0f} s"])
        rows.append(["page", str(settings.artifacts / run.page)])
    head = f"version {manifest.version} of {manifest.model}, made {manifest.created}, {served}"
    return [head, *(f"  {name:12}{text}" for name, text in rows)]


def _step(step: Execution) -> list[str]:
    read, written = (", ".join(dict.fromkeys(one.name for one in own)) for own in (step.inputs, step.outputs))
    return [step.type, step.state, f"{step.seconds:.1f} s", read, written]


def _listed(values: dict[str, object] | dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
