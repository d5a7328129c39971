"""Training the same model in both frameworks, and in Keras on PyTorch."""

from __future__ import annotations

import ctypes
import gc
import importlib
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from models.base import FRAMEWORKS, Model, Profile
from models.data import Dataset, Rows
from pipelines import gates
from pipelines.gates import Check
from pipelines.training import curves, frozen, gpus, keras_on_torch, workers
from pipelines.training.batches import BatchPlan
from pipelines.training.nodes import Nodes
from pipelines.training.record import Trained, TrainingError, intact

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
        module = importlib.import_module(FITS[framework])
        seen = module.gpus() * (nodes if framework == "pytorch" else 1)
        if profile.placed(seen) != "cpu":
            continue
        if not fits:
            raise TrainingError(
                f"devices {profile.devices}: {framework} sees {psutil.cpu_count()} CPUs and {seen} GPUs"
            )
        raise TrainingError(
            f"{profile.precision} on device {profile.device} needs {profile.devices} GPU: {framework} sees {seen}: "
            f"{gpus.why_none(module.CUDA)}. This machine's {psutil.cpu_count()} CPUs train in float32 and bf16"
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
    whole, validation = model, rows[1]
    try:
        if framework == keras_on_torch.NAME:
            start = model.initial_weights(seed)
            model = keras_on_torch.Started(model.spec, model.package, model.checkpoint, start)
        if profile.frozen:
            model, rows = frozen.prepare(model, profile, seed, rows, folder / "features.npz")
        plan = BatchPlan(model, rows[0], profile, seed)
        task = framework, model, plan, rows[1], own / "checkpoints", logs
        if profile.devices == 1 and framework in FRAMEWORKS:
            trained = _fit(*task)
        else:
            own.mkdir(parents=True, exist_ok=True)
            (own / "rendezvous").unlink(missing_ok=True)
            with ExitStack() as stack:
                agent = None
                if nodes.count > 1:
                    agent = stack.enter_context(nodes.met(f"{folder.name} on {profile.devices} devices"))
                count = profile.devices // nodes.count if framework == "pytorch" else 1
                parts = workers.run(count, _fit, *task, agent=agent)
            peak = sum(part.history.peak_bytes for part in parts)
            trained = replace(parts[0], history=replace(parts[0].history, peak_bytes=peak))
    except TrainingError as error:
        raise TrainingError(f"{framework}: {error}") from None
    if not nodes.rank:
        curves.draw_answers(logs, plan.steps, whole, trained, validation)
    trained.write(own)
    shutil.rmtree(own / "checkpoints")
    return replace(trained, checks=(unchanged,))


def _fit(framework: str, *arguments: object) -> Trained:
    module = importlib.import_module(FITS[framework])
    try:
        with growth() as grown:
            trained: Trained = module.fit(*arguments)
    except getattr(module, "OUT_OF_MEMORY", ()) as error:
        raise TrainingError(
            f"the memory is too little for a batch: lower batch_size in the profile, or share it by DEVICES. {error}"
        ) from None
    return replace(trained, history=replace(trained.history, peak_bytes=max(grown)))


@contextmanager
def growth() -> Iterator[list[int]]:
    """Bytes by which this process has grown, ten times a second until the block ends."""
    process, done = psutil.Process(), threading.Event()
    # What was freed before stays with the process otherwise, and would be taken again unseen.
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    start = process.memory_info().rss
    grown = [0]

    def watch() -> None:
        while not done.wait(0.1):
            grown.append(process.memory_info().rss - start)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield grown
    finally:
        done.set()
        watcher.join()


def _labelled(dataset: Dataset, count: int | None) -> tuple[Rows, Rows]:
    """As many training rows, and of the validation rows the same share."""
    if count is None:
        return dataset.train, dataset.validation
    share = min(1.0, count / len(dataset.train))
    return dataset.train.take(slice(count)), dataset.validation.take(
        slice(max(1, round(share * len(dataset.validation))))
    )
