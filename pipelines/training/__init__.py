"""Training the same model in both frameworks, and in Keras on PyTorch, each in a process of its own."""

from __future__ import annotations

import importlib
import re
import resource
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from models.base import Model, Profile
from models.data import Dataset, Rows
from pipelines import gates
from pipelines.gates import Check
from pipelines.training import curves, frozen, gpus, keras_on_torch, workers
from pipelines.training.batches import BatchPlan
from pipelines.training.nodes import Nodes
from pipelines.training.record import Trained, TrainingError, intact
from pipelines.training.workers import LostError

ALONE = Nodes()
FITS = {
    "tensorflow": "pipelines.training.keras_fit",
    "pytorch": "pipelines.training.lightning_fit",
    keras_on_torch.NAME: "pipelines.training.keras_on_torch",
}


def require(profile: Profile, frameworks: Collection[str], nodes: int = 1) -> None:
    """Raise `TrainingError` where this machine, or so many like it, cannot train as the profile says."""
    if profile.devices < 1 or profile.batch_size % profile.devices:
        raise TrainingError(
            f"devices {profile.devices}: expected a number that a batch of {profile.batch_size} rows can be divided by"
        )
    if nodes > 1 and "pytorch" not in frameworks:
        raise TrainingError(
            f"{nodes} nodes: only PyTorch trains on several, and the model has no network in it"
        )
    # Two are worth a try on one CPU, as they are on many.
    fits = profile.devices // nodes <= max(2, psutil.cpu_count() or 1)
    if fits and profile.device != "gpu" and profile.precision != "fp16":
        return
    for framework in frameworks:
        seen, cuda = workers.run(1, _gpus, framework)[0]
        seen *= nodes if framework == "pytorch" else 1
        if profile.placed(seen) == "cpu":
            raise TrainingError(
                f"{profile.precision} on {profile.devices} devices, DEVICE={profile.device}: {framework} sees {seen} "
                f"GPUs, as {gpus.why_none(cuda)}, and {psutil.cpu_count()} CPUs, which train in float32 and bf16"
            )


def train(
    framework: str,
    model: Model,
    profile: Profile,
    seed: int,
    dataset: Dataset,
    folder: Path,
    nodes: Nodes = ALONE,
) -> Trained:
    """Train in one framework, or return what is already trained in `folder / framework`.

    On several `nodes` each has its share of the profile's devices.

    A training that was cut off goes on from its last epoch. TensorBoard logs of both frameworks go to
    `folder / tensorboard`. Raises `GateError` where a finished training was changed since, `TrainingError` where the
    loss is no number any more.
    """
    own = folder / framework
    name = f"{framework}: trainings in {own} that were changed since they ended"
    unchanged = Check("integrity", name, int(not intact(own)), "<=", 0)
    gates.require([unchanged])
    done = Trained.read(framework, own)
    if done is not None:
        return replace(done, cached=True, checks=(unchanged,))
    rows = _labelled(dataset, profile.training_rows)
    logs = folder / "tensorboard" / framework
    # Both networks are at hand here, to draw the weights and the features.
    own_model, own_rows = replace(model, start=model.initial_weights(seed)), rows
    if profile.frozen:
        own_model, own_rows = frozen.prepare(own_model, profile, rows, folder / "features.npz")
    plan = BatchPlan(own_model, own_rows[0], profile, seed)
    task = framework, own_model, plan, own_rows[1], own / "checkpoints", logs
    own.mkdir(parents=True, exist_ok=True)
    (own / "rendezvous").unlink(missing_ok=True)
    count = profile.devices // nodes.count if framework == "pytorch" else 1
    try:
        with nodes.met(f"{folder.name} on {profile.devices} devices") as agent:
            parts = workers.run(count, _fit, *task, agent=agent)
    except (TrainingError, LostError) as error:
        raise TrainingError(f"{framework}: {error}") from None
    peak = sum(part.history.peak_bytes for part in parts)
    trained = replace(parts[0], history=replace(parts[0].history, peak_bytes=peak))
    if not nodes.rank:
        curves.draw(logs, plan.steps, model, trained, rows[1])
    trained.write(own)
    shutil.rmtree(own / "checkpoints")
    return replace(trained, checks=(unchanged,))


def _fit(framework: str, *arguments: object) -> Trained:
    module = _module(framework)
    try:
        trained: Trained = module.fit(*arguments)
    except module.OUT_OF_MEMORY as error:
        raise TrainingError(
            f"the memory is too little for a batch: lower batch_size in the profile, or share it by DEVICES. {error}"
        ) from None
    return replace(trained, history=replace(trained.history, peak_bytes=_peak_bytes()))


def _gpus(framework: str) -> tuple[int, str | None]:
    """Return the number of GPUs that a framework sees, and its version of CUDA; None is a build for CPUs."""
    module = _module(framework)
    return module.gpus(), module.CUDA


def _module(framework: str) -> Any:  # noqa: ANN401
    if framework == "tensorflow":
        gpus.prefer_cuda()
    return importlib.import_module(FITS[framework])


def _peak_bytes() -> int:
    """Return the most memory that this process was resident in."""
    status = Path("/proc/self/status")
    if status.exists():
        # Of Linux, `getrusage` has the parent's.
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        return int(found[1]) * 1024 if found else 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _labelled(dataset: Dataset, count: int | None) -> tuple[Rows, Rows]:
    """As many training rows, and of the validation rows the same share."""
    share = 1.0 if count is None else min(1.0, count / len(dataset.train))
    validation = slice(max(1, round(share * len(dataset.validation))))
    return dataset.train.take(slice(count)), dataset.validation.take(validation)
