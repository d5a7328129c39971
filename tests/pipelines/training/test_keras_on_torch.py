"""The Keras network on PyTorch's backend, in processes of its own; each imports this file, which imports no Keras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.base import Model, ModelError
from models.data import Rows
from pipelines.training import keras_on_torch, workers
from pipelines.training.batches import BatchPlan


@dataclass(frozen=True)
class OfTensorflow(Model):
    """The model with a layer that calls TensorFlow."""

    def build_keras(self) -> Any:
        import keras
        import tensorflow as tf

        class Softsign(keras.layers.Layer):
            def call(self, x: Any) -> Any:
                return tf.nn.softsign(x)

        network = super().build_keras()
        return keras.Model(network.input, Softsign()(network.output))


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_layer_that_calls_tensorflow_is_told(model: Model, sample: Rows, tmp_path: Path) -> None:
    own, folders = OfTensorflow(model.spec, model.package), (tmp_path / "checkpoints", tmp_path / "logs")
    plan = BatchPlan(own, sample, model.spec.profile("quick"), 1)
    with pytest.raises(ModelError, match=r"fashion does not run in Keras on PyTorch: .*\(tf\.\*\) run on"):
        workers.run(1, keras_on_torch.fit, own, plan, sample, *folders)
    assert not folders[0].exists()
