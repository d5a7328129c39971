"""The bridge on single layers; tests/pipelines/exporting/zoo has the other kinds, each in a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import bridge
from models.base import ModelError
from models.twins import drawn, run_keras

Case = tuple[Callable[[Any], Any], Callable[[Any], Any]]
KINDS: dict[str, Case] = {
    "layer normalization": (
        lambda layers: layers.LayerNormalization(epsilon=1e-5, name="0"),
        lambda nn: nn.LayerNorm(5),
    ),
    "gru": (
        lambda layers: layers.GRU(4, return_sequences=True, name="0"),
        lambda nn: nn.GRU(5, 4, batch_first=True),
    ),
    "lstm": (
        lambda layers: layers.LSTM(4, return_sequences=True, name="0"),
        lambda nn: nn.LSTM(5, 4, batch_first=True),
    ),
}
"""A layer in Keras and in PyTorch, of 6 steps of 5 values."""


@pytest.mark.parametrize("name", KINDS)
def test_equal_weights_answer_equally_and_come_back(name: str) -> None:
    import keras
    import torch
    from torch import nn

    x = keras.Input((6, 5), name="x")
    network = keras.Model(x, KINDS[name][0](keras.layers)(x))
    twin = nn.Sequential(KINDS[name][1](nn)).eval()
    bridge.pair(network, twin)
    weights = drawn(bridge.from_keras(network))
    bridge.to_keras(weights, network)
    bridge.to_torch(weights, twin)
    for back in (bridge.from_keras(network), bridge.from_torch(twin)):
        assert back.keys() == weights.keys()
        assert all(np.array_equal(back[key], weights[key]) for key in weights)
    values = np.random.default_rng(3).normal(size=(4, 6, 5)).astype(np.float32)
    answer, expected = run_keras(network, {"x": values}), twin(torch.from_numpy(values))
    expected = (expected[0] if isinstance(expected, tuple) else expected).detach().numpy()
    assert np.ptp(answer) > 0.1
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)


def test_layers_that_do_not_pair_are_named() -> None:
    import keras
    from torch import nn

    x = keras.Input((5,), name="x")
    norm = keras.layers.LayerNormalization(name="norm")(x)
    network = keras.Model(x, keras.layers.Dense(3, name="head")(norm))
    twin = nn.ModuleDict({"norm": nn.LayerNorm(5), "head": nn.Linear(5, 4), "more": nn.Linear(5, 5)})
    with pytest.raises(ModelError) as refusal:
        bridge.pair(network, twin)
    assert str(refusal.value).splitlines()[1:] == [
        "  head: bias [3], kernel [5, 3] in Keras, bias [4], kernel [5, 4] in PyTorch",
        "  more is in PyTorch only",
        "  norm: epsilon is 0.001 in Keras, 1e-05 in PyTorch",
    ]


def test_unknown_layers_are_refused_by_name() -> None:
    import keras
    import torch
    from torch import nn

    x = keras.Input((4, 4, 2), name="x")
    network = keras.Model(x, keras.layers.SeparableConv2D(3, 2, name="odd")(x))
    with pytest.raises(ModelError, match="Keras layer odd is a SeparableConv2D"):
        bridge.from_keras(network)

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3))

    with pytest.raises(ModelError, match="PyTorch module text is a Positions"):
        bridge.from_torch(nn.ModuleDict({"text": Positions()}))
