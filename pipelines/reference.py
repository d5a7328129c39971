"""A source framework's own answers, which everything that is shipped is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.base import Model, Weights
from serving.golden import Golden
from serving.targets.base import Images

BATCH = 500


def logits(model: Model, framework: str, weights: Weights, images: Images) -> NDArray[np.float32]:
    """Run the network in the framework itself: pictures float32 [N, H, W, C] -> float32 [N, classes]."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    if framework == "tensorflow":
        from pipelines.exporting import keras_graph

        keras_network = keras_graph.network(model, weights)
        return np.concatenate([keras_network(part, training=False).numpy() for part in parts])

    import torch

    from pipelines.exporting import torch_graph

    torch_network = torch_graph.servable(model, weights)
    with torch.inference_mode():
        return np.concatenate([torch_network(torch.from_numpy(part))[0].numpy() for part in parts])


def golden(model: Model, framework: str, weights: Weights, images: Images) -> Golden:
    """These pictures with the framework's own answers, to travel with every artifact of these weights."""
    found = logits(model, framework, weights, images)
    odds = np.exp(found - found.max(axis=1, keepdims=True))
    outputs = dict(zip(model.spec.output_names, (found, odds / odds.sum(axis=1, keepdims=True)), strict=True))
    return Golden({model.spec.input_name: images}, outputs, model.spec.tolerances.logits)
