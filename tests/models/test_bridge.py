"""Every kind of layer that the bridge knows: the same weights give the same answer in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import bridge
from models.base import ModelError
from models.twins import drawn, run_keras, run_torch

Case = tuple[tuple[int, ...], Callable[[Any, Any], Any], Callable[[Any], Any]]
KINDS: dict[str, Case] = {
    "dense": ((5,), lambda k, x: k.Dense(3, name="body")(x), lambda nn: nn.Linear(5, 3)),
    "convolution": (
        (6, 7, 4),
        lambda k, x: k.Permute((3, 1, 2))(k.Conv2D(8, (3, 2), 2, name="body")(x)),
        lambda nn: nn.Conv2d(4, 8, (3, 2), 2),
    ),
    "grouped": (
        (6, 6, 4),
        lambda k, x: k.Permute((3, 1, 2))(k.Conv2D(8, 3, groups=2, name="body")(x)),
        lambda nn: nn.Conv2d(4, 8, 3, groups=2),
    ),
    "depthwise": (
        (6, 6, 4),
        lambda k, x: k.Permute((3, 1, 2))(k.DepthwiseConv2D(3, depth_multiplier=2, name="body")(x)),
        lambda nn: nn.Conv2d(4, 8, 3, groups=4),
    ),
    "convolution in one dimension": (
        (9, 4),
        lambda k, x: k.Permute((2, 1))(k.Conv1D(6, 3, name="body")(x)),
        lambda nn: nn.Conv1d(4, 6, 3),
    ),
    "batch normalization": (
        (5,),
        lambda k, x: k.BatchNormalization(momentum=0.9, epsilon=1e-3, name="body")(x),
        lambda nn: nn.BatchNorm1d(5, eps=1e-3, momentum=0.1),
    ),
    "layer normalization": (
        (3, 5),
        lambda k, x: k.LayerNormalization(epsilon=1e-5, name="body")(x),
        lambda nn: nn.LayerNorm(5),
    ),
    "gru": (
        (6, 5),
        lambda k, x: k.GRU(4, return_sequences=True, name="body")(x),
        lambda nn: nn.GRU(5, 4, batch_first=True),
    ),
    "lstm": (
        (6, 5),
        lambda k, x: k.LSTM(4, return_sequences=True, name="body")(x),
        lambda nn: nn.LSTM(5, 4, batch_first=True),
    ),
    "attention": (
        (6, 8),
        lambda k, x: k.MultiHeadAttention(2, 4, name="body")(x, x),
        lambda nn: nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "dense after flatten": (
        (3, 4, 2),
        lambda k, x: k.Dense(3, name="body")(k.Flatten()(x)),
        lambda nn: nn.Linear(24, 3),
    ),
}
"""The row of the input, (layers, input) -> output in Keras, and (nn) -> module in PyTorch."""


def networks(name: str) -> tuple[Any, Any, dict[str, Any]]:
    import keras
    from torch import nn

    row, keras_part, torch_part = KINDS[name]
    x = keras.Input(row, name="x")

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch_part(nn)

        def forward(self, x: Any) -> Any:
            if len(row) == 3 or isinstance(self.body, nn.Conv1d):
                x = x.movedim(-1, 1)
            if name == "dense after flatten":
                x = x.flatten(1)
            answer = self.body(x, x, x) if isinstance(self.body, nn.MultiheadAttention) else self.body(x)
            return answer[0] if isinstance(answer, tuple) else answer

    inputs = {"x": np.random.default_rng(3).normal(size=(4, *row)).astype(np.float32)}
    return keras.Model(x, keras_part(keras.layers, x)), Twin().eval(), inputs


@pytest.mark.parametrize("name", KINDS)
def test_equal_weights_answer_equally(name: str) -> None:
    network, twin, inputs = networks(name)
    bridge.pair(network, twin)
    weights = drawn(bridge.from_keras(network))
    bridge.to_keras(weights, network)
    bridge.to_torch(weights, twin)
    for back in (bridge.from_keras(network), bridge.from_torch(twin)):
        assert back.keys() == weights.keys()
        assert all(np.array_equal(back[key], weights[key]) for key in weights)
    answer = run_keras(network, inputs)
    assert np.ptp(answer) > 0.1
    np.testing.assert_allclose(answer, run_torch(twin, inputs), rtol=0, atol=1e-5)


def test_embedding() -> None:
    import keras
    from torch import nn

    x = keras.Input((4,), dtype="int32", name="x")
    network = keras.Model(x, keras.layers.Embedding(7, 3, name="0")(x))
    twin = nn.Sequential(nn.Embedding(7, 3))
    bridge.pair(network, twin)
    weights = drawn(bridge.from_keras(network))
    bridge.to_torch(weights, twin)
    assert np.array_equal(twin[0].weight.detach().numpy(), weights["0/table"])


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
