"""A source framework's own answers, which everything that is shipped is compared with."""

from __future__ import annotations

from models.base import Model, Weights
from models.signature import Arrays, batch_size, joined, rows

BATCH = 500


def outputs(model: Model, framework: str, weights: Weights, inputs: Arrays) -> Arrays:
    """Run the network in the framework itself; every output of the signature."""
    parts = [rows(inputs, slice(start, start + BATCH)) for start in range(0, batch_size(inputs), BATCH)]
    if framework == "tensorflow":
        from pipelines.exporting import keras_graph

        answer = keras_graph.answering(model, keras_graph.network(model, weights))
        names = [tensor.name for tensor in model.spec.inputs]
        answers = [answer(*(part[name] for name in names)) for part in parts]
        return joined([{name: output.numpy() for name, output in own.items()} for own in answers])

    import torch

    from pipelines.exporting import torch_graph

    network = torch_graph.servable(model, weights)
    with torch.inference_mode():
        return joined(
            [torch_graph.by_name(model, network(*torch_graph.tensors(model, part))) for part in parts]
        )
