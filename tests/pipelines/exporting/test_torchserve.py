import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import Model, load
from pipelines.exporting import batching
from pipelines.exporting.base import ExportError
from pipelines.exporting.torch_graph import servable
from pipelines.exporting.torchserve import EXPORTER, pack
from serving.torchserve import archive
from tests.pictures import Images

IMAGES: Images = np.random.default_rng(0).random((1000, 28, 28, 1), np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("fashion")


@pytest.mark.slow
def test_its_handler_answers_as_torch_does(model: Model, tmp_path: Path) -> None:
    EXPORTER.write(model, model.initial_weights(1), tmp_path, {"image": IMAGES[:1]})
    assert [path.name for path in tmp_path.iterdir()] == ["model.mar"]
    outputs = EXPORTER.run(tmp_path / EXPORTER.serve, model, {"image": IMAGES})
    with torch.inference_mode():
        logits, probabilities = servable(model, model.initial_weights(1))(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs["probabilities"], probabilities.numpy(), atol=1e-5, rtol=0)
    answer = partial(EXPORTER.answer, tmp_path / EXPORTER.serve, model)
    assert batching.difference(answer, {"image": IMAGES}) <= model.spec.tolerances.outputs


@pytest.mark.slow
def test_equal_weights_give_equal_bytes(model: Model, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        EXPORTER.write(model, model.initial_weights(1), tmp_path / name, {"image": IMAGES[:1]})
        digests.add((tmp_path / name / "model.mar").read_bytes())
    assert len(digests) == 1


def test_an_archive_holds_what_the_handler_needs(model: Model, tmp_path: Path) -> None:
    pack(model, tmp_path / "model.mar", {"model.onnx": b"graph"})
    with zipfile.ZipFile(tmp_path / "model.mar") as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [
            "MAR-INF/MANIFEST.json",
            "handler.py",
            "model-config.yaml",
            "model.onnx",
            "signature.json",
        ]
        signature = json.loads(packed.read("signature.json"))
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
        handler = packed.read("handler.py").decode()
    assert signature == model.spec.signature.to_json()
    assert manifest["model"]["modelName"] == "fashion"
    assert "from models" not in handler
    assert "from serving" not in handler


def test_staging_adds_the_version_and_whether_it_is_batched_and_nothing_else(
    model: Model, tmp_path: Path
) -> None:
    pack(model, tmp_path / "model.mar", {"model.onnx": b"graph"})
    archive.stage(tmp_path / "model.mar", tmp_path / "fashion-7.mar", 7, batched=True)
    before, after = (archive.read_archive(tmp_path / name) for name in ("model.mar", "fashion-7.mar"))
    manifests = [json.loads(files.pop(archive.MANIFEST)) for files in (before, after)]
    signatures = [json.loads(files.pop(archive.SIGNATURE)) for files in (before, after)]
    assert before == after
    assert signatures[1] == signatures[0] | {"batched": True}
    assert manifests[1]["model"].pop("modelVersion") == "7"
    manifests[0]["model"].pop("modelVersion")
    assert manifests[0] == manifests[1]


def test_a_broken_archive_is_an_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "model.mar").write_bytes(b"no zip")
    with pytest.raises(ExportError, match="is no archive"):
        EXPORTER.run(tmp_path / "model.mar", model, {"image": IMAGES[:1]})
