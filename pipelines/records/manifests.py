"""The manifests of a version, one for each target, and the figures of the published one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import publish
from pipelines.exporting import Candidate
from pipelines.gates.artifacts import Gated
from pipelines.gates.networks import Evaluated
from pipelines.training.record import Trained
from pipelines.validation import Published, statistics
from serving import repository, targets
from serving.repository import Manifest, ManifestError

if TYPE_CHECKING:
    from pipelines.stages import Recipe


def manifests(
    recipe: Recipe,
    trained: Mapping[str, Trained],
    evaluated: Evaluated | None,
    candidate: Candidate,
    gated: Gated,
) -> dict[str, Manifest]:
    """Return the manifest of each artifact, without its version."""
    spec, files, roads = recipe.model.spec, candidate.files, candidate.roads
    metrics = evaluated.metrics.items() if evaluated else ()
    common: dict[str, Any] = recipe.code | {
        "model": spec.name,
        "version": 0,
        "signature": spec.signature.to_json(),
        "task": spec.task.to_json(),
        "metrics": {
            f"{name}/{metric}": value for name, values in metrics for metric, value in values.items()
        },
        "data_digest": recipe.dataset.digest,
        "seed": recipe.settings.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": recipe.parameters,
        "weights": {framework: result.digest for framework, result in trained.items()},
        # Data that passed its checks has no NaN; an imported model may take it.
        "finite": bool(trained),
    }
    return {
        target: Manifest(
            target=target,
            source=roads.origins.get(target, ""),
            files=files[target],
            serve=exporter.serve,
            runtime=exporter.runtime,
            converter=roads.open[target].converter if target in roads.open else "",
            unreachable=roads.closed.get(target, ""),
            instruction_set=dict(exporter.instruction_set),
            export_seconds=candidate.seconds(target),
            batched=gated.batched.get(target, False),
            **common,
        )
        for target in targets.NAMES
        for exporter in [candidate.exporter(target)]
    }


def published_metrics(root: Path, model: str) -> dict[str, dict[str, float]]:
    """Return the published version's metrics by framework; empty if there is none."""
    by_framework: dict[str, dict[str, float]] = {}
    with suppress(ManifestError):
        if now := publish.pointer(root, model):
            folder = repository.version_dir(root, targets.NAMES[0], model, now.version)
            for key, value in repository.read_manifest(folder).metrics.items():
                framework, _, metric = key.partition("/")
                by_framework.setdefault(framework, {})[metric] = value
    return by_framework


def published_statistics(root: Path, model: str) -> Published | None:
    """Return the published version's statistics; None if there are none, or if they have another form."""
    now = publish.pointer(root, model)
    text = publish.statistics(root, model, now.version) if now else None
    if now is None or text is None:
        return None
    try:
        return Published(now.version, statistics.from_json(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
