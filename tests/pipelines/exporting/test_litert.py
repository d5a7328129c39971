from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, Weights
from pipelines.exporting import conformance, keras_graph
from pipelines.exporting.base import ExportError
from pipelines.exporting.litert import EXPORTER
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Answers, Made

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def folder(made: Made) -> Path:
    return made("litert")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.3)])
def test_it_answers_as_keras_does(
    answers_as_keras: Answers, folder: Path, precision: str, tolerance: float
) -> None:
    answers_as_keras(EXPORTER, folder / EXPORTER.files[precision], tolerance)


def test_rows_may_share_a_run_with_dynamic_range_quantization(
    model: Model, weights: Weights, pictures: Images, tmp_path: Path
) -> None:
    """LiteRT reads the scale of its activations off each row, where ONNX Runtime reads it off the whole batch."""
    import tensorflow as tf

    keras_graph.write_saved_model(model, weights, tmp_path / "saved", served=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved"), signature_keys=[keras_graph.FLOAT_SIGNATURE]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (tmp_path / "dynamic.tflite").write_bytes(converter.convert())
    assert (tmp_path / "dynamic.tflite").stat().st_size < 4 * 0.4 * sum(map(np.size, weights.values()))
    answer = partial(EXPORTER.answer, tmp_path / "dynamic.tflite", model)
    assert conformance.company_difference(answer, {"image": pictures}) <= model.spec.tolerances.outputs


def test_the_weights_are_inside_and_shrink_with_the_precision(folder: Path, weights: Weights) -> None:
    numbers = sum(array.size for name, array in weights.items() if name.endswith("/kernel"))
    sizes = {precision: (folder / name).stat().st_size for precision, name in EXPORTER.files.items()}
    assert sizes["float32"] > 4 * numbers
    assert 2 * numbers < sizes["float16"] < 0.6 * sizes["float32"]
    assert numbers < sizes["int8"] < 0.35 * sizes["float32"]


def test_int8_needs_pictures(model: Model, weights: Weights, pictures: Images, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="needs rows to calibrate on"):
        EXPORTER.write(model, weights, tmp_path, {"image": pictures[:0]})


@pytest.mark.thorough
def test_it_writes_nothing_to_the_terminal(
    model: Model, weights: Weights, pictures: Images, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    EXPORTER.write(model, weights, tmp_path, {"image": pictures[:2]})
    assert capfd.readouterr() == ("", "")
