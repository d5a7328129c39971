from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import models
import models.base
from models.base import ModelError


def test_load_names_the_models_that_exist() -> None:
    with pytest.raises(ModelError, match=r"no model 'nothing'.*fashion"):
        models.base.load("nothing")


def test_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(ModelError, match="it has smoke, few, quick, full"):
        models.base.load("fashion").spec.profile("endless")


def test_a_copied_folder_is_a_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion = models.base.load("fashion")
    shutil.copytree(fashion.folder, tmp_path / "mine")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert models.base.names() == ["fashion", "garments", "language", "mine"]
    mine = models.base.load("mine")
    assert mine.spec.name == "mine"
    assert mine.folder == tmp_path / "mine"
    network = mine.build_torch()
    mine.to_torch(mine.initial_weights(seed=1), network)
    assert type(network).__module__ == "models.mine.torch_model"


def test_tied_layers_are_counted_once() -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    weights = {"table.weight": table, "head.weight": table.copy(), "norm/mean": np.ones(4, np.float32)}
    assert models.base.count_parameters(weights) == 12


def test_model_stays_small(model: models.base.Model) -> None:
    weights = model.initial_weights(seed=1)
    assert 100_000 < models.base.count_parameters(weights) <= 300_000
