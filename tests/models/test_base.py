from __future__ import annotations

import pytest

import models.base
from models.base import ModelError


def test_load_names_the_models_that_exist() -> None:
    with pytest.raises(ModelError, match=r"no model 'nothing'.*fashion"):
        models.base.load("nothing")


def test_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(ModelError, match="it has quick, full"):
        models.base.load("fashion").spec.profile("endless")


def test_copied_folder_takes_its_name_from_the_folder() -> None:
    assert models.base.load("fashion").spec.name == "fashion"


def test_model_stays_small(model: models.base.Model) -> None:
    weights = model.initial_weights(seed=1)
    assert 100_000 < models.base.count_parameters(weights) <= model.spec.maximum_parameters == 300_000
