"""Both frameworks really train here, on the sample: a few seconds an epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.util.tensor_util import make_ndarray

from models.base import FRAMEWORKS, Model
from models.data import Dataset, Rows
from pipelines import training
from pipelines.exporting import reference
from pipelines.gates import networks
from pipelines.training import workers
from pipelines.training.batches import Batch, BatchPlan
from pipelines.training.journal import Journal
from pipelines.training.keras_on_torch import NAME
from pipelines.training.nodes import Nodes
from pipelines.training.record import Trained, TrainingError, loss_difference
from tests.pictures import labelled
from tests.pipelines.training.test_curves import read, steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import sys
from pathlib import Path
from tests.pipelines.training import test_training as t
t.train_sample(sys.argv[1], Path(sys.argv[2]))
"""


def train_sample(
    framework: str,
    folder: Path,
    epochs: int = 4,
    precision: str = "float32",
    devices: int = 1,
    nodes: Nodes = training.ALONE,
    rows: int | None = None,
) -> Trained:
    import models.base

    # Equal to the last bit only with as many threads, which a test before may have set in this process.
    torch.set_num_threads(1)
    model = models.base.load("fashion")
    with np.load(Path(__file__).parents[2] / "data" / "fashion-sample.npz") as file:
        sample = labelled(file["images"], file["labels"]).take(slice(rows))
    profile = replace(model.spec.profile("quick"), batch_size=32, epochs=epochs, precision=precision)
    profile = replace(profile, devices=devices)
    return training.train(framework, model, profile, 1, Dataset(sample, sample, sample, ""), folder, nodes)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process, for tests that change its parts."""
    monkeypatch.setattr(workers, "run", lambda _count, fit, *arguments, **_agent: [fit(*arguments)])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {framework: train_sample(framework, folder) for framework in FRAMEWORKS}


def test_both_learn_and_leave_tensorboard_logs_in_one_folder(
    uninterrupted: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for trained in uninterrupted.values():
        epochs = trained.history.epochs
        assert len(epochs) == 4
        assert epochs[-1].loss < epochs[0].loss * 0.7
        assert epochs[-1].metric > 0.6
        assert trained.history.seconds > 0
    logs = next(tmp_path_factory.getbasetemp().glob("uninterrupted*")) / "tensorboard"
    boards = {framework: read(logs / framework) for framework in FRAMEWORKS}
    tensors, *others = (set(board.Tags()["tensors"]) for board in boards.values())
    assert {"loss", "accuracy", "learning_rate", "step_time", "waiting"} < tensors
    # PyTorch's writer of graphs has one more.
    assert others == [tensors | {"step1"}]
    for framework, board in boards.items():
        assert board.PluginTagToContent("images").keys() == {"confusion_matrix", "samples"}
        for name, array in uninterrupted[framework].weights.items():
            events = board.Tensors(f"weights/{name}")
            assert [event.step for event in events] == [15, 31, 47, 63]
            buckets = make_ndarray(events[-1].tensor_proto)
            assert buckets[:, 2].sum() == array.size
            assert buckets[0, 0] <= array.min() <= array.max() <= buckets[-1, 1]


@pytest.mark.usefixtures("here")
def test_both_go_the_same_way_for_fifty_steps(model: Model, sample: Rows, tmp_path: Path) -> None:
    repeated = labelled(np.tile(sample.inputs["image"], (13, 1, 1, 1)), np.tile(sample.targets, 13))
    # The rate that the quick profile has reached by its fiftieth step.
    profile = replace(model.spec.profile("quick"), epochs=1, peak_learning_rate=8e-4)
    dataset = Dataset(repeated, sample, sample, "")
    one, other = (
        training.train(framework, model, profile, 1, dataset, tmp_path).history for framework in FRAMEWORKS
    )
    assert len(one.step_losses) == len(other.step_losses) == 50
    assert one.step_losses[-1] < one.step_losses[0] * 0.7, "standing still would be no parity"
    assert loss_difference(one, other) <= profile.training_loss


def test_keras_on_pytorch_goes_the_way_of_tensorflow(
    uninterrupted: dict[str, Trained], tmp_path: Path
) -> None:
    found, own = train_sample(NAME, tmp_path), uninterrupted["tensorflow"]
    assert found.weights.keys() == own.weights.keys()
    first, last = (
        [one.history.step_losses[place] for one in (found, own)] for place in (slice(5), slice(5, 16))
    )
    np.testing.assert_allclose(*first, rtol=1e-4)
    # The rate is at its peak then, and chance is as large between the two frameworks.
    np.testing.assert_allclose(*last, rtol=2e-2)
    assert found.history.step_seconds > 0


@pytest.mark.thorough
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_seed_makes_a_run_equal_in_bf16_too_where_it_was_interrupted(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Journal.step

    def interrupt(journal: Journal, number: int, loss: float) -> None:
        if journal.history.epochs:
            raise KeyboardInterrupt
        step(journal, number, loss)

    tiny: dict[str, Any] = {"epochs": 2, "precision": "bf16", "rows": 64}
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_sample(framework, tmp_path / "resumed", **tiny)
    resumed, whole = (train_sample(framework, tmp_path / name, **tiny) for name in ("resumed", "whole"))
    assert_same_weights(resumed, whole)
    assert resumed.history.epochs == whole.history.epochs


@pytest.mark.usefixtures("here")
def test_bf16_goes_the_way_of_float32_and_leaves_weights_of_float32(
    model: Model, sample: Rows, tmp_path: Path, uninterrupted: dict[str, Trained]
) -> None:
    reduced = {framework: train_sample(framework, tmp_path, precision="bf16") for framework in FRAMEWORKS}
    for framework, trained in reduced.items():
        found, plain = trained.history, uninterrupted[framework].history
        assert loss_difference(found, plain) > 0
        assert [
            check for check in networks.precision(framework, "bf16", found, plain) if not check.passed
        ] == []
        # Masters: rounded to bfloat16, which has 16 bits less, they would be others.
        assert all(weights.dtype == np.float32 for weights in trained.weights.values())
        assert any((weights.view(np.uint32) & 0xFFFF).any() for weights in trained.weights.values())
    assert loss_difference(*(trained.history for trained in reduced.values())) <= networks.REDUCED_LOSS
    # What is exported later in the same process is float32 again.
    inputs = sample.take(slice(4)).served(model.spec.signature)
    weights = reduced["tensorflow"].weights
    answers = [reference.outputs(model, framework, weights, inputs)["logits"] for framework in FRAMEWORKS]
    assert np.abs(answers[0] - answers[1]).max() < 1e-4


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("framework", [pytest.param("tensorflow", marks=pytest.mark.thorough), "pytorch"])
def test_a_loss_that_is_no_number_ends_the_training_and_says_where(
    model: Model, sample: Rows, tmp_path: Path, framework: str
) -> None:
    profile = replace(model.spec.profile("quick"), epochs=2, batch_size=32, peak_learning_rate=1e38)
    dataset = Dataset(sample, sample, sample, "")
    with pytest.raises(TrainingError, match=rf"{framework}: the .*loss is (nan|inf) in epoch 1, step .*e\+3"):
        training.train(framework, model, profile, 1, dataset, tmp_path)
    assert not (tmp_path / framework / "weights.npz").exists()


def test_a_finished_training_is_not_done_again(tmp_path: Path, uninterrupted: dict[str, Trained]) -> None:
    uninterrupted["pytorch"].write(tmp_path / "pytorch")
    started = time.monotonic()
    again = train_sample("pytorch", tmp_path)
    assert time.monotonic() - started < 2
    assert_same_weights(again, uninterrupted["pytorch"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_killed_training_goes_on_and_ends_with_the_same_weights(
    framework: str,
    tmp_path: Path,
    uninterrupted: dict[str, Trained],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, framework, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = tmp_path / framework / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("epoch-001.*t")) + list(checkpoints.glob("epoch-001.keras")):
        assert process.poll() is None, "it ended before its second epoch did"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / framework / "weights.npz").exists(), "it was to be killed before its end"

    resumed = train_sample(framework, tmp_path)
    assert_same_weights(resumed, uninterrupted[framework])
    assert resumed.history.step_losses == uninterrupted[framework].history.step_losses
    assert [e.loss for e in resumed.history.epochs] == [
        e.loss for e in uninterrupted[framework].history.epochs
    ]
    assert not checkpoints.exists()
    folders = tmp_path, next(tmp_path_factory.getbasetemp().glob("uninterrupted*"))
    board, whole = (read(folder / "tensorboard" / framework) for folder in folders)
    for tag in whole.Tags()["tensors"]:
        assert steps(board, tag) == steps(whole, tag), tag


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("framework", [pytest.param("tensorflow", marks=pytest.mark.thorough), "pytorch"])
def test_steps_that_wait_for_their_batches_are_told(
    framework: str, tmp_path: Path, uninterrupted: dict[str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BatchPlan.epoch

    def slowly(*arguments: Any) -> Iterator[Batch]:
        for batch in made(*arguments):
            time.sleep(0.2)
            yield batch

    monkeypatch.setattr(BatchPlan, "epoch", slowly)
    waiting = train_sample(framework, tmp_path, epochs=1).history.waiting
    assert waiting is not None
    assert max(0.2, 2 * (uninterrupted[framework].history.waiting or 0)) < waiting < 1


def assert_same_weights(one: Trained, other: Trained) -> None:
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name], err_msg=name)


def test_an_embedding_whose_rows_come_more_than_once_learns_the_same_in_both() -> None:
    """Keras's own AdamW takes other steps: it squares the parts of a sparse gradient, not their sum."""
    import keras
    import torch

    from pipelines.training.keras_fit import WholeGradients

    generator = np.random.default_rng(0)
    indices = generator.integers(0, 4, (8, 5)).astype(np.int32)
    targets = generator.normal(size=(8, 5, 3)).astype(np.float32)
    before = generator.normal(size=(6, 3)).astype(np.float32)
    x = keras.Input((5,), dtype="int32")
    network = keras.Model(x, keras.layers.Embedding(6, 3, name="table")(x))
    network.layers[-1].set_weights([before])
    network.compile(WholeGradients(0.1, weight_decay=0.01, epsilon=1e-8), "mse", jit_compile=True)
    twin = torch.nn.Embedding.from_pretrained(torch.from_numpy(before.copy()), freeze=False)
    optimizer = torch.optim.AdamW(twin.parameters(), 0.1, eps=1e-8, weight_decay=0.01)
    for _ in range(3):
        network.train_on_batch(indices, targets)
        optimizer.zero_grad()
        (twin(torch.from_numpy(indices)) - torch.from_numpy(targets)).square().mean().backward()
        optimizer.step()
    found = network.layers[-1].get_weights()[0]
    np.testing.assert_allclose(found, twin.weight.detach().numpy(), rtol=0, atol=1e-4)
