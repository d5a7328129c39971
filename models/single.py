"""Weights of a network in one framework only, in the framework's own form, which needs no rules for its layers.

A weight's name is its place and its name in the network; arrays keep their dtypes. The functions are those of
models/bridge.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import Model, Weights, require_fit

if TYPE_CHECKING:
    import keras
    from torch import nn


def from_keras(network: keras.Model, _rules: object = ()) -> Weights:
    """Read the weights."""
    return {name: np.array(variable.numpy()) for name, variable in _keras(network).items()}


def to_keras(weights: Weights, network: keras.Model, _rules: object = ()) -> None:
    """Set the weights. Raises `ModelError` where names or shapes do not fit."""
    variables = _keras(network)
    require_fit(weights, {name: tuple(variable.shape) for name, variable in variables.items()}, network.name)
    for name, variable in variables.items():
        variable.assign(weights[name])


def from_torch(network: nn.Module, _rules: object = ()) -> Weights:
    """Read the weights and buffers."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in network.state_dict().items()}


def to_torch(weights: Weights, network: nn.Module, _rules: object = ()) -> None:
    """Set the weights. Raises `ModelError` where names or shapes do not fit."""
    import torch

    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    require_fit(weights, shapes, type(network).__name__)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})


def initial(model: Model, seed: int) -> Weights:
    """Draw the framework's own initial weights by seed."""
    if "tensorflow" in model.frameworks:
        import keras

        keras.utils.set_random_seed(seed)
        return from_keras(model.build_keras())
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return from_torch(model.build_torch())


def _keras(network: keras.Model) -> dict[str, Any]:
    # Keras numbers the layers of a process, so their paths change from one network to the next.
    return {f"{place}/{variable.name}": variable for place, variable in enumerate(network.weights)}
