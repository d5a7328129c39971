"""The end of a network, on features of its frozen part, is the network."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models.base
from models import twins
from models.base import Model, ModelError, Profile
from models.data import Rows
from pipelines.training import frozen

PROFILE = Profile(epochs=1, peak_learning_rate=1e-3, minimum_score=0, frozen="block_10")


@pytest.fixture
def garments() -> Model:
    """With drawn weights: no checkpoint has to be fetched."""
    model = models.base.load("garments")
    model = replace(model, spec=replace(model.spec, checkpoint=None))
    return replace(model, start=model.initial_weights(1))


def test_the_end_answers_as_the_whole(garments: Model, sample: Rows, tmp_path: Path) -> None:
    parts, cache = (sample.take(slice(3)), sample.take(slice(3, 5))), tmp_path / "features.npz"
    end, (train, validation) = frozen.prepare(garments, PROFILE, parts, cache)
    assert (len(train), len(validation)) == (3, 2)
    weights = end.initial_weights(1)
    whole, keras_end, torch_end = garments.build_keras(), end.build_keras(), end.build_torch()
    garments.to_keras(weights, whole)
    end.to_keras(weights, keras_end)
    end.to_torch(weights, torch_end)
    expected = twins.run_keras(whole, parts[0].served(garments.spec.signature))
    features = train.inputs[frozen.FEATURES]
    np.testing.assert_allclose(keras_end(features).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(twins.run_torch(torch_end.eval(), {"features": features}), expected, atol=1e-4)
    moved = {name for name, own in torch_end.named_parameters() if own.requires_grad}
    assert {name.split(".")[0] for name in moved} == {f"block_{n}" for n in range(11, 16)} | {
        "top",
        "classifier",
    }
    assert end.from_keras(keras_end).keys() == weights.keys() == end.from_torch(torch_end).keys()
    before = cache.stat().st_mtime_ns
    frozen.prepare(garments, PROFILE, parts, cache)
    assert cache.stat().st_mtime_ns == before


def test_a_part_that_is_not_there_is_told(garments: Model, sample: Rows, tmp_path: Path) -> None:
    for profile, message in (
        (
            replace(PROFILE, frozen="block_99"),
            "freezes up to block_99: expected .* nn.Sequential with such a part",
        ),
        (
            replace(PROFILE, augmentation={"flip": True}),
            "features are computed once: expected no augmentation",
        ),
    ):
        with pytest.raises(ModelError, match=message):
            frozen.prepare(garments, profile, (sample, sample), tmp_path / "none.npz")


def test_a_part_runs_without_what_the_whole_network_does_before_it() -> None:
    class Halved(nn.Sequential):
        def __init__(self, scale: float) -> None:
            super().__init__(OrderedDict(first=nn.Identity(), second=nn.Identity()))
            self.scale = scale

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image * self.scale)

    for part in frozen._split(Halved(0.5), "first"):
        assert part(torch.ones(1)).item() == 1
