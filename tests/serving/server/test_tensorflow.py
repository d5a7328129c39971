"""SavedModels that others made: what is read of them, and what their graphs refuse."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest

from serving.server.backends.base import loader
from serving.server.errors import ArtifactError, InvalidRequestError
from serving.server.repository.loading import load_version

pytestmark = pytest.mark.slow  # TensorFlow is imported.


def test_a_version_keeps_the_variables_of_its_load(saved_models: Path, tmp_path: Path) -> None:
    load = loader("tensorflow")
    directory = shutil.copytree(saved_models / "fashion" / "1", tmp_path / "fashion" / "1")
    image = np.ones((1, 28, 28, 1), np.float32)
    loaded = load_version(directory, load, 1)

    def answer() -> list[float]:
        logits = loaded.servable.run("serving_default", {"image": image}, ["logits"])["logits"]
        return list(map(float, logits.ravel()))

    gc.collect()
    before = answer()
    (data,) = (directory / "variables").glob("variables.data-*")
    content = data.read_bytes()
    with data.open("r+b") as file:
        file.write(bytes(len(content)))
    assert answer() == before
    data.write_bytes(content[:100])
    assert answer() == before
    with pytest.raises(ArtifactError, match=r"TensorFlow cannot load .*fashion/1"):
        load_version(directory, load, 1)
    with pytest.raises(InvalidRequestError, match=r"refused its input: .*; shapes sent: image \[2, 3\]"):
        loaded.servable.run("serving_default", {"image": np.ones((2, 3), np.float32)}, ["logits"])
    loaded.servable.close()
