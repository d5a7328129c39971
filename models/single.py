"""Weights of a network that has no twin, in its framework's own form: nothing has to be bridged, so any layer will do.

A weight's name is its place and its name in the network; arrays keep their dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import ModelError, Weights

if TYPE_CHECKING:
    import keras
    from torch import nn


def from_keras(network: keras.Model) -> Weights:
    """Read the weights."""
    return {name: np.array(variable.numpy()) for name, variable in _keras(network).items()}


def to_keras(weights: Weights, network: keras.Model) -> None:
    """Set the weights. Raises `ModelError` where names or shapes do not fit."""
    variables = _keras(network)
    _check(weights, variables, network.name)
    for name, variable in variables.items():
        variable.assign(weights[name])


def from_torch(network: nn.Module) -> Weights:
    """Read the weights and buffers."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in network.state_dict().items()}


def to_torch(weights: Weights, network: nn.Module) -> None:
    """Set the weights. Raises `ModelError` where names or shapes do not fit."""
    import torch

    _check(weights, network.state_dict(), type(network).__name__)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})


def initial(framework: str, build: Callable[[], Any], seed: int) -> Weights:
    """The framework's own initial weights, drawn by seed."""
    if framework == "tensorflow":
        import keras

        keras.utils.set_random_seed(seed)
        return from_keras(build())
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return from_torch(build())


def _keras(network: keras.Model) -> dict[str, Any]:
    # Keras numbers the layers of a process, so their paths change from one network to the next.
    return {f"{place}/{variable.name}": variable for place, variable in enumerate(network.weights)}


def _check(weights: Weights, expected: dict[str, Any], network: str) -> None:
    if wrong := sorted(expected.keys() ^ weights.keys()):
        word = "missing" if wrong[0] in expected else "unknown"
        raise ModelError(f"weights of {network}: {wrong[0]} is {word} ({len(wrong)} names differ)")
    for name, own in expected.items():
        if tuple(own.shape) != weights[name].shape:
            raise ModelError(
                f"weights of {network}: {name} is {weights[name].shape}, expected {tuple(own.shape)}"
            )
