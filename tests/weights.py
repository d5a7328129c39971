"""Weights that no training has to make, and that hide no error."""

import numpy as np

from models.base import Model, Weights


def unsettled(model: Model) -> Weights:
    """Initial weights with drawn biases and batch norm statistics, which would be zeros and ones.

    A converter that leaves one out, or takes one for another, changes the logits.
    """
    generator = np.random.default_rng(2)
    weights = model.initial_weights(1)
    for name, array in weights.items():
        if name.endswith("/variance"):
            weights[name] = generator.uniform(0.5, 2, array.shape).astype(np.float32)
        elif not name.endswith("/kernel"):
            weights[name] = (array + generator.normal(0, 0.3, array.shape)).astype(np.float32)
    return weights
