"""Profiles of training steps and of runs of published artifacts."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import models.base
from models.base import FRAMEWORKS, Model, Profile
from models.signature import Arrays
from pipelines import stages
from pipelines.cli.profiling import page
from pipelines.cli.profiling.record import LABELS, WARM, Clock, Profiled, ProfilingError
from pipelines.training import frozen
from pipelines.training.batches import BatchPlan
from serving.compare import local
from serving.repository import ManifestError, version_dir
from serving.server.backends.base import BACKENDS
from serving.settings import Settings
from serving.targets.base import TargetError, served_manifest

MODULES = {
    "tensorflow": "keras_steps",
    "pytorch": "torch_steps",
    "onnxruntime": "onnxruntime_runs",
    "litert": "litert_runs",
}
RUNTIMES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
"""The library of each runtime."""
IMPORTED_ROWS = 64
"""Rows of a run of an imported artifact, which has no profile."""


def profile(
    settings: Settings, asked: str | None, steps: int, say: stages.Report
) -> tuple[list[Profiled], Path]:
    """Profile the framework or runtime `asked`, or all that the model has.

    Returns the profiles, and the folder of their traces and the page. Raises `ProfilingError` if there is none.
    """
    if steps < 1:
        raise ProfilingError(f"--steps {steps}: expected at least 1")
    missing = _missing(settings, models.base.load(settings.model))
    names = [name for name in MODULES if name not in missing and asked in (None, name)]
    if not names:
        raise ProfilingError(missing[asked] if asked else "; ".join(dict.fromkeys(missing.values())))
    recipe = stages.load_recipe(settings, say)
    plan = _plan(recipe)
    folder = settings.artifacts / "profiles" / datetime.now().strftime("%Y%m%d-%H%M%S")
    made: list[Profiled] = []
    try:
        for name in names:
            say(f"profile {name}: {steps} {LABELS[name].split()[-1]}s of {plan.profile.batch_size} rows")
            own = folder / name
            own.mkdir(parents=True)
            try:
                if name in FRAMEWORKS:
                    made.append(_module(name).profile(_trained(plan), steps, own))
                else:
                    made.append(_run(settings, name, _batches(plan, steps), own))
            except ProfilingError as error:
                missing[name] = str(error)
        if not made:
            raise ProfilingError("; ".join(dict.fromkeys(missing[name] for name in names)))
        for name, why in missing.items() if asked is None else ():
            say(f"{name} is not profiled: {why}")
        heading = (
            f"{settings.model}, profile {settings.profile}: {steps} steps of {plan.profile.batch_size} rows"
        )
        page.write(made, heading, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made, folder


def _missing(settings: Settings, model: Model) -> dict[str, str]:
    """Return the reason, by name, why a framework or runtime cannot be profiled."""
    has = ", ".join(model.frameworks) or "none: it is an imported artifact"
    missing = {
        name: f"{model.spec.name} has no network in {name}; it has {has}"
        for name in FRAMEWORKS
        if name not in model.frameworks
    }
    for name in RUNTIMES:
        try:
            if why := served_manifest(settings, name).unreachable:
                missing[name] = f"the published version does not reach {name}: {why}"
        except (TargetError, ManifestError) as error:
            missing[name] = str(error)
    return missing


def _module(name: str) -> Any:  # noqa: ANN401
    return importlib.import_module(f"{__name__}.{MODULES[name]}")


def _run(settings: Settings, name: str, batches: Sequence[Arrays], folder: Path) -> Profiled:
    """Time the published artifact as our server runs it, then trace it."""
    client, clock = local.connect(settings, name, local.IN_PROCESS), Clock()
    for _ in range(WARM):
        outputs = client.predict(batches[0])
    for batch in batches:
        with clock("forward"):
            client.predict(batch)
    client.close()
    manifest = served_manifest(settings, name)
    version = version_dir(settings.repository, name, settings.model, manifest.version)
    ops = _module(name).trace(version / (manifest.serve or BACKENDS[name]), batches, outputs, folder)
    library = RUNTIMES[name]
    runs_on = f"{library} {metadata.version(library)}, 1 thread"
    return Profiled(name, runs_on, clock.each(len(batches)), ops, _module(name).NOTE)


def _plan(recipe: stages.Recipe) -> BatchPlan:
    """Return the plan of a training's batches; for an imported artifact, of its samples."""
    data, seed = recipe.dataset, recipe.settings.seed
    if not recipe.model.frameworks:
        size = min(len(data.test), IMPORTED_ROWS)
        return BatchPlan(recipe.model, data.test, Profile(1, 0.0, 0.0, batch_size=size), seed)
    # The traces do not tell several devices apart.
    profile = replace(recipe.profile, devices=1, device="cpu")
    if profile.precision != "float32":
        raise ProfilingError(f"profiles are of float32, and not of {profile.precision}")
    plan = BatchPlan(recipe.model, data.train.take(slice(profile.training_rows)), profile, seed)
    if not plan.steps_per_epoch:
        raise ProfilingError(f"{len(plan.rows)} training rows fill no batch of {profile.batch_size}")
    return plan


def _trained(plan: BatchPlan) -> BatchPlan:
    """Return the plan of the part behind a frozen part, with the features of one batch for all steps."""
    size = plan.profile.batch_size
    if not plan.profile.frozen:
        return plan
    parts = plan.rows.take(slice(size)), plan.rows.take(slice(1))
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "features.npz"
        end, (rows, _) = frozen.prepare(plan.model, plan.profile, plan.seed, parts, cache)
    return replace(plan, model=end, rows=rows)


def _batches(plan: BatchPlan, steps: int) -> list[Arrays]:
    """Return the inputs of the first steps; for a model that is not batched, a row of each."""
    batches = chain.from_iterable(plan.epoch(epoch) for epoch in count())
    first = (inputs for inputs, _ in islice(batches, steps))
    if plan.model.spec.batched:
        return list(first)
    return [{name: array[0] for name, array in inputs.items()} for inputs in first]
