import numpy as np
import pytest
from numpy.typing import NDArray

from models.base import Model, Weights
from models.data import Rows
from pipelines.exporting import keras_graph
from tests.pictures import Images, as_floats
from tests.weights import unsettled


@pytest.fixture(scope="session")
def weights(model: Model) -> Weights:
    return unsettled(model)


@pytest.fixture(scope="session")
def pictures(sample: Rows) -> Images:
    return as_floats(sample)


@pytest.fixture(scope="session")
def keras_logits(model: Model, weights: Weights, pictures: Images) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = keras_graph.network(model, weights)(pictures).numpy()
    return logits
