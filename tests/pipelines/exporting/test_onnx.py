from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.base import Model, Weights
from pipelines.exporting import conformance
from pipelines.exporting.onnx import EXPORTER, INT8, OPSET
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Answers, Made

pytestmark = pytest.mark.slow


@pytest.fixture
def artifact(made: Made) -> Path:
    return made("onnxruntime") / EXPORTER.serve


def test_it_answers_as_keras_does(answers_as_keras: Answers, artifact: Path) -> None:
    answers_as_keras(EXPORTER, artifact, 1e-5)


def test_dynamic_quantization_is_found_to_depend_on_the_batch(
    model: Model, artifact: Path, pictures: Images, tmp_path: Path
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(artifact, tmp_path / "int8.onnx")
    answer = partial(EXPORTER.answer, tmp_path / "int8.onnx", model)
    assert conformance.company_difference(answer, {"image": pictures}) > 0.01


def test_it_is_one_file_of_the_promised_opset(artifact: Path) -> None:
    assert [path.name for path in artifact.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(artifact, load_external_data=False)
    assert {imported.domain: imported.version for imported in graph.opset_import} == {"": OPSET}
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in graph.graph.initializer)
    assert [value.name for value in graph.graph.input] == ["image"]
    assert [value.name for value in graph.graph.output] == ["logits", "probabilities"]


@pytest.mark.thorough
def test_it_writes_nothing_to_the_terminal(
    model: Model, weights: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    EXPORTER.write(model, weights, tmp_path, {})
    assert capfd.readouterr() == ("", "")


def test_int8_keeps_the_signature_and_answers_as_float32_does_nearly(
    model: Model, weights: Weights, artifact: Path, pictures: Images, tmp_path: Path
) -> None:
    INT8.write(model, weights, tmp_path, {"image": pictures[:64]})
    quantized = tmp_path / INT8.serve
    kinds = {node.op_type for node in onnx.load(quantized).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert quantized.stat().st_size < 0.45 * artifact.stat().st_size
    before, after = (EXPORTER.run(path, model, {"image": pictures}) for path in (artifact, quantized))
    scale = np.abs(before["logits"]).max()
    assert 0 < np.abs(after["logits"] - before["logits"]).max() < 0.1 * scale
    assert conformance.company_difference(partial(INT8.answer, quantized, model), {"image": pictures}) < 1e-4


def test_int8_of_a_model_that_is_not_batched_takes_one_row(
    model: Model, weights: Weights, pictures: Images, tmp_path: Path
) -> None:
    inputs = (replace(model.spec.inputs[0], shape=(28, 28, 1)),)
    alone = replace(model, spec=replace(model.spec, inputs=inputs, batched=False))
    INT8.write(alone, weights, tmp_path, {"image": pictures[:20]})
    assert INT8.run(tmp_path / INT8.serve, alone, {"image": pictures[:2]})["logits"].shape == (2, 10)
