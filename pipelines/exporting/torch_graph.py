"""The PyTorch network as it is shipped: weights set, frozen, with both outputs in the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import Model, Weights


class Servable(nn.Module):
    """image float32 [N, H, W, C], values 0..1 -> logits and probabilities, float32 [N, classes]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(image)
        return logits, torch.softmax(logits, dim=1)


def servable(model: Model, weights: Weights) -> Servable:
    """Build the network, set its weights, and put it into inference mode."""
    network = model.build_torch()
    model.to_torch(weights, network)
    return Servable(network).eval().requires_grad_(False)


def example(model: Model) -> Tensor:
    """Two grey pictures to trace with: PyTorch's exporter would take a batch of one as a constant."""
    return torch.full((2, *model.spec.image_shape), 0.5)
