import dataclasses
import json
import platform
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, Weights
from pipelines.exporting import reference
from pipelines.exporting.torch_graph import folded, program
from pipelines.exporting.torchserve import EXPORTER, FORMS, pack
from serving import golden
from serving.golden import Golden
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve import archive
from serving.torchserve.config import state
from serving.torchserve.trial import attempt
from tests.pictures import Images
from tests.pipelines.exporting.conftest import Answers, Made

IMAGES: Images = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["exported", pytest.param("aot", marks=pytest.mark.thorough), "onnx"])
def test_its_handler_answers_as_keras_does(answers_as_keras: Answers, made: Made, form: str) -> None:
    if form == "aot" and (not shutil.which("g++") or platform.machine() != "x86_64"):
        pytest.skip("AOTInductor needs g++, and we have it compile for x86-64")
    assert [path.name for path in made("torchserve", form).iterdir()] == ["model.mar"]
    answers_as_keras(FORMS[form], made("torchserve", form) / EXPORTER.serve, 1e-5)


def test_batch_norms_are_folded_into_their_convolutions(model: Model) -> None:
    exported = program(folded(model, model.initial_weights(1)), model)
    operators = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in operators
    assert not [name for name in operators if "batch_norm" in name]


@pytest.mark.slow
def test_equal_weights_give_equal_bytes(model: Model, weights: Weights, made: Made, tmp_path: Path) -> None:
    EXPORTER.write(model, weights, tmp_path, {})
    assert (tmp_path / EXPORTER.serve).read_bytes() == (
        made("torchserve", "exported") / EXPORTER.serve
    ).read_bytes()


def test_an_archive_holds_what_the_handler_needs(model: Model, tmp_path: Path) -> None:
    pack(model, tmp_path / "model.mar", {"model.onnx": b"graph"})
    with zipfile.ZipFile(tmp_path / "model.mar") as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [
            "MAR-INF/MANIFEST.json",
            *(f"handler/{name}.py" for name in ("__init__", "bodies", "networks")),
            "model-config.yaml",
            "model.onnx",
            "signature.json",
        ]
        signature = json.loads(packed.read("signature.json"))
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
        handler = "".join(packed.read(name).decode() for name in packed.namelist() if "handler/" in name)
    told = {"form": "exported", "runtime": "PyTorch (torch.export)", "instruction_set": {}}
    assert signature == model.spec.signature.to_json() | told
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
    with pytest.raises(TargetError, match="is no archive"):
        EXPORTER.run(tmp_path / "model.mar", model, {"image": IMAGES})


def tried(archived: Path, folder: Path, sample: Golden | None = None, **signature: object) -> None:
    """Stage an archive of the ONNX graph, cheap to load, as the model store gets it, and try it."""
    files = archive.read_archive(archived / EXPORTER.serve)
    files[archive.SIGNATURE] = json.dumps(json.loads(files[archive.SIGNATURE]) | signature).encode()
    archive.write_archive(folder / "model.mar", files)
    if sample is not None:
        golden.write(folder, sample)
    archive.stage(folder / "model.mar", folder / "staged.mar", 3, batched=True)
    settings = Settings(artifacts=folder)
    state(settings).mkdir(parents=True, exist_ok=True)
    attempt(settings, folder / "staged.mar", 3)


@pytest.mark.slow
def test_a_golden_sample_is_checked_where_the_archive_is_tried(
    model: Model, weights: Weights, made: Made, tmp_path: Path
) -> None:
    inputs = {"image": IMAGES}
    sample = Golden(inputs, reference.outputs(model, "pytorch", weights, inputs), 1e-5)
    tried(made("torchserve", "onnx"), tmp_path, sample)
    logits = sample.outputs["logits"].copy()
    logits[1, 4] += 0.25
    wrong = dataclasses.replace(sample, outputs={**sample.outputs, "logits": logits})
    with pytest.raises(
        TargetError, match=r"version 3 of fashion is refused: .*logits differs by 0.25 .* limit is \d"
    ):
        tried(made("torchserve", "onnx"), tmp_path, wrong)


@pytest.mark.slow
def test_code_that_was_compiled_for_another_cpu_is_refused_by_name(made: Made, tmp_path: Path) -> None:
    wanted = {"march": "x86-64-v9", "machine": "x86_64", "capabilities": ["AVX1024"]}
    with pytest.raises(TargetError, match=r"compiled for x86-64-v9 .*AVX1024.* this CPU offers"):
        tried(made("torchserve", "onnx"), tmp_path, instruction_set=wanted)
