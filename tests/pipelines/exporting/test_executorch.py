import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, Weights
from models.signature import Tensor
from pipelines.exporting import conformance, executorch, reference
from pipelines.exporting.base import ExportError
from pipelines.exporting.executorch import EXPORTER, FORMS, MOST_ROWS
from serving.compare.environments import InstallError
from serving.compare.executorch import require
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Made


@pytest.fixture
def exported(made: Made) -> Callable[[str], Path]:
    """The file of a precision."""
    try:
        require()
    except InstallError as error:
        pytest.skip(f"ExecuTorch cannot be installed: {error}")
    return lambda precision: made("executorch", precision) / FORMS[precision].serve


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_answers_as_pytorch_does_any_batch_up_to_its_bound(
    model: Model, weights: Weights, pictures: Images, exported: Callable[[str], Path]
) -> None:
    calls = [{"image": np.resize(pictures, (count, 28, 28, 1))} for count in (1, 3, MOST_ROWS)]
    answers = EXPORTER.answer(exported("float32"), model, calls)
    for found, expected in zip(answers, reference.answers(model, "pytorch", weights, calls), strict=True):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5, rtol=0)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_int8_is_smaller_and_answers_as_float32_does_nearly(
    model: Model, pictures: Images, exported: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    whole, quantized = exported("float32"), exported("int8")
    assert quantized.stat().st_size < 0.45 * whole.stat().st_size
    before, after = (EXPORTER.run(path, model, {"image": pictures}) for path in (whole, quantized))
    scale = np.abs(before["logits"]).max()
    assert 0 < np.abs(after["logits"] - before["logits"]).max() < 0.1 * scale
    assert (
        conformance.company_difference(partial(EXPORTER.answer, quantized, model), {"image": pictures}) < 1e-4
    )
    assert "executorch" not in "".join(capfd.readouterr())


def test_other_free_sizes_than_the_batch_are_refused(model: Model, weights: Weights, tmp_path: Path) -> None:
    free = (Tensor("image", "float32", ("batch", "height", 28, 1)),)
    with pytest.raises(ExportError, match="sizes of image are free"):
        EXPORTER.write(replace(model, spec=replace(model.spec, inputs=free)), weights, tmp_path, {})


def _end(_path: Path, _calls: object) -> None:
    os._exit(134)


@pytest.mark.slow
def test_a_check_that_ends_its_process_is_an_error(
    model: Model, pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executorch, "_run", _end)
    with pytest.raises(ExportError, match=r"ended its process while it ran model\.pte"):
        EXPORTER.answer(Path("model.pte"), model, [{"image": pictures[:1]}])
