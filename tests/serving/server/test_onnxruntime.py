"""ONNX Runtime: what a model makes of inputs that fit its signature, but not each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.server.backends.onnxruntime import OnnxServable, load
from serving.server.errors import InvalidRequestError


def servable(folder: Path, operator: str, kinds: tuple[int, int], axes: tuple[str, str]) -> OnnxServable:
    """y = operator(a, b), of vectors of two kinds and free sizes."""
    given = [
        helper.make_tensor_value_info(name, kind, [axis])
        for name, kind, axis in zip(("a", "b"), kinds, axes, strict=True)
    ]
    made = [helper.make_tensor_value_info("y", kinds[0], ["K"])]
    graph = helper.make_graph([helper.make_node(operator, ["a", "b"], ["y"])], "two", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return load(folder, "", 1)


def test_inputs_of_different_sizes_are_the_client_s_fault(tmp_path: Path) -> None:
    added = servable(tmp_path, "Add", (TensorProto.FLOAT, TensorProto.FLOAT), ("N", "N"))
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    with pytest.raises(InvalidRequestError, match=r"input 'b': expected size 2 in dimension 0 \(N\).*got 3"):
        added.run("serving_default", {"a": two, "b": three}, ["y"])
    assert added.run("serving_default", {"a": two, "b": two}, ["y"])["y"].tolist() == [2, 2]


def test_values_that_the_model_refuses_are_the_client_s_fault(tmp_path: Path) -> None:
    gathered = servable(tmp_path, "Gather", (TensorProto.FLOAT, TensorProto.INT64), ("N", "M"))
    with pytest.raises(InvalidRequestError, match=r"the model refused its input: .*out of data bounds"):
        gathered.run("serving_default", {"a": np.ones(2, np.float32), "b": np.array([7])}, ["y"])
