"""The PyTorch network as it is shipped: weights set, frozen, with all outputs in the graph."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

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
    inputs = example(model)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    exported = torch.export.export(network, inputs, dynamic_shapes=(shapes,))
    for node in exported.graph.nodes:
        for key in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(key, None)
    return exported


def example(model: Model) -> tuple[Tensor, ...]:
    """Inputs of two rows to trace with: PyTorch's exporter would take a batch of one as a constant."""
    return tuple(torch.ones((2, *t.row), dtype=getattr(torch, t.dtype)) for t in model.spec.inputs)


def tensors(model: Model, inputs: Arrays) -> tuple[Tensor, ...]:
    """Inputs by name as `Servable` takes them."""
    return tuple(torch.from_numpy(inputs[tensor.name]) for tensor in model.spec.inputs)


def by_name(model: Model, outputs: tuple[Tensor, ...]) -> Arrays:
    """What `Servable` gives, by name."""
    return {t.name: output.numpy() for t, output in zip(model.spec.task.outputs, outputs, strict=True)}
