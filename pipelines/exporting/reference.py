"""The answers of a source, a framework or an imported file, which its artifacts are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from models.base import FRAMEWORKS, Model, Weights
from models.signature import Arrays
from pipelines.exporting import formats

BATCH = 500


def outputs(model: Model, origin: str, weights: Weights, inputs: Arrays) -> Arrays:
    """Run the source on rows. Returns every output of the signature, row by row."""
    signature = model.spec.signature
    return signature.gathered(answers(model, origin, weights, signature.calls(inputs, BATCH)))


def answers(model: Model, origin: str, weights: Weights, calls: Sequence[Arrays]) -> list[Arrays]:
    """Return the source's answer to each call."""
    if origin not in FRAMEWORKS:
        assert model.spec.artifact is not None
        return formats.answers(model.spec.artifact, [t.name for t in model.spec.task.outputs], calls)
    if origin == "tensorflow":
        from pipelines.exporting import keras_graph

        answer = keras_graph.answering(model, keras_graph.network(model, weights))
        names = [tensor.name for tensor in model.spec.inputs]
        found = [answer(*(call[name] for name in names)) for call in calls]
        return [{name: output.numpy() for name, output in own.items()} for own in found]

    import torch

    from pipelines.exporting import torch_graph

    network = torch_graph.servable(model, weights)
    with torch.inference_mode():
        return [torch_graph.by_name(model, network(*torch_graph.tensors(model, call))) for call in calls]
