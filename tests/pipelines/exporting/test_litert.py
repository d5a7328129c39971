from pathlib import Path

import pytest

from models.base import Model, Weights
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
