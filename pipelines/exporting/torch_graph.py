"""The PyTorch network as it is shipped: weights set, frozen, with both outputs in the graph."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

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


def folded(model: Model, weights: Weights) -> nn.Module:
    """As `servable`, for PyTorch to serve: batch norms folded into their convolutions, weights channels last.

    A network that `torch.fx` cannot trace keeps its batch norms.
    """
    result: Any = servable(model, weights)
    with contextlib.suppress(TraceError, TypeError, NotImplementedError):
        result.network = fuse(result.network)
    served: nn.Module = result.to(memory_format=torch.channels_last)
    return served


def program(network: nn.Module, model: Model) -> ExportedProgram:
    """`torch.export` for any number of rows; without this machine's paths, so that equal weights give equal bytes."""
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (example(model),), dynamic_shapes=shapes)
    for node in exported.graph.nodes:
        for key in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(key, None)
    return exported


def example(model: Model) -> Tensor:
    """Two grey pictures to trace with: PyTorch's exporter would take a batch of one as a constant."""
    return torch.full((2, *model.spec.image_shape), 0.5)
