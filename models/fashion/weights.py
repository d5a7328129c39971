"""The bridge: the network's weights in neither framework's form, drawn, read from and set in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.base import ModelError, ModelSpec, Weights

if TYPE_CHECKING:
    import keras
    from torch import nn

# role: (Keras's name, PyTorch's name)
KERNEL = {"kernel": ("kernel", "weight")}
NORM = {
    "scale": ("gamma", "weight"),
    "offset": ("beta", "bias"),
    "mean": ("moving_mean", "running_mean"),
    "variance": ("moving_variance", "running_var"),
}
DENSE = {"kernel": ("kernel", "weight"), "bias": ("bias", "bias")}


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every array's name and shape; kernels are [height, width, in, out], the dense matrix [in, out]."""
    result: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, before: int, width: int, size: int = 3) -> None:
        result[f"{name}_conv/kernel"] = (size, size, before, width)
        result.update({f"{name}_norm/{role}": (width,) for role in NORM})

    convolution("stem", spec.image_shape[2], spec.widths[0])
    before = spec.widths[0]
    for number, width in enumerate(spec.widths, start=1):
        if number > 1:
            convolution(f"block{number}_shortcut", before, width, size=1)
        convolution(f"block{number}_first", before, width)
        convolution(f"block{number}_second", width, width)
        before = width
    result["classifier/kernel"] = (before, len(spec.classes))
    result["classifier/bias"] = (len(spec.classes),)
    return result


def initial(spec: ModelSpec, seed: int) -> Weights:
    """Draw the weights that both networks start from: He normal kernels (He et al. 2015), a small dense layer."""
    generator = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in shapes(spec).items():
        role = name.split("/")[1]
        if role == "kernel":
            deviation = np.sqrt((2 if len(shape) == 4 else 1) / np.prod(shape[:-1]))
            weights[name] = generator.normal(0, deviation, shape).astype(np.float32)
        else:
            weights[name] = np.full(shape, 1 if role in ("scale", "variance") else 0, np.float32)
    return weights


def from_keras(spec: ModelSpec, network: keras.Model) -> Weights:
    """Read a Keras network's weights."""
    return {name: np.array(_keras_variable(network, name).numpy()) for name in shapes(spec)}


def to_keras(spec: ModelSpec, weights: Weights, network: keras.Model) -> None:
    """Set a Keras network's weights. Raises `ModelError` where names or shapes do not fit."""
    _check(spec, weights)
    for name, array in weights.items():
        _keras_variable(network, name).assign(array)


def from_torch(spec: ModelSpec, network: nn.Module) -> Weights:
    """Read a PyTorch network's weights."""
    state = network.state_dict()
    return {
        name: np.ascontiguousarray(_from_torch_layout(state[_torch_name(name)].numpy(force=True)))
        for name in shapes(spec)
    }


def to_torch(spec: ModelSpec, weights: Weights, network: nn.Module) -> None:
    """Set a PyTorch network's weights. Raises `ModelError` where names or shapes do not fit."""
    import torch

    _check(spec, weights)
    state = network.state_dict()
    for name, array in weights.items():
        state[_torch_name(name)] = torch.from_numpy(np.array(_to_torch_layout(array), order="C"))
    network.load_state_dict(state)


def _check(spec: ModelSpec, weights: Weights) -> None:
    expected = shapes(spec)
    if wrong := sorted(set(expected) ^ set(weights)):
        word = "missing" if wrong[0] in expected else "unknown"
        raise ModelError(f"weights of {spec.name}: {wrong[0]} is {word} ({len(wrong)} names differ)")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ModelError(f"weights of {spec.name}: {name} is {weights[name].shape}, expected {shape}")


def _roles(layer: str) -> dict[str, tuple[str, str]]:
    if layer == "classifier":
        return DENSE
    return NORM if layer.endswith("_norm") else KERNEL


def _keras_variable(network: keras.Model, name: str) -> keras.Variable:
    layer, role = name.split("/")
    return getattr(network.get_layer(layer), _roles(layer)[role][0])


def _torch_name(name: str) -> str:
    layer, role = name.split("/")
    return f"{layer.replace('_', '.')}.{_roles(layer)[role][1]}"


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


def _from_torch_layout(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T
