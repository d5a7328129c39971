from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from models.base import Model, Weights
from pipelines.exporting import onnx as onnx_from_pytorch
from pipelines.exporting import onnx_from_tensorflow
from tests.pictures import Images

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def path(model: Model, weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx_from_tensorflow.write(model, weights, path)
    return path


def test_it_answers_as_keras_does(
    model: Model, path: Path, pictures: Images, keras_logits: NDArray[np.float32]
) -> None:
    outputs = onnx_from_pytorch.EXPORTER.run(path, model, {"image": pictures})
    np.testing.assert_allclose(outputs["logits"], keras_logits, atol=1e-5, rtol=0)


def test_both_roads_to_onnx_agree(
    model: Model, weights: Weights, path: Path, pictures: Images, tmp_path: Path
) -> None:
    other = onnx_from_pytorch.EXPORTER
    other.write(model, weights, tmp_path, {"image": pictures})
    expected = other.run(tmp_path / other.serve, model, {"image": pictures})
    outputs = onnx_from_pytorch.EXPORTER.run(path, model, {"image": pictures})
    np.testing.assert_allclose(outputs["logits"], expected["logits"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-5, rtol=0)


def test_its_names_shapes_and_opset(path: Path) -> None:
    written = onnx.load(path)
    graph = written.graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["logits", "probabilities"]
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dimensions][1:] == [28, 28, 1]
    assert not dimensions[0].dim_value, "the batch must be free"
    assert {o.domain: o.version for o in written.opset_import}[""] == onnx_from_tensorflow.OPSET
