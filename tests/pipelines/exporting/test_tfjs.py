from pathlib import Path
from typing import Any

import pytest

from models.base import Model
from pipelines.exporting.base import ExportError
from pipelines.exporting.tfjs import EXPORTER, name_outputs
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Answers, Made

OUTPUT = {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "-1"}, {"size": "10"}]}}


def converted(*order: str) -> dict[str, Any]:
    """The converter's model.json, with its outputs in one order or the other."""
    return {
        "signature": {
            "inputs": {"image": {"name": "image:0"}},
            "outputs": {name: {"name": name, **OUTPUT} for name in order},
        },
    }


@pytest.mark.parametrize("order", [("Identity:0", "Identity_1:0"), ("Identity_1:0", "Identity:0")])
def test_outputs_get_their_names_whatever_the_converters_order(model: Model, order: tuple[str, ...]) -> None:
    named = name_outputs(model.spec.signature, converted(*order))
    outputs = named["signature"]["outputs"]
    assert [(name, output["name"]) for name, output in outputs.items()] == [
        ("logits", "Identity:0"),
        ("probabilities", "Identity_1:0"),
    ]
    assert named["userDefinedMetadata"]["structuredOutputKeys"] == ["logits", "probabilities"]


def test_a_graph_with_other_outputs_is_refused(model: Model) -> None:
    with pytest.raises(ExportError, match=r"expected the outputs \['Identity:0', 'Identity_1:0'\]"):
        name_outputs(model.spec.signature, converted("Identity:0", "Identity_2:0"))


@pytest.fixture
def path(made: Made) -> Path:
    return made("tfjs") / EXPORTER.serve


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tensorflow_js_answers_as_keras_does(answers_as_keras: Answers, path: Path) -> None:
    answers_as_keras(EXPORTER, path, 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_of_this_machine_is_left_inside(path: Path) -> None:
    written = path.read_text()
    assert str(Path.home()) not in written
    assert "/tmp" not in written


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_damaged_model_is_one_clear_error(model: Model, path: Path, pictures: Images) -> None:
    damaged = path.with_name("damaged.json")
    damaged.write_text(path.read_text().replace('"Softmax"', '"NoSuchOperation"'))
    with pytest.raises(ExportError, match=r"TensorFlow\.js failed: .*NoSuchOperation"):
        EXPORTER.run(damaged, model, {"image": pictures[:1]})
