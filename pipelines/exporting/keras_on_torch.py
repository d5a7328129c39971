"""Keras's own export on PyTorch's backend, a .pt2 program, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from models.base import Model, ModelError, Weights
from pipelines.exporting.base import ExportError, one_line, quiet
from pipelines.training import workers
from pipelines.training.keras_on_torch import backend


def write(model: Model, weights: Weights, path: Path) -> None:
    """Write the network with its task's outputs.

    Raises `ModelError` where the network has several inputs or does not run on PyTorch, `ExportError` where Keras
    cannot export it.
    """
    if len(model.spec.inputs) > 1:
        raise ModelError(
            f"Keras's .pt2 takes all inputs of {model.spec.name} as one list: servers pass each alone"
        )
    workers.run(1, _write, model, weights, path)


def _write(model: Model, weights: Weights, path: Path) -> None:
    with backend(model):
        import keras

        from pipelines.exporting.torch_graph import dynamic_shapes

        network = model.build_keras()
        model.to_keras(weights, network)
        outputs = keras.layers.Lambda(model.spec.task.torch_outputs)(network.output)
        network = keras.Model(network.input, outputs)
        network.trainable = False
    # Keras takes 1 for a size that it is not told (keras#22076).
    inputs = [
        keras.InputSpec(t.dtype, [n if isinstance(n, int) else None for n in t.shape], name=t.name)
        for t in model.spec.inputs
    ]
    try:
        with quiet():
            network.export(path, "torch", False, inputs, dynamic_shapes=dynamic_shapes(model))
    except Exception as error:
        raise ExportError(f"Keras on PyTorch cannot export {model.spec.name}: {one_line(error)}") from error
