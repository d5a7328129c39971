"""A checkpoint's weights are what training starts from, or it is refused with what was expected and what came."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import Checkpoint, Model, ModelError
from pipelines.data import DataError, checkpoint
from serving.errors import TandemError


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def fetched(model: Model, folder: Path, state: Any, digest: str = "") -> Model:
    import torch

    path = folder / "weights.pth"
    torch.save(state, path)
    named = Checkpoint(str(path), digest or hashlib.sha256(path.read_bytes()).hexdigest())
    return checkpoint.fetched(replace(model, spec=replace(model.spec, checkpoint=named)), folder)


def test_what_it_has_is_taken_and_the_rest_is_drawn(model: Model, tmp_path: Path) -> None:
    network = model.build_torch()
    state = {name: tensor for name, tensor in network.state_dict().items() if "classifier" not in name}
    weights, drawn = fetched(model, tmp_path, state).initial_weights(1), model.initial_weights(1)
    expected = model.from_torch(network)
    for name, array in weights.items():
        own = drawn if name.startswith("classifier") else expected
        np.testing.assert_array_equal(array, own[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {**state, "classifier.bias": state["classifier.bias"][:3]},
            r"classifier.bias is \[3\], .*\[10\]",
        ),
        (lambda state: {**state, "tail.bias": state["classifier.bias"]}, "tail.bias is not in the network"),
        (lambda _: {}, "has no weight of the network's"),
        (lambda _: {"a": Code()}, "expected a PyTorch state dict, with tensors and nothing else"),
        (lambda state: {"state_dict": state}, "tensors and nothing else: 'state_dict' is no tensor"),
        (lambda state: [*state.values()], "tensors and nothing else: "),
        (
            lambda state: {**state, "classifier.bias": state["classifier.bias"] / 0 * 0},
            "classifier.bias has NaN",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    model: Model, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        fetched(model, tmp_path, change(model.build_torch().state_dict())).initial_weights(1)


def test_another_file_and_none_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has sha256 .* expects 0000"):
        fetched(model, tmp_path, {}, "0000")
    absent = replace(model.spec, checkpoint=Checkpoint(str(tmp_path / "no.pth"), ""))
    with pytest.raises(TandemError, match=r"there is no file .*no\.pth"):
        checkpoint.fetched(replace(model, spec=absent), tmp_path)
