from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.base import Model, load
from pipelines.exporting import batching
from pipelines.exporting.onnx import EXPORTER, INT8, OPSET
from pipelines.exporting.torch_graph import servable
from tests.pictures import Images

pytestmark = pytest.mark.slow

IMAGES: Images = np.random.default_rng(0).random((1000, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("fashion")


@pytest.fixture(scope="module")
def artifact(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    EXPORTER.write(model, model.initial_weights(1), folder, {"image": IMAGES[:1]})
    return folder / EXPORTER.serve


def test_it_answers_as_torch_does(model: Model, artifact: Path) -> None:
    outputs = EXPORTER.run(artifact, model, {"image": IMAGES})
    with torch.inference_mode():
        logits, probabilities = servable(model, model.initial_weights(1))(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs["probabilities"], probabilities.numpy(), atol=1e-5, rtol=0)
    assert outputs["logits"].dtype == outputs["probabilities"].dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 3, 257])
def test_any_batch_size(model: Model, artifact: Path, count: int) -> None:
    outputs = EXPORTER.run(artifact, model, {"image": IMAGES[:count]})
    assert outputs["logits"].shape == outputs["probabilities"].shape == (count, 10)


def test_rows_of_several_requests_may_share_a_run(model: Model, artifact: Path) -> None:
    assert (
        batching.difference(partial(EXPORTER.answer, artifact, model), {"image": IMAGES})
        <= model.spec.tolerances.outputs
    )


def test_dynamic_quantization_is_found_to_depend_on_the_batch(
    model: Model, artifact: Path, tmp_path: Path
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(artifact, tmp_path / "int8.onnx")
    assert (
        batching.difference(partial(EXPORTER.answer, tmp_path / "int8.onnx", model), {"image": IMAGES}) > 0.01
    )


def test_it_is_one_file_of_the_promised_opset(model: Model, artifact: Path) -> None:
    assert [path.name for path in artifact.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(artifact, load_external_data=False)
    assert {imported.domain: imported.version for imported in graph.opset_import} == {"": OPSET}
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in graph.graph.initializer)
    assert [value.name for value in graph.graph.input] == ["image"]
    assert [value.name for value in graph.graph.output] == ["logits", "probabilities"]


@pytest.mark.thorough
def test_it_writes_nothing_to_the_terminal(
    model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    EXPORTER.write(model, model.initial_weights(2), tmp_path, {"image": IMAGES[:1]})
    assert capfd.readouterr() == ("", "")


def test_int8_keeps_the_signature_and_answers_as_float32_does_nearly(
    model: Model, artifact: Path, tmp_path: Path
) -> None:
    INT8.write(model, model.initial_weights(1), tmp_path, {"image": IMAGES[:64]})
    quantized = tmp_path / INT8.serve
    kinds = {node.op_type for node in onnx.load(quantized).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert quantized.stat().st_size < 0.45 * artifact.stat().st_size
    before, after = (EXPORTER.run(path, model, {"image": IMAGES}) for path in (artifact, quantized))
    scale = np.abs(before["logits"]).max()
    assert 0 < np.abs(after["logits"] - before["logits"]).max() < 0.1 * scale
    assert batching.difference(partial(INT8.answer, quantized, model), {"image": IMAGES}) < 1e-4
