"""The kinds of layers that the bridge knows, and how each framework keeps their weights.

The form of a layer's weights is neither framework's:

    dense            kernel [in, out], bias; after a Flatten, channels come before places, as in PyTorch
    convolution      kernel [..., in / groups, out], bias; depthwise ones have as many groups as channels
    normalization    scale, offset, mean, variance
    embedding        table [words, width]
    attention        <query, key, value, output>_kernel [in, out] and _bias
    gru, lstm        kernel [in, gates * units], recurrent [units, gates * units], bias; gates in Keras's order
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = dict[str, Array]
Network: TypeAlias = Any
"""A layer of either framework."""


@dataclass(frozen=True)
class Side:
    """How one framework keeps the weights of one kind of layer.

    `common` turns the framework's arrays, by their names there, into the common form; `own` turns them back. `facts`
    are settings that change the answer and must be the same in the twin.
    """

    types: tuple[str, ...]
    common: Callable[[Network, Arrays], Arrays]
    own: Callable[[Network, Arrays], Arrays]
    facts: Callable[[Network], dict[str, Any]] = lambda _layer: {}


@dataclass(frozen=True)
class Rule:
    """One kind of layer in both frameworks."""

    kind: str
    keras: Side
    torch: Side


def renamed(
    types: tuple[str, ...], names: dict[str, str], facts: Callable[[Network], dict[str, Any]]
) -> Side:
    """A side whose arrays have the common form, under names of its own: role to name."""
    roles = {name: role for role, name in names.items()}
    return Side(
        types,
        lambda _layer, arrays: {roles[name]: array for name, array in arrays.items()},
        lambda _layer, common: {names[role]: array for role, array in common.items()},
        facts,
    )


def _channels_first(layer: Network, arrays: Arrays) -> Arrays:
    """What is kept for each place of a flattened picture, in PyTorch's order; biases are kept for none."""
    order = _flattened(layer)
    return {n: array if order is None or n == "bias" else array[order] for n, array in arrays.items()}


def _channels_last(layer: Network, arrays: Arrays) -> Arrays:
    order = _flattened(layer)
    back = None if order is None else np.argsort(order)
    return {n: array if back is None or n == "bias" else array[back] for n, array in arrays.items()}


def _flattened(layer: Network) -> NDArray[np.intp] | None:
    """Where PyTorch's places of a row lie in Keras's, if a Flatten of channels has made it; None where none has."""
    node = _inbound(layer)
    while node is not None:
        before = node.operation
        if type(before).__name__ == "Flatten":
            shape = before.input.shape[1:]
            # Two dimensions are channels in PyTorch's order after a convolution, and steps of a sequence else.
            if len(shape) > 2 or (len(shape) == 2 and _convolved(before)):
                return np.moveaxis(np.arange(np.prod(shape)).reshape(shape), -1, 0).ravel()
            return None
        if not _keeps_places(before):
            return None
        node = _inbound(before)
    return None


def _convolved(layer: Network) -> bool:
    while (node := _inbound(layer)) is not None:
        layer = node.operation
        if type(layer).__name__.startswith(("Conv", "DepthwiseConv")):
            return True
        if not _keeps_places(layer) and "Pooling" not in type(layer).__name__:
            return False
    return False


def _inbound(layer: Network) -> Any:  # noqa: ANN401
    """The node that a layer takes its input from, where there is just one."""
    nodes = getattr(layer, "_inbound_nodes", None)
    return nodes[0].parent_nodes[0] if nodes and len(nodes[0].parent_nodes) == 1 else None


def _keeps_places(layer: Network) -> bool:
    """Whether each place of the output is made from the same place of the input."""
    if type(layer).__name__ == "InputLayer":
        return False
    mixes = getattr(layer, "weights", None) and not type(layer).__name__.endswith("Normalization")
    return not mixes and getattr(layer.output, "shape", None) == getattr(layer.input, "shape", ())


def _torch_matrix(_module: Network, arrays: Arrays) -> Arrays:
    return {"kernel": arrays["weight"].T} | _bias(arrays)


def _torch_matrix_own(_module: Network, common: Arrays) -> Arrays:
    return {"weight": common["kernel"].T} | _bias(common)


def _bias(arrays: Arrays) -> Arrays:
    return {"bias": arrays["bias"]} if "bias" in arrays else {}


def _torch_kernel(_module: Network, arrays: Arrays) -> Arrays:
    kernel = arrays["weight"]
    return {"kernel": kernel.transpose(*range(2, kernel.ndim), 1, 0)} | _bias(arrays)


def _torch_kernel_own(_module: Network, common: Arrays) -> Arrays:
    kernel = common["kernel"]
    return {"weight": kernel.transpose(kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))} | _bias(
        common
    )


def _depthwise(_layer: Network, arrays: Arrays) -> Arrays:
    kernel = arrays["kernel"]
    return arrays | {"kernel": kernel.reshape(*kernel.shape[:-2], 1, -1)}


def _depthwise_own(layer: Network, common: Arrays) -> Arrays:
    kernel = common["kernel"]
    return common | {"kernel": kernel.reshape(*kernel.shape[:-2], -1, layer.depth_multiplier)}


def _swapped(_layer: Network, arrays: Arrays) -> Arrays:
    """Keras keeps the kernel of a transposed convolution as [..., out, in]."""
    return arrays | {"kernel": np.swapaxes(arrays["kernel"], -1, -2)}


def _torch_transposed(_module: Network, arrays: Arrays) -> Arrays:
    return {"kernel": np.moveaxis(arrays["weight"], (0, 1), (-2, -1))} | _bias(arrays)


def _torch_transposed_own(_module: Network, common: Arrays) -> Arrays:
    return {"weight": np.moveaxis(common["kernel"], (-2, -1), (0, 1))} | _bias(common)


def _keras_convolution_facts(layer: Network) -> dict[str, Any]:
    groups = layer.input.shape[-1] if hasattr(layer, "depth_multiplier") else getattr(layer, "groups", 1)
    return {"strides": tuple(layer.strides), "dilation": tuple(layer.dilation_rate), "groups": groups}


def _torch_convolution_facts(module: Network) -> dict[str, Any]:
    return {"strides": module.stride, "dilation": module.dilation, "groups": module.groups}


def _keras_attention(_layer: Network, arrays: Arrays) -> Arrays:
    common = {}
    for name, array in arrays.items():
        part, _, role = name.partition("/")
        if part == "attention_output":
            common[f"output_{role}"] = array.reshape(-1, array.shape[-1]) if role == "kernel" else array
        else:
            common[f"{part}_{role}"] = (
                array.reshape(array.shape[0], -1) if role == "kernel" else array.ravel()
            )
    return common


def _keras_attention_own(layer: Network, common: Arrays) -> Arrays:
    arrays = {}
    for name, array in common.items():
        part, _, role = name.partition("_")
        heads = (layer.num_heads, layer.value_dim if part == "value" else layer.key_dim)
        if part == "output":
            heads = (layer.num_heads, layer.value_dim)
            own = array.reshape(*heads, -1) if role == "kernel" else array
            arrays[f"attention_output/{role}"] = own
        else:
            arrays[f"{part}/{role}"] = array.reshape(*((-1,) if role == "kernel" else ()), *heads)
    return arrays


PARTS = ("query", "key", "value")


def _torch_attention(_module: Network, arrays: Arrays) -> Arrays:
    common = {"output_kernel": arrays["out_proj.weight"].T}
    kernels = (
        np.split(arrays["in_proj_weight"], 3)
        if "in_proj_weight" in arrays
        else [arrays[f"{part[0]}_proj_weight"] for part in PARTS]
    )
    common |= {f"{part}_kernel": kernel.T for part, kernel in zip(PARTS, kernels, strict=True)}
    if "in_proj_bias" in arrays:
        biases = np.split(arrays["in_proj_bias"], 3)
        common |= {f"{part}_bias": bias for part, bias in zip(PARTS, biases, strict=True)}
        common["output_bias"] = arrays["out_proj.bias"]
    return common


def _torch_attention_own(module: Network, common: Arrays) -> Arrays:
    arrays = {"out_proj.weight": common["output_kernel"].T}
    kernels = [common[f"{part}_kernel"].T for part in PARTS]
    if module._qkv_same_embed_dim:
        arrays["in_proj_weight"] = np.concatenate(kernels)
    else:
        arrays |= {f"{part[0]}_proj_weight": kernel for part, kernel in zip(PARTS, kernels, strict=True)}
    if "output_bias" in common:
        arrays["in_proj_bias"] = np.concatenate([common[f"{part}_bias"] for part in PARTS])
        arrays["out_proj.bias"] = common["output_bias"]
    return arrays


def _keras_recurrent(_layer: Network, arrays: Arrays) -> Arrays:
    return {
        role: arrays[name]
        for role, name in (("kernel", "kernel"), ("recurrent", "recurrent_kernel"), ("bias", "bias"))
        if name in arrays
    }


def _keras_recurrent_own(_layer: Network, common: Arrays) -> Arrays:
    return {"recurrent_kernel" if role == "recurrent" else role: array for role, array in common.items()}


def _gates(array: Array, gates: int) -> Array:
    """PyTorch's gates (GRU: reset, update, new) in Keras's order (update, reset, new), and back; LSTM's are alike."""
    parts = np.split(array, gates)
    return np.concatenate([parts[1], parts[0], parts[2]] if gates == 3 else parts)


def _torch_recurrent(gates: int) -> Side:
    names = {"kernel": "weight_ih_l0", "recurrent": "weight_hh_l0"}

    def common(_module: Network, arrays: Arrays) -> Arrays:
        found = {role: _gates(arrays[name], gates).T for role, name in names.items()}
        if "bias_ih_l0" in arrays:
            biases = np.stack([_gates(arrays[name], gates) for name in ("bias_ih_l0", "bias_hh_l0")])
            found["bias"] = biases if gates == 3 else biases.sum(axis=0)
        return found

    def own(_module: Network, common: Arrays) -> Arrays:
        arrays = {name: _gates(common[role].T, gates) for role, name in names.items()}
        if "bias" in common:
            bias = common["bias"] if gates == 3 else np.stack([common["bias"], np.zeros_like(common["bias"])])
            arrays |= {
                name: _gates(own, gates) for name, own in zip(("bias_ih_l0", "bias_hh_l0"), bias, strict=True)
            }
        return arrays

    return Side(
        ("GRU" if gates == 3 else "LSTM",), common, own, lambda _module: {"reset after the product": True}
    )


def _keras_recurrent_facts(layer: Network) -> dict[str, Any]:
    return {"reset after the product": getattr(layer, "reset_after", True)}


def _keras_norm(kind: str, facts: Callable[[Network], dict[str, Any]]) -> Side:
    own = renamed((kind,), NORM, facts)
    return Side(
        own.types,
        lambda layer, arrays: own.common(layer, _channels_first(layer, arrays)),
        lambda layer, common: _channels_last(layer, own.own(layer, common)),
        facts,
    )


NORM = {"scale": "gamma", "offset": "beta", "mean": "moving_mean", "variance": "moving_variance"}
TORCH_NORM = {"scale": "weight", "offset": "bias", "mean": "running_mean", "variance": "running_var"}

RULES = (
    Rule(
        "dense",
        Side(("Dense",), _channels_first, _channels_last),
        Side(("Linear",), _torch_matrix, _torch_matrix_own),
    ),
    Rule(
        "convolution",
        renamed(
            ("Conv1D", "Conv2D", "Conv3D"), {"kernel": "kernel", "bias": "bias"}, _keras_convolution_facts
        ),
        Side(("Conv1d", "Conv2d", "Conv3d"), _torch_kernel, _torch_kernel_own, _torch_convolution_facts),
    ),
    Rule(
        "convolution",
        Side(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise, _depthwise_own, _keras_convolution_facts),
        Side((), _torch_kernel, _torch_kernel_own),
    ),
    Rule(
        "transposed convolution",
        Side(("Conv1DTranspose", "Conv2DTranspose"), _swapped, _swapped, _keras_convolution_facts),
        Side(
            ("ConvTranspose1d", "ConvTranspose2d"),
            _torch_transposed,
            _torch_transposed_own,
            _torch_convolution_facts,
        ),
    ),
    Rule(
        "batch normalization",
        _keras_norm(
            "BatchNormalization", lambda own: {"epsilon": own.epsilon, "momentum": float(own.momentum)}
        ),
        renamed(
            ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
            TORCH_NORM,
            # PyTorch's momentum is the weight of the new batch, Keras's that of the old average.
            lambda own: {"epsilon": own.eps, "momentum": 1 - (own.momentum or 0)},
        ),
    ),
    Rule(
        "layer normalization",
        _keras_norm("LayerNormalization", lambda own: {"epsilon": own.epsilon}),
        renamed(("LayerNorm",), TORCH_NORM, lambda own: {"epsilon": own.eps}),
    ),
    Rule(
        "embedding",
        renamed(("Embedding",), {"table": "embeddings"}, lambda _own: {}),
        renamed(("Embedding",), {"table": "weight"}, lambda _own: {}),
    ),
    Rule(
        "attention",
        Side(
            ("MultiHeadAttention",),
            _keras_attention,
            _keras_attention_own,
            lambda own: {"heads": own.num_heads},
        ),
        Side(
            ("MultiheadAttention",),
            _torch_attention,
            _torch_attention_own,
            lambda own: {"heads": own.num_heads},
        ),
    ),
    Rule(
        "gru",
        Side(("GRU",), _keras_recurrent, _keras_recurrent_own, _keras_recurrent_facts),
        _torch_recurrent(3),
    ),
    Rule(
        "lstm",
        Side(("LSTM",), _keras_recurrent, _keras_recurrent_own, _keras_recurrent_facts),
        _torch_recurrent(4),
    ),
)
