"""Training in TensorFlow: `keras.Model.fit`, resumed from its last epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.base import Model
from models.data import Rows
from pipelines.training.batches import BatchPlan
from pipelines.training.journal import Journal
from pipelines.training.record import Epoch, Trained

CUDA = tf.sysconfig.get_build_info().get("cuda_version")
OUT_OF_MEMORY = tf.errors.ResourceExhaustedError
POLICIES = {"float32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


@keras.saving.register_keras_serializable("tandem")
class PlannedRate(keras.optimizers.schedules.LearningRateSchedule):
    """The plan's learning rates, step by step."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = np.asarray(rates, np.float32)

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        place = keras.ops.minimum(keras.ops.cast(step, "int32"), len(self.rates) - 1)
        return keras.ops.take(self.rates, place)

    def get_config(self) -> dict[str, object]:
        return {"rates": self.rates.tolist()}


@keras.saving.register_keras_serializable("tandem")
class WholeGradients(keras.optimizers.AdamW):
    """AdamW for embeddings, too. Keras squares the parts of a sparse gradient one by one where an index comes more than
    once, not their sum: its first step is up to three times as long as PyTorch's."""

    def apply(
        self,
        grads: list[tf.Tensor | tf.IndexedSlices],
        trainable_variables: list[keras.Variable] | None = None,
    ) -> None:
        super().apply([tf.convert_to_tensor(gradient) for gradient in grads], trainable_variables)


def gpus() -> int:
    """Return the number of GPUs that TensorFlow sees."""
    return len(tf.config.list_physical_devices("GPU"))


def fit(model: Model, plan: BatchPlan, validation: Rows, checkpoints: Path, logs: Path) -> Trained:
    """Train, or go on from the last checkpoint; ends with the same weights either way.

    With several devices this is a process's first use of TensorFlow.
    """
    keras.utils.set_random_seed(plan.seed)
    device = plan.profile.placed(gpus())
    journal = Journal(plan, checkpoints, logs, ".keras", device)
    # Of the process: the networks that are exported are built later, in float32.
    keras.config.set_dtype_policy(POLICIES[plan.profile.precision])
    try:
        with _strategy(device, plan.profile.devices).scope():
            return run(model, plan, validation, journal)
    finally:
        keras.config.set_dtype_policy("float32")


def _strategy(device: str, count: int) -> tf.distribute.Strategy:
    if device == "gpu":
        tf.config.experimental.enable_op_determinism()
    elif count > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    if count == 1:
        return tf.distribute.OneDeviceStrategy(device) if gpus() else tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"{device}:{number}" for number in range(count)])


def run(model: Model, plan: BatchPlan, validation: Rows, journal: Journal, **compiled: Any) -> Trained:  # noqa: ANN401
    """Train on the devices, in the precision and on the backend that are set; `compiled` are `compile_network`'s."""
    if journal.checkpoint is not None:
        network = keras.saving.load_model(journal.checkpoint)
    else:
        network = compile_network(model, plan, **compiled)
    record = Record(journal)
    network.fit(
        batches(plan, journal.first, record.arrivals),
        initial_epoch=journal.first,
        epochs=plan.profile.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        shuffle=False,
        verbose=0,
        validation_data=(
            _arranged(tuple(validation.served(model.spec.signature).values())),
            model.spec.task.keras_targets(validation.targets),
        ),
        validation_batch_size=500,
        callbacks=[record],
    )
    return Trained("tensorflow", model.from_keras(network), journal.history)


def compile_network(
    model: Model, plan: BatchPlan, optimizer: type[keras.optimizers.AdamW] = WholeGradients, xla: bool = True
) -> keras.Model:
    """The network with the initial weights, ready for `fit`."""
    network = model.build_keras()
    model.to_keras(model.initial_weights(plan.seed), network)
    network.compile(
        optimizer=optimizer(
            PlannedRate(plan.learning_rates().tolist()), weight_decay=plan.profile.weight_decay, epsilon=1e-8
        ),
        loss=model.spec.task.keras_loss(),
        metrics=[model.spec.task.keras_metric()],
        # XLA halves the time of a step on CPUs, and compiles for one device.
        jit_compile=xla and plan.profile.devices == 1,
    )
    return network


def batches(
    plan: BatchPlan, first_epoch: int, arrivals: dict[tuple[int, int], float] | None = None
) -> tf.data.Dataset:
    """All batches from `first_epoch` on, one after the other; made while the one before is trained on.

    `arrivals` gets by epoch and step when each was made, by the monotonic clock.
    """
    task, size = plan.model.spec.task, plan.profile.batch_size

    def every() -> Iterator[tuple[Any, NDArray[Any]]]:
        for epoch in range(first_epoch, plan.profile.epochs):
            for step, (inputs, targets) in enumerate(plan.epoch(epoch)):
                batch = _arranged(tuple(inputs.values())), task.keras_targets(targets)
                if arrivals is not None:
                    arrivals[epoch, step] = time.monotonic()
                yield batch

    inputs = _arranged(
        tuple(
            tf.TensorSpec((size, *(n if n > 0 else None for n in t.row)), t.dtype)
            for t in plan.model.spec.inputs
        )
    )
    targets = tf.TensorSpec((size, *task.outputs[0].row), tf.float32)
    return tf.data.Dataset.from_generator(every, output_signature=(inputs, targets)).prefetch(2)


def _arranged(inputs: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """As a Keras model takes its inputs: one alone, several in their order."""
    return inputs if len(inputs) > 1 else inputs[0]


class Record(keras.callbacks.Callback):
    """Tells the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.total = 0.0
        self.arrivals: dict[tuple[int, int], float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.journal.asks()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        self.journal.gets(self.arrivals.pop((len(self.journal.history.epochs), batch)))
        # Keras reports the mean since the epoch's start.
        before, self.total = self.total if batch else 0.0, float(logs["loss"]) * (batch + 1)
        if self.journal.wants(batch):
            self.journal.step(batch, self.total - before)
        self.journal.asks()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Batch normalization's running statistics are those of each device's rows until here."""
        if self.journal.plan.profile.devices == 1:
            return
        for variable in self.model.non_trainable_variables:
            parts = self.model.distribute_strategy.experimental_local_results(variable.value)
            if len(parts) > 1 and variable.value.dtype.is_floating:
                variable.assign(tf.reduce_mean(tf.stack(parts), axis=0))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        watched = self.journal.watched
        figures = Epoch(*(logs[name] for name in ("loss", watched, "val_loss", f"val_{watched}")))
        model = self.journal.plan.model
        self.journal.epoch(figures, self.model.save, lambda: model.from_keras(self.model))
