"""What a training runs on: it is there, several devices end as one does, and the loss of one ends it."""

from __future__ import annotations

import errno
import multiprocessing
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import models.base
from models.base import FRAMEWORKS, Model
from models.data import Dataset, Rows
from pipelines import training
from pipelines.training import workers
from pipelines.training.batches import BatchPlan
from pipelines.training.journal import Journal
from pipelines.training.keras_on_torch import NAME
from pipelines.training.nodes import Nodes
from pipelines.training.record import Epoch, History, Trained, TrainingError
from tests.pipelines.training.test_training import assert_same_weights, train_sample


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"devices": 0}, "devices 0: expected a number that a batch of 128 rows"),
        ({"devices": 3}, "devices 3: expected a number that a batch of 128 rows"),
        ({"devices": 64}, "on 64 devices, DEVICE=auto: pytorch sees 0 GPUs, as .*, and 2 CPUs"),
        ({"device": "gpu"}, "float32 on 1 devices, DEVICE=gpu: pytorch sees 0 GPUs, as "),
        ({"precision": "fp16"}, "fp16 on 1 .* 2 CPUs, which train in float32 and bf16"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_with_what_it_has(
    model: Model, changes: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "run", lambda *_: [(0, None)])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    profile = model.spec.profile("quick")
    training.require(replace(profile, precision="bf16", devices=2), FRAMEWORKS)
    with pytest.raises(TrainingError, match=told):
        training.require(replace(profile, **changes), ["pytorch"])  # type: ignore[arg-type]


def test_a_training_goes_on_with_the_precision_and_the_devices_that_it_began_with(
    model: Model, sample: Rows, tmp_path: Path
) -> None:
    replace(History([], [], 0.0), devices=2).write(tmp_path / "epoch-000.json")
    (tmp_path / "epoch-000.ckpt").touch()
    profile = model.spec.profile("quick")
    same, *others = (
        BatchPlan(model, sample, replace(profile, devices=devices, precision=precision), 1)
        for devices, precision in ((2, "float32"), (1, "float32"), (2, "bf16"))
    )
    assert Journal(same, tmp_path, tmp_path / "logs", ".ckpt", "cpu").checkpoint is not None
    told = "began with float32 on 2 cpus and would go on with (float32 on 1 cpu|bf16 on 2 cpus): "
    for plan in others:
        with pytest.raises(TrainingError, match=told):
            Journal(plan, tmp_path, tmp_path / "logs", ".ckpt", "cpu")


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    model: Model, sample: Rows, tmp_path: Path
) -> None:
    History([], [Epoch(1.0, 0.5, 1.0, 0.5)], 0.0).write(tmp_path / "epoch-000.json")
    (tmp_path / "epoch-000.ckpt").touch()
    plan = BatchPlan(model, sample, replace(model.spec.profile("quick"), batch_size=32), 1)
    journal = Journal(plan, tmp_path, tmp_path / "logs", ".ckpt", "cpu")
    told = "loss is nan in epoch 2, step 1, at a learning rate of .*; the checkpoint of epoch 1 is kept, and nothing"
    with pytest.raises(TrainingError, match=told):
        journal.step(0, float("nan"))


def test_a_full_disk_leaves_the_checkpoint_before(model: Model, sample: Rows, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    def journal() -> Journal:
        plan = BatchPlan(model, sample, replace(model.spec.profile("quick"), batch_size=32), 1)
        return Journal(plan, tmp_path, tmp_path / "logs", ".ckpt", "cpu")

    first, figures = journal(), Epoch(1.0, 0.5, 1.0, 0.5)
    first.epoch(figures, Path.touch, dict)
    with pytest.raises(OSError, match="No space left"):
        first.epoch(figures, fail, dict)
    again = journal()
    assert (again.checkpoint, again.first) == (tmp_path / "epoch-000.ckpt", 1)
    again.epoch(figures, Path.touch, dict)
    assert journal().first == 2


def train_phrases(framework: str, folder: Path, devices: int, nodes: Nodes = training.ALONE) -> Trained:
    """Fifty steps of `language`."""
    torch.set_num_threads(1)
    model = models.base.load("language")
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 10, 1_664)
    text = (generator.integers(97, 117, (len(targets), 48)) + targets[:, np.newaxis]).astype(np.int32)
    rows = Rows({"text": text}, targets)
    train, rest = rows.take(slice(1_600)), rows.take(slice(1_600, None))
    profile = replace(model.spec.profile("quick"), batch_size=32, epochs=1, peak_learning_rate=1e-3)
    profile, dataset = replace(profile, devices=devices), Dataset(train, rest, rest, "")
    return training.train(framework, model, profile, 1, dataset, folder, nodes)


def assert_nearly_same_weights(one: Trained, two: Trained) -> None:
    # Softmax takes no notice of a bias of the keys, so its gradient is rounding; AdamW makes whole steps of that, too.
    apart = {
        name: float(np.abs(array - two.weights[name]).max())
        for name, array in one.weights.items()
        if not name.endswith("attention_key/bias")
    }
    assert {name: found for name, found in apart.items() if found > 1e-5} == {}


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_devices_end_with_the_weights_of_one_after_fifty_steps(framework: str, tmp_path: Path) -> None:
    one, two = (train_phrases(framework, tmp_path / str(devices), devices) for devices in (1, 2))
    assert len(two.history.step_losses) == 50
    assert two.history.step_losses[-1] < two.history.step_losses[0] * 0.8
    assert two.history.epochs[0].validation_loss == pytest.approx(
        one.history.epochs[0].validation_loss, abs=1e-5
    )
    assert_nearly_same_weights(one, two)


def ranks() -> dict[int, multiprocessing.process.BaseProcess]:
    """The processes of a training; other tests may have some of their own."""
    children = multiprocessing.active_children()
    return {int(child.name.split()[1]): child for child in children if child.name.startswith("rank ")}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("framework", "rank", "told"),
    [
        ("pytorch", 1, "the process of rank 1, of 2,"),
        pytest.param("tensorflow", 0, "its process", marks=pytest.mark.thorough),
        pytest.param(NAME, 0, "its process", marks=pytest.mark.thorough),
    ],
)
def test_a_lost_process_ends_the_training_which_goes_on_from_its_last_epoch(
    framework: str, rank: int, told: str, tmp_path: Path
) -> None:
    errors: list[str] = []
    devices = 1 if framework == NAME else 2

    def train() -> None:
        with pytest.raises(TrainingError) as raised:
            train_sample(framework, tmp_path / "killed", epochs=2, devices=devices)
        errors.append(str(raised.value))

    thread = threading.Thread(target=train)
    thread.start()
    checkpoints = tmp_path / "killed" / framework / "checkpoints"
    while not [*checkpoints.glob("epoch-000.ckpt"), *checkpoints.glob("epoch-000.keras")]:
        assert thread.is_alive()
        time.sleep(0.02)
    ranks()[rank].kill()
    killed = time.monotonic()
    thread.join(60)
    assert time.monotonic() - killed < 10
    (error,) = errors
    assert f"{framework}: {told} ended by SIGKILL, as processes do where memory runs out" in error
    assert not (tmp_path / "killed" / framework / "weights.npz").exists()
    assert ranks() == {}

    resumed = train_sample(framework, tmp_path / "killed", epochs=2, devices=devices)
    whole = train_sample(framework, tmp_path / "whole", epochs=2, devices=devices)
    assert_same_weights(resumed, whole)
    assert resumed.history.step_losses == whole.history.step_losses
