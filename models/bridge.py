"""The bridge: one form for the weights of a network, read from and set in its Keras and its PyTorch version.

A weight is `<layer>/<role>`. A layer has one name in both networks: the path of PyTorch's module with underscores
(`blocks.0.conv`) is the name of Keras's layer (`blocks_0_conv`).

Either network alone gives its weights in this form, so a machine needs one framework only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import ModelError, Weights, require_fit
from models.layers import RULES, Array, Arrays, Rule, Side

if TYPE_CHECKING:
    import keras
    from torch import nn

SMALL_EMBEDDING = 0.05
"""Standard deviation of a drawn embedding."""


@dataclass(frozen=True)
class Layer:
    """One layer of one network: its variables by their names in the framework, and the side that reads them."""

    name: str
    kind: str
    layer: Any
    side: Side
    variables: dict[str, Any]

    def read(self) -> Arrays:
        """Return the weights in the common form. Raises `ModelError` if it has no place for some of them."""
        arrays = {name: _array(variable) for name, variable in self.variables.items()}
        common = self.side.common(self.layer, arrays)
        if lost := arrays.keys() - self.side.own(self.layer, common).keys():
            raise ModelError(
                f"{self.name} is a {type(self.layer).__name__} with weights that the bridge does not know: "
                f"{', '.join(sorted(lost))}; stack plain layers (one direction, one layer each), or add a rule: "
                "RULES in weights.py of the model's folder"
            )
        return {f"{self.name}/{role}": np.ascontiguousarray(array) for role, array in common.items()}

    def own(self, weights: Weights) -> Arrays:
        """Return the framework's arrays of this layer, from weights in the common form."""
        start = f"{self.name}/"
        roles = {name.removeprefix(start): array for name, array in weights.items() if name.startswith(start)}
        return self.side.own(self.layer, roles)


def from_keras(network: keras.Model, rules: tuple[Rule, ...] = ()) -> Weights:
    """Read a Keras network's weights. Raises `ModelError` naming a layer that no rule knows."""
    return _read(keras_layers(network, rules))


def to_keras(weights: Weights, network: keras.Model, rules: tuple[Rule, ...] = ()) -> None:
    """Set a Keras network's weights. Raises `ModelError` where names or shapes do not fit."""
    for layer, arrays in _fitted(weights, keras_layers(network, rules), network.name):
        for name, array in arrays.items():
            layer.variables[name].assign(array)


def from_torch(network: nn.Module, rules: tuple[Rule, ...] = ()) -> Weights:
    """Read a PyTorch network's weights. Raises `ModelError` naming a module that no rule knows."""
    return _read(torch_layers(network, rules))


def to_torch(weights: Weights, network: nn.Module, rules: tuple[Rule, ...] = ()) -> None:
    """Set a PyTorch network's weights. Raises `ModelError` where names or shapes do not fit."""
    import torch

    for layer, arrays in _fitted(weights, torch_layers(network, rules), type(network).__name__):
        with torch.no_grad():
            for name, array in arrays.items():
                layer.variables[name].copy_(torch.from_numpy(np.array(array, order="C")))
        if layer.kind == "lstm" and "bias_hh_l0" in layer.variables:
            # Keras has one bias: two that are trained would learn at twice the rate.
            layer.variables["bias_hh_l0"].requires_grad_(False)


def pair(network: keras.Model, twin: nn.Module, rules: tuple[Rule, ...] = ()) -> None:
    """Prove that the two networks have the same layers. Raises `ModelError` naming every layer that differs.

    Each layer's weights must come back from the other framework as they went there, and the settings that change
    an answer (epsilon, strides, groups) must be equal.
    """
    left = {layer.name: layer for layer in keras_layers(network, rules)}
    right = {layer.name: layer for layer in torch_layers(twin, rules)}
    wrong = [f"{name} is in Keras only" for name in left.keys() - right.keys()]
    wrong += [f"{name} is in PyTorch only" for name in right.keys() - left.keys()]
    for name in left.keys() & right.keys():
        wrong += _differences(left[name], right[name])
    if wrong:
        raise ModelError(
            "the Keras and the PyTorch network do not pair (a module `a.0.b` pairs with a layer named `a_0_b`):\n  "
            + "\n  ".join(sorted(wrong))
        )


def initial(like: Weights, seed: int) -> Weights:
    """Draw weights of the same shapes: He normal convolutions (He et al. 2015), LeCun normal matrices."""
    generator = np.random.default_rng(seed)
    weights: Weights = {}
    for name, array in sorted(like.items()):
        role, shape = name.rpartition("/")[2], array.shape
        if role.endswith(("kernel", "recurrent")):
            deviation = np.sqrt((2 if len(shape) > 2 else 1) / np.prod(shape[:-1]))
            weights[name] = generator.normal(0, deviation, shape).astype(np.float32)
        elif role == "table":
            weights[name] = generator.normal(0, SMALL_EMBEDDING, shape).astype(np.float32)
        else:
            weights[name] = np.full(shape, 1 if role in ("scale", "variance") else 0, np.float32)
    return weights


def keras_layers(network: keras.Model, rules: tuple[Rule, ...] = ()) -> list[Layer]:
    """Return the layers that have weights. Raises `ModelError` naming one that no rule knows."""
    return _distinct(_keras_walk(network, "", {name: r for r in (*RULES, *rules) for name in r.keras.types}))


def torch_layers(network: nn.Module, rules: tuple[Rule, ...] = ()) -> list[Layer]:
    """Return the modules that have weights. Raises `ModelError` naming one that no rule knows."""
    return _distinct(_torch_walk(network, "", {name: r for r in (*RULES, *rules) for name in r.torch.types}))


def _distinct(layers: Iterator[Layer]) -> list[Layer]:
    found: dict[str, Layer] = {}
    for layer in layers:
        if layer.name in found:
            raise ModelError(f"two layers have the name {layer.name}, as `a.b` and `a_b` do: rename one")
        found[layer.name] = layer
    return list(found.values())


def _keras_walk(parent: Any, prefix: str, known: dict[str, Rule]) -> Iterator[Layer]:  # noqa: ANN401
    for layer in parent._flatten_layers(include_self=False, recursive=False):
        name, kind = f"{prefix}{layer.name}", type(layer).__name__
        if kind in known:
            # An attention has a kernel and a bias in each of four layers.
            depth = 2 if kind == "MultiHeadAttention" else 1
            variables = {"/".join(v.path.split("/")[-depth:]): v for v in layer.weights}
            yield Layer(name, known[kind].kind, layer, known[kind].keras, variables)
        elif layer.weights:
            own = {id(v) for child in layer._flatten_layers(False, False) for v in child.weights}
            if type(layer).__module__.startswith("keras.src.layers") or own != {id(v) for v in layer.weights}:
                raise ModelError(_unknown(f"Keras layer {name}", kind, known))
            yield from _keras_walk(layer, f"{name}_", known)


def _torch_walk(parent: nn.Module, prefix: str, known: dict[str, Rule]) -> Iterator[Layer]:
    if any(parameter is not None for parameter in parent._parameters.values()):
        raise ModelError(
            _unknown(f"PyTorch module {prefix.rstrip('.') or 'network'}", type(parent).__name__, known)
        )
    for child, module in parent.named_children():
        path, kind = f"{prefix}{child}", type(module).__name__
        if kind in known:
            variables = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            # A batch norm's counter.
            variables.pop("num_batches_tracked", None)
            yield Layer(path.replace(".", "_"), known[kind].kind, module, known[kind].torch, variables)
        else:
            yield from _torch_walk(module, f"{path}.", known)


def _unknown(what: str, kind: str, known: dict[str, Rule]) -> str:
    return (
        f"{what} is a {kind}, whose weights the bridge does not know; use {', '.join(sorted(known))}, "
        "or add a rule: RULES in weights.py of the model's folder"
    )


def _read(layers: list[Layer]) -> Weights:
    return {name: array for layer in layers for name, array in layer.read().items()}


def _fitted(weights: Weights, layers: list[Layer], network: str) -> Iterator[tuple[Layer, Arrays]]:
    """Return each layer with its arrays; all are checked before the first one is set."""
    require_fit(weights, {name: array.shape for name, array in _read(layers).items()}, network)
    return ((layer, layer.own(weights)) for layer in layers)


def _differences(left: Layer, right: Layer) -> list[str]:
    if left.kind != right.kind:
        types = f"{type(left.layer).__name__} in Keras, {type(right.layer).__name__} in PyTorch"
        return [f"{left.name} is a {types}"]
    read = left.read()
    keras_shapes, torch_shapes = (
        ", ".join(f"{name.rpartition('/')[2]} {list(array.shape)}" for name, array in sorted(arrays.items()))
        for arrays in (read, right.read())
    )
    if keras_shapes != torch_shapes:
        return [f"{left.name}: {keras_shapes} in Keras, {torch_shapes} in PyTorch"]
    weights = initial(read, seed=1)
    back = right.side.common(right.layer, right.own(weights))
    if any(not np.array_equal(array, weights[f"{left.name}/{role}"]) for role, array in back.items()):
        return [f"{left.name}: weights do not come back from PyTorch as they were"]
    here, there = left.side.facts(left.layer), right.side.facts(right.layer)
    return [
        f"{left.name}: {fact} is {here[fact]} in Keras, {there[fact]} in PyTorch"
        for fact in here.keys() & there.keys()
        if not np.allclose(here[fact], there[fact], rtol=1e-6, atol=0)
    ]


def _array(variable: Any) -> Array:  # noqa: ANN401
    return np.array(
        (variable.detach().cpu() if hasattr(variable, "detach") else variable).numpy(), np.float32
    )
