"""Fixtures of all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import models.base
from models.base import Model
from models.data import Rows
from tests import needs

ROOT = Path(__file__).parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, with the reason; CI has a browser."""
    for marker, missing in needs.BY_MARKER.items():
        if item.get_closest_marker(marker) and (why := missing()):
            if marker == "browser" and needs.IN_CI:
                pytest.fail(why)
            pytest.skip(why)


@pytest.fixture(autouse=True)
def no_models_of_others() -> Iterator[None]:
    """Forget models from folders of a test's own: the next test may have another one of that name."""
    yield
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith("models.") and file and not Path(file).is_relative_to(ROOT):
            del sys.modules[name]


@pytest.fixture(scope="session")
def model() -> Model:
    """The model that the repository ships."""
    return models.base.load("fashion")


@pytest.fixture(scope="session")
def sample() -> Rows:
    """512 training pictures, 51 or 52 a class."""
    with np.load(Path(__file__).parent / "data" / "fashion-sample.npz") as file:
        return Rows({"image": file["images"][..., np.newaxis]}, file["labels"].astype(np.int64))
