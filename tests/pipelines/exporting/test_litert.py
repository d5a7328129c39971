from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.base import Model, Weights
from pipelines.exporting.base import ExportError
from pipelines.exporting.litert import EXPORTER
from serving.targets.base import Images

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(
    model: Model, weights: Weights, pictures: Images, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("litert")
    EXPORTER.write(model, weights, folder, pictures)
    return folder


@pytest.mark.parametrize(("precision", "logits"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.3)])
def test_it_answers_as_keras_does(
    folder: Path, pictures: Images, keras_logits: NDArray[np.float32], precision: str, logits: float
) -> None:
    outputs = EXPORTER.run(folder / EXPORTER.variants[precision], pictures)
    np.testing.assert_allclose(outputs.logits, keras_logits, atol=logits, rtol=0)
    assert outputs.logits.dtype == outputs.probabilities.dtype == np.float32
    np.testing.assert_allclose(outputs.probabilities.sum(axis=1), 1, atol=0.02)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("count", [1, 3])
def test_any_batch_size(folder: Path, pictures: Images, precision: str, count: int) -> None:
    outputs = EXPORTER.run(folder / EXPORTER.variants[precision], pictures[:count])
    assert outputs.logits.shape == outputs.probabilities.shape == (count, 10)


def test_the_weights_are_inside_and_shrink_with_the_precision(folder: Path, weights: Weights) -> None:
    numbers = sum(array.size for name, array in weights.items() if name.endswith("/kernel"))
    sizes = {precision: (folder / name).stat().st_size for precision, name in EXPORTER.variants.items()}
    assert sizes["float32"] > 4 * numbers
    assert 2 * numbers < sizes["float16"] < 0.6 * sizes["float32"]
    assert numbers < sizes["int8"] < 0.35 * sizes["float32"]


def test_int8_needs_pictures(model: Model, weights: Weights, pictures: Images, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="needs pictures to calibrate on"):
        EXPORTER.write(model, weights, tmp_path, pictures[:0])


def test_it_writes_nothing_to_the_terminal(
    model: Model, weights: Weights, pictures: Images, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    EXPORTER.write(model, weights, tmp_path, pictures[:2])
    assert capfd.readouterr() == ("", "")
