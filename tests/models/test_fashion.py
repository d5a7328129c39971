from __future__ import annotations

import numpy as np
import pytest

from models.base import Model, ModelError, Weights
from models.data import Rows
from models.twins import drawn
from tests.pictures import as_floats


@pytest.fixture(scope="module")
def weights(model: Model) -> Weights:
    return drawn(model.initial_weights(1))


def test_initial_weights_are_a_function_of_the_seed(model: Model) -> None:
    first, again, other = model.initial_weights(1), model.initial_weights(1), model.initial_weights(2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["stem_conv/kernel"], other["stem_conv/kernel"])


def test_bridge_refuses_weights_of_another_network(model: Model, weights: Weights) -> None:
    network = model.build_torch()
    with pytest.raises(ModelError, match="classifier/bias is missing"):
        model.to_torch({name: array for name, array in weights.items() if name != "classifier/bias"}, network)
    with pytest.raises(ModelError, match=r"classifier/bias is \(3,\), expected \(10,\)"):
        model.to_torch(weights | {"classifier/bias": np.zeros(3, np.float32)}, network)


@pytest.mark.slow
def test_batch_norms_learn_the_same_statistics(model: Model, weights: Weights, sample: Rows) -> None:
    import torch

    keras_network, torch_network = model.build_keras(), model.build_torch().train()
    model.to_keras(weights, keras_network)
    model.to_torch(weights, torch_network)
    images = as_floats(sample)[:128]
    keras_network(images, training=True)
    torch_network(torch.from_numpy(images))
    from_keras, from_torch = model.from_keras(keras_network), model.from_torch(torch_network)
    for name in ("stem_norm/mean", "blocks_2_second_norm/mean", "stem_norm/variance"):
        assert not np.array_equal(from_keras[name], weights[name])
        np.testing.assert_allclose(from_keras[name], from_torch[name], rtol=1e-3, atol=1e-4)
