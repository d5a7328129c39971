"""Training of a network's end: the features of its frozen part are computed once, and are the end's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.base import FRAMEWORKS, Model, ModelError, Profile, Weights
from models.data import Rows
from models.signature import BATCH, Tensor
from serving import progress

if TYPE_CHECKING:
    import keras
    from torch import nn

FEATURES = "features"
ROWS = 100
"""Rows of a run of the frozen part."""


@dataclass(frozen=True)
class End(Model):
    """The part of a `whole` model behind its frozen part. Its weights are those of the whole network."""

    whole: Model | None = None
    frozen: str = ""

    def build_keras(self) -> keras.Model:
        import keras

        assert self.whole is not None
        network = self.whole.build_keras()
        return keras.Model(network.get_layer(self.frozen).output, network.output, name=network.name)

    def build_torch(self) -> nn.Module:
        assert self.whole is not None
        network = self.whole.build_torch()
        before, behind = _split(network, self.frozen)
        before.requires_grad_(False)
        network.forward = lambda features: behind(_channels(features, -1, 1))
        return network

    def from_keras(self, network: keras.Model) -> Weights:
        assert self.start is not None
        return self.start | super().from_keras(network)

    def to_keras(self, weights: Weights, network: keras.Model) -> None:
        super().to_keras({name: weights[name] for name in super().from_keras(network)}, network)


def prepare(
    model: Model, profile: Profile, parts: tuple[Rows, Rows], cache: Path
) -> tuple[Model, tuple[Rows, Rows]]:
    """Return the end that the profile trains, and the features of each part of the rows, which `cache` keeps.

    `model` has the weights to start with. Raises `ModelError` if the networks have no part of the profile's name.
    """
    _check(model, profile)
    if not cache.exists():
        found = _features(model, profile, parts)
        cache.parent.mkdir(parents=True, exist_ok=True)
        beside = cache.with_name(f".{cache.name}")
        with beside.open("wb") as file:
            np.savez(file, *found)
        beside.replace(cache)
    with np.load(cache) as file:
        features = [file[name] for name in file.files]
    row = features[0].shape[1:]
    inputs = (Tensor(FEATURES, "float32", (BATCH, *row)),)
    spec = replace(model.spec, inputs=inputs)
    end = End(spec, model.package, start=model.start, whole=model, frozen=profile.frozen)
    train, validation = (
        Rows({FEATURES: own}, part.targets) for own, part in zip(features, parts, strict=True)
    )
    return end, (train, validation)


def _check(model: Model, profile: Profile) -> None:
    told = f"the profile of {model.spec.name} freezes the network up to {profile.frozen}"
    if len(model.frameworks) < len(FRAMEWORKS):
        raise ModelError(
            f"{told}: expected a network in both frameworks, it is in {model.frameworks[0]} only"
        )
    if profile.augmentation:
        raise ModelError(f"{told}, whose features are computed once: expected no augmentation")
    _split(model.build_torch(), profile.frozen)
    if profile.frozen not in {layer.name for layer in model.build_keras().layers}:
        raise ModelError(f"{told}, and keras_model.py has no layer of that name")


def _features(model: Model, profile: Profile, parts: tuple[Rows, Rows]) -> list[NDArray[np.float32]]:
    import torch

    assert model.start is not None
    network = model.build_torch().eval()
    model.to_torch(model.start, network)
    before, _ = _split(network, profile.frozen)
    total, done, found = sum(map(len, parts)), 0, []
    with torch.inference_mode():
        for part in parts:
            own = []
            for first in range(0, len(part), ROWS):
                (values,) = part.take(slice(first, first + ROWS)).served(model.spec.signature).values()
                own.append(_channels(before(torch.from_numpy(values)), 1, -1).numpy())
                done += len(values)
                progress.advance(f"features up to {profile.frozen}", done, total)
            found.append(np.concatenate(own))
    return found


def _split(network: nn.Module, frozen: str) -> tuple[nn.Module, nn.Module]:
    """Return the network's parts up to the named one, and those behind it."""
    from torch import nn

    names = [name for name, _ in network.named_children()]
    if not isinstance(network, nn.Sequential) or frozen not in names[:-1]:
        raise ModelError(
            f"the profile freezes up to {frozen}: expected the PyTorch network to be an nn.Sequential with such a "
            f"part, and parts behind it; it is a {type(network).__name__} of {', '.join(names)}"
        )
    # A slice would be of the network's class, whose `forward` may do more.
    end, parts = names.index(frozen) + 1, list(network.children())
    return nn.Sequential(*parts[:end]), nn.Sequential(*parts[end:])


def _channels(values: Any, here: int, there: int) -> Any:  # noqa: ANN401
    """Move the channels of pictures between Keras's place, in which features are kept, and PyTorch's."""
    return values.movedim(here, there) if values.ndim == 4 else values
