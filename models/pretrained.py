"""Pretrained weights: from a PyTorch state dict to the form of the bridge."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from typing import Any

import numpy as np

from models.base import Model, ModelError, Weights


def weights(model: Model) -> Weights:
    """Return the weights of the model's checkpoint; none if the spec names no checkpoint. Raises `ModelError`."""
    if model.spec.checkpoint is None:
        return {}
    if model.checkpoint is None:
        raise ModelError(
            f"the checkpoint of {model.spec.name} is not fetched here: `tandem train` fetches it"
        )
    import torch

    try:
        read = torch.load(model.checkpoint, map_location="cpu", weights_only=True)
        if others := [repr(key) for key, value in dict(read).items() if not torch.is_tensor(value)]:
            raise TypeError(f"{', '.join(others[:5])} is no tensor")
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{model.checkpoint}: expected a PyTorch state dict, with tensors and nothing else: {reason}"
        ) from None
    network = model.build_torch()
    expected = network.state_dict()
    state = _renamed(model, read)
    wrong = [f"{name} is not in the network" for name in state.keys() - expected.keys()]
    wrong += [f"{name} has NaN in it" for name, tensor in state.items() if tensor.isnan().any()]
    wrong += [
        f"{name} is {list(state[name].shape)}, the network's {list(expected[name].shape)}"
        for name in state.keys() & expected.keys()
        if state[name].shape != expected[name].shape
    ]
    if wrong or not state:
        told = "\n  ".join(sorted(wrong)[:10]) or "it has no weight of the network's"
        raise ModelError(f"{model.checkpoint} does not fit torch_model.py of {model.spec.name}:\n  {told}")
    # Weights that the checkpoint lacks stay NaN.
    blank = {
        name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
        for name, tensor in expected.items()
    }
    network.load_state_dict(blank | state)
    return {name: array for name, array in model.from_torch(network).items() if not np.isnan(array).any()}


def _renamed(model: Model, state: dict[str, Any]) -> dict[str, Any]:
    if importlib.util.find_spec(f"{model.package}.checkpoint") is None:
        return state
    renamed = importlib.import_module(f"{model.package}.checkpoint").renamed
    try:
        return {own: tensor for name, tensor in state.items() if (own := renamed(name)) is not None}
    except Exception as error:
        raise ModelError(
            f"{model.folder / 'checkpoint.py'} fails on {model.checkpoint}: {type(error).__name__}: {error}"
        ) from error
