"""The PyTorch network as it is shipped: weights set, frozen, with all outputs in the graph."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.optimization import fuse

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import imported


class Servable(nn.Module):
    """The inputs in the signature's order -> the outputs in its order."""

    def __init__(self, model: Model, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.names = [tensor.name for tensor in model.spec.inputs]
        self.task = model.spec.task
        # A model that is not batched is a network of batches all the same, unless it came as a file.
        self.alone = not model.spec.batched and model.spec.artifact is None
        self.positional = model.spec.artifact is not None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self.alone:
            inputs = tuple(tensor.unsqueeze(0) for tensor in inputs)
        if self.positional:
            return self.task.torch_outputs(self.network(*inputs))
        outputs = self.task.torch_outputs(self.network(**dict(zip(self.names, inputs, strict=True))))
        return tuple(output.squeeze(0) for output in outputs) if self.alone else outputs


def servable(model: Model, weights: Weights) -> Servable:
    """Build the network, set its weights, and put it into inference mode."""
    if model.spec.artifact is not None:
        # An exported program is in the mode that it was exported in.
        program = imported.exported_program(model.spec.artifact).module()
        return Servable(model, program).requires_grad_(False)
    network = model.build_torch()
    model.to_torch(weights, network)
    return Servable(model, network).eval().requires_grad_(False)


def folded(model: Model, weights: Weights) -> nn.Module:
    """As `servable`, for PyTorch to serve: batch norms folded into their convolutions, weights channels last. A
    network that `torch.fx` cannot trace keeps its batch norms."""
    result = servable(model, weights)
    if result.positional:
        return result
    with contextlib.suppress(Exception):
        result.network = fuse(result.network)
    channels_last: nn.Module = result.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last


def program(network: nn.Module, model: Model, most: int | None = None) -> ExportedProgram:
    """`torch.export` for all free sizes, up to `most` where that is given; without this machine's paths, so that equal
    weights give equal bytes."""
    exported = torch.export.export(network, example(model, most), dynamic_shapes=dynamic_shapes(model, most))
    for node in exported.graph.nodes:
        for key in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(key, None)
    return exported


def example(model: Model, most: int | None = None) -> tuple[Tensor, ...]:
    """Inputs to trace with; no free size is one, which PyTorch's exporter would take as a constant.

    Where there is a largest size it is taken: PyTorch chooses a convolution's backend by the size that it sees, and
    narrows the range to those with the same one (2 to 15).
    """
    sizes = {name: most or 2 + place for place, name in enumerate(_free(model))}
    return tuple(
        torch.ones([sizes[n] if isinstance(n, str) else n for n in t.shape], dtype=getattr(torch, t.dtype))
        for t in model.spec.inputs
    )


def dynamic_shapes(model: Model, most: int | None = None) -> tuple[Any, ...]:
    """The free sizes by their names, for PyTorch's exporters: of a network's one argument `inputs`."""
    free = {name: torch.export.Dim(name, max=most) for name in _free(model)}
    return (
        tuple(
            {place: free[size] for place, size in enumerate(t.shape) if isinstance(size, str)}
            for t in model.spec.inputs
        ),
    )


def _free(model: Model) -> list[str]:
    """The names of the free sizes, the batch first."""
    return list(dict.fromkeys(size for t in model.spec.inputs for size in t.shape if isinstance(size, str)))


def tensors(model: Model, inputs: Arrays) -> tuple[Tensor, ...]:
    """Inputs by name as `Servable` takes them."""
    return tuple(torch.from_numpy(inputs[tensor.name]) for tensor in model.spec.inputs)


def by_name(model: Model, outputs: tuple[Tensor, ...]) -> Arrays:
    """Return the outputs of `Servable` by name."""
    return {t.name: output.numpy() for t, output in zip(model.spec.task.outputs, outputs, strict=True)}
