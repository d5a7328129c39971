"""Records and what Trainer makes of them: both need TensorFlow, and no TFX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.base import Model
from models.data import Dataset, Rows
from pipelines.tfx import EXTRA
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained
from tests.pipelines.tfx import samples

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def dataset(sample: Rows) -> Dataset:
    return samples.dataset(sample)


@pytest.fixture(scope="module")
def records(model: Model, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.tfx import examples

    folder = tmp_path_factory.mktemp("records")
    examples.write(model.spec, dataset.splits, folder / "1")
    return folder / "1"


def test_pictures_come_back_in_their_order_however_records_were_shuffled(
    model: Model, dataset: Dataset, records: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    from pipelines.tfx import examples

    order = np.random.default_rng(1).permutation(len(dataset.test))
    raw = list(tf.data.TFRecordDataset(str(records / "test.gz"), "GZIP").as_numpy_iterator())
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for number, half in enumerate(np.array_split(order, 2)):
        with tf.io.TFRecordWriter(str(tmp_path / f"{number}.gz"), options) as writer:
            for place in half:
                writer.write(raw[place])
    found = examples.read_folder(tmp_path, model.spec)
    assert np.array_equal(found.inputs["image"], dataset.test.inputs["image"])
    assert np.array_equal(found.targets, dataset.test.targets)


def test_trainer_trains_as_every_run_does_and_answers_examples_and_pictures_alike(
    model: Model, dataset: Dataset, records: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    from pipelines.tfx import trainer
    from pipelines.training import keras_fit

    folder = tmp_path / "model"
    config = {"model": "fashion", "profile": dataclasses.asdict(samples.PROFILE), "seed": 1}
    trainer.run_fn(
        SimpleNamespace(
            custom_config=config,
            train_files=[str(records / "train.gz")],
            eval_files=[str(records / "validation.gz")],
            model_run_dir=str(tmp_path / "run"),
            serving_model_dir=str(folder),
        )
    )
    trained = Trained.read("tensorflow", folder / EXTRA)
    plan = BatchPlan(model, dataset.train, samples.PROFILE, 1)
    expected = keras_fit.fit(model, plan, dataset.validation, tmp_path / "checkpoints", tmp_path / "logs")
    assert trained is not None
    # Threads add in an order of their own, and AdamW's first steps magnify that: the limit of two frameworks holds.
    losses = pytest.approx(expected.history.step_losses, rel=samples.PROFILE.training_loss)
    assert trained.history.step_losses == losses

    signatures = tf.saved_model.load(str(folder)).signatures
    assert {"serving_default", "encoded", "serving_examples"} <= set(signatures)
    raw = list(tf.data.TFRecordDataset(str(records / "test.gz"), "GZIP").as_numpy_iterator())
    pictures = dataset.test.take(slice(len(raw))).served(model.spec.signature)["image"]
    by_example = signatures["serving_examples"](examples=tf.constant(raw))
    by_picture = signatures["serving_default"](image=tf.constant(pictures))
    for name in ("logits", "probabilities"):
        assert np.allclose(by_example[name], by_picture[name], atol=1e-6)
