"""The PyTorch network as it is shipped: weights set, frozen, with all outputs in the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import Model, Weights
from models.signature import Arrays


class Servable(nn.Module):
    """The inputs in the signature's order -> the outputs in its order."""

    def __init__(self, model: Model, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.names = [tensor.name for tensor in model.spec.inputs]
        self.task = model.spec.task

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.task.torch_outputs(self.network(**dict(zip(self.names, inputs, strict=True))))


def servable(model: Model, weights: Weights) -> Servable:
    """Build the network, set its weights, and put it into inference mode."""
    network = model.build_torch()
    model.to_torch(weights, network)
    return Servable(model, network).eval().requires_grad_(False)


def example(model: Model) -> tuple[Tensor, ...]:
    """Inputs of two rows to trace with: PyTorch's exporter would take a batch of one as a constant."""
    return tuple(torch.ones((2, *t.row), dtype=getattr(torch, t.dtype)) for t in model.spec.inputs)


def tensors(model: Model, inputs: Arrays) -> tuple[Tensor, ...]:
    """Inputs by name as `Servable` takes them."""
    return tuple(torch.from_numpy(inputs[tensor.name]) for tensor in model.spec.inputs)


def by_name(model: Model, outputs: tuple[Tensor, ...]) -> Arrays:
    """What `Servable` gives, by name."""
    return {t.name: output.numpy() for t, output in zip(model.spec.task.outputs, outputs, strict=True)}
