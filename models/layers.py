"""The kinds of layers that the bridge knows, and each framework's form of their weights.

The common form of a layer's weights:

    dense            kernel [in, out], bias; after a Flatten, channels come before places, as in PyTorch
    convolution      kernel [..., in / groups, out], bias; depthwise ones have as many groups as channels
    normalization    scale, offset, mean, variance
    embedding        table [words, width]
    attention        <query, key, value, output>_kernel [in, out] and _bias
    gru, lstm        kernel [in, gates * units], recurrent [units, gates * units], bias; gates in Keras's order
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = dict[str, Array]
Network: TypeAlias = Any
"""A layer of either framework."""
Convert: TypeAlias = Callable[[Network, str, Array], Array]
"""From a layer, a role and its array to the array in another form."""


def kept(_layer: Network, _role: str, array: Array) -> Array:
    """Return the array, which has the common form already."""
    return array


@dataclass(frozen=True)
class Side:
    """One framework's form of the weights of one kind of layer.

    `names` are the framework's by role. `to_common` turns one of its arrays into the common form, `to_own` back.
    `facts` are settings that change the answer and must be the same in the twin.
    """

    types: tuple[str, ...]
    names: Mapping[str, str]
    to_common: Convert = kept
    to_own: Convert = kept
    facts: Callable[[Network], dict[str, Any]] = lambda _layer: {}

    def common(self, layer: Network, arrays: Arrays) -> Arrays:
        """Return the common form of the framework's arrays, which have its names."""
        roles = {role: arrays[name] for role, name in self.names.items() if name in arrays}
        return {role: self.to_common(layer, role, array) for role, array in roles.items()}

    def own(self, layer: Network, common: Arrays) -> Arrays:
        """Return the framework's arrays, by its names."""
        return {self.names[role]: self.to_own(layer, role, array) for role, array in common.items()}


@dataclass(frozen=True)
class Rule:
    """One kind of layer in both frameworks."""

    kind: str
    keras: Side
    torch: Side


MATRICES = ("kernel", "recurrent")
"""Endings of the roles whose arrays have an input and an output dimension."""
KERNEL = {"kernel": "kernel", "bias": "bias"}
TORCH_KERNEL = {"kernel": "weight", "bias": "bias"}
NORM = {"scale": "gamma", "offset": "beta", "mean": "moving_mean", "variance": "moving_variance"}
TORCH_NORM = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}
PARTS = {"query": "q_proj_", "key": "k_proj_", "value": "v_proj_", "output": "out_proj."}
ATTENTION = {
    f"{part}_{role}": f"{'attention_output' if part == 'output' else part}/{role}"
    for part in PARTS
    for role in KERNEL
}
TORCH_ATTENTION = {
    f"{part}_{role}": start + name for part, start in PARTS.items() for role, name in TORCH_KERNEL.items()
}
RECURRENT = {"kernel": "kernel", "recurrent": "recurrent_kernel", "bias": "bias"}
TORCH_RECURRENT = {"kernel": "weight_ih_l0", "recurrent": "weight_hh_l0"}


def moved(source: tuple[int, int], destination: tuple[int, int]) -> tuple[Convert, Convert]:
    """Return the conversions of a kernel to the common form and back that move two of its dimensions."""

    def move(source: tuple[int, int], destination: tuple[int, int]) -> Convert:
        return lambda _layer, role, array: (
            np.moveaxis(array, source, destination) if role.endswith(MATRICES) else array
        )

    return move(source, destination), move(destination, source)


TORCH_ORDER = moved((0, 1), (-1, -2))
"""[out, in, ...] in PyTorch."""


def _channels_first(layer: Network, role: str, array: Array) -> Array:
    """Reorder an array by place of a flattened picture to PyTorch's order; a bias stays."""
    order = None if role == "bias" else _flattened(layer)
    return array if order is None else array[order]


def _channels_last(layer: Network, role: str, array: Array) -> Array:
    order = None if role == "bias" else _flattened(layer)
    return array if order is None else array[np.argsort(order)]


def _flattened(layer: Network) -> NDArray[np.intp] | None:
    """Return the places of PyTorch's row in Keras's, where a Flatten of channels made it; otherwise None."""
    for before in _ancestors(layer):
        if type(before).__name__ == "Flatten":
            shape = before.input.shape[1:]
            # Two dimensions are channels in PyTorch's order after a convolution, and steps of a sequence else.
            if len(shape) > 2 or (len(shape) == 2 and _convolved(before)):
                return np.moveaxis(np.arange(np.prod(shape)).reshape(shape), -1, 0).ravel()
            return None
        if not _keeps_places(before):
            return None
    return None


def _convolved(layer: Network) -> bool:
    for before in _ancestors(layer):
        kind = type(before).__name__
        if kind.startswith(("Conv", "DepthwiseConv")):
            return True
        if not _keeps_places(before) and "Pooling" not in kind:
            return False
    return False


def _ancestors(layer: Network) -> Iterator[Network]:
    """Yield the layers before one, up to the first that has several inputs or none."""
    while (nodes := getattr(layer, "_inbound_nodes", None)) and len(nodes[0].parent_nodes) == 1:
        layer = nodes[0].parent_nodes[0].operation
        yield layer


def _keeps_places(layer: Network) -> bool:
    """Return True if each place of the output is made from the same place of the input."""
    if type(layer).__name__ == "InputLayer":
        return False
    mixes = getattr(layer, "weights", None) and not type(layer).__name__.endswith("Normalization")
    return not mixes and getattr(layer.output, "shape", None) == getattr(layer.input, "shape", ())


def _depthwise(_layer: Network, role: str, array: Array) -> Array:
    return array.reshape(*array.shape[:-2], 1, -1) if role == "kernel" else array


def _depthwise_own(layer: Network, role: str, array: Array) -> Array:
    return array.reshape(*array.shape[:-2], -1, layer.depth_multiplier) if role == "kernel" else array


def _convolution_facts(layer: Network) -> dict[str, Any]:
    groups = layer.input.shape[-1] if hasattr(layer, "depth_multiplier") else getattr(layer, "groups", 1)
    return {"strides": tuple(layer.strides), "dilation": tuple(layer.dilation_rate), "groups": groups}


def _torch_convolution_facts(module: Network) -> dict[str, Any]:
    return {"strides": module.stride, "dilation": module.dilation, "groups": module.groups}


def _attention(_layer: Network, role: str, array: Array) -> Array:
    """Join the dimension of the heads with that beside it."""
    if role == "output_kernel":
        return array.reshape(-1, array.shape[-1])
    return array.reshape(len(array), -1) if role.endswith("kernel") else array.ravel()


def _attention_own(layer: Network, role: str, array: Array) -> Array:
    part, _, kind = role.partition("_")
    heads = (layer.num_heads, layer.key_dim if part in ("query", "key") else layer.value_dim)
    if part == "output":
        return array.reshape(*heads, -1) if kind == "kernel" else array
    return array.reshape(-1, *heads) if kind == "kernel" else array.reshape(heads)


class TorchAttention(Side):
    """PyTorch's attention, which may hold three projections in one array."""

    def common(self, layer: Network, arrays: Arrays) -> Arrays:
        apart = dict(arrays)
        for kind in ("weight", "bias"):
            if (packed := apart.pop(f"in_proj_{kind}", None)) is not None:
                apart |= zip((f"{part}_proj_{kind}" for part in "qkv"), np.split(packed, 3), strict=True)
        return super().common(layer, apart)

    def own(self, layer: Network, common: Arrays) -> Arrays:
        arrays = super().own(layer, common)
        for kind in ("weight", "bias") if layer._qkv_same_embed_dim else ("bias",):
            if parts := [arrays.pop(name) for part in "qkv" if (name := f"{part}_proj_{kind}") in arrays]:
                arrays[f"in_proj_{kind}"] = np.concatenate(parts)
        return arrays


class TorchRecurrent(Side):
    """PyTorch's recurrent layers, which have two biases: Keras's GRU has both, its LSTM the sum."""

    def common(self, layer: Network, arrays: Arrays) -> Arrays:
        ordered = {name: _gates(layer, array) for name, array in arrays.items()}
        result = super().common(layer, ordered)
        if "bias_ih_l0" in ordered:
            biases = np.stack([ordered["bias_ih_l0"], ordered["bias_hh_l0"]])
            result["bias"] = biases if _is_gru(layer) else biases.sum(axis=0)
        return result

    def own(self, layer: Network, common: Arrays) -> Arrays:
        arrays = super().own(layer, {role: array for role, array in common.items() if role != "bias"})
        if (bias := common.get("bias")) is not None:
            first, second = bias if _is_gru(layer) else (bias, np.zeros_like(bias))
            arrays |= {"bias_ih_l0": first, "bias_hh_l0": second}
        return {name: _gates(layer, array) for name, array in arrays.items()}


def _is_gru(module: Network) -> bool:
    return type(module).__name__ == "GRU"


def _gates(module: Network, array: Array) -> Array:
    """Swap a GRU's gates between PyTorch's order (reset, update, new) and Keras's (update, reset, new)."""
    if not _is_gru(module):
        return array
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])


def _epsilon(layer: Network) -> dict[str, Any]:
    return {"epsilon": layer.epsilon if hasattr(layer, "epsilon") else layer.eps}


def _norm_facts(layer: Network) -> dict[str, Any]:
    # PyTorch's momentum is the weight of the new batch, Keras's that of the old average.
    momentum = layer.momentum if hasattr(layer, "epsilon") else 1 - (layer.momentum or 0)
    return _epsilon(layer) | {"momentum": momentum}


def _heads(layer: Network) -> dict[str, Any]:
    return {"heads": layer.num_heads}


def _reset(layer: Network) -> dict[str, Any]:
    """PyTorch always resets after the product."""
    return {"reset after the product": getattr(layer, "reset_after", True)}


FLATTENED = _channels_first, _channels_last
RULES = (
    Rule("dense", Side(("Dense",), KERNEL, *FLATTENED), Side(("Linear",), TORCH_KERNEL, *TORCH_ORDER)),
    Rule(
        "convolution",
        Side(("Conv1D", "Conv2D", "Conv3D"), KERNEL, facts=_convolution_facts),
        Side(("Conv1d", "Conv2d", "Conv3d"), TORCH_KERNEL, *TORCH_ORDER, _torch_convolution_facts),
    ),
    # PyTorch has a convolution with as many groups as channels instead.
    Rule(
        "convolution",
        Side(("DepthwiseConv1D", "DepthwiseConv2D"), KERNEL, _depthwise, _depthwise_own, _convolution_facts),
        Side((), TORCH_KERNEL),
    ),
    # Keras keeps its kernel as [..., out, in], PyTorch as [in, out, ...].
    Rule(
        "transposed convolution",
        Side(("Conv1DTranspose", "Conv2DTranspose"), KERNEL, *moved((-1, -2), (-2, -1)), _convolution_facts),
        Side(
            ("ConvTranspose1d", "ConvTranspose2d"),
            TORCH_KERNEL,
            *moved((0, 1), (-2, -1)),
            _torch_convolution_facts,
        ),
    ),
    Rule(
        "batch normalization",
        Side(("BatchNormalization",), NORM, *FLATTENED, _norm_facts),
        Side(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), TORCH_NORM, facts=_norm_facts),
    ),
    Rule(
        "layer normalization",
        Side(("LayerNormalization",), NORM, *FLATTENED, _epsilon),
        Side(("LayerNorm",), TORCH_NORM, facts=_epsilon),
    ),
    Rule(
        "embedding", Side(("Embedding",), {"table": "embeddings"}), Side(("Embedding",), {"table": "weight"})
    ),
    Rule(
        "attention",
        Side(("MultiHeadAttention",), ATTENTION, _attention, _attention_own, _heads),
        TorchAttention(("MultiheadAttention",), TORCH_ATTENTION, *TORCH_ORDER, _heads),
    ),
    *(
        Rule(
            kind.lower(),
            Side((kind,), RECURRENT, facts=_reset),
            TorchRecurrent((kind,), TORCH_RECURRENT, *TORCH_ORDER, _reset),
        )
        for kind in ("GRU", "LSTM")
    ),
)
