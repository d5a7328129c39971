"""Other forms of a published version: from its own weights, gated, and made once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.base import FRAMEWORKS, Model
from models.data import Dataset, Rows
from models.signature import Arrays
from models.twins import drawn
from pipelines import exporting
from pipelines.cli import variants
from pipelines.cli.subjects import Rows as ComparedRows
from pipelines.cli.variants import KERAS, Variant, make
from pipelines.exporting import reference
from pipelines.exporting.base import Exporter
from pipelines.gates import GateError
from pipelines.training.record import History, Trained
from serving import repository
from serving.compare import executorch
from serving.compare.environments import InstallError
from serving.repository import Manifest
from serving.settings import Settings
from serving.targets.base import TargetError

TARGET, VERSION = "onnxruntime", 3


@pytest.fixture
def settings(tmp_path: Path, model: Model) -> Settings:
    """Those of artifacts with a published version, and the run that it has its weights from."""
    settings = replace(Settings(), artifacts=tmp_path, model=model.spec.name)
    trained = Trained("pytorch", drawn(model.initial_weights(1)), History([], [], 0.0))
    trained.write(tmp_path / "runs" / f"{model.spec.name}-smoke" / "pytorch")
    folder = repository.version_dir(settings.repository, TARGET, settings.model, VERSION)
    folder.mkdir(parents=True)
    for name in ("model.onnx", "golden.json"):
        (folder / name).write_text("{}")
    described = model.spec.signature.to_json(), {}, "", 1, "a" * 64, ""
    manifest = Manifest(
        settings.model, VERSION, TARGET, "pytorch", repository.file_digests(folder), "model.onnx", *described
    )
    repository.write_manifest(folder, replace(manifest, batched=True, weights={"pytorch": trained.digest}))
    return settings


@pytest.fixture
def dataset(sample: Rows) -> Dataset:
    few = sample.take(slice(64))
    return Dataset(few, few, few, "")


def made(settings: Settings, own: Settings) -> tuple[Path, Manifest]:
    folder = repository.version_dir(own.repository, TARGET, settings.model, VERSION)
    return folder, repository.verify(folder)


def test_a_variant_of_the_published_file_differs_by_its_manifest_and_is_made_once(
    settings: Settings, model: Model, dataset: Dataset
) -> None:
    variant = Variant(TARGET, "unbatched", batched=False)
    folder, manifest = made(settings, make(settings, variant, model, dataset, VERSION))
    assert not manifest.batched
    assert sorted(manifest.files) == ["golden.json", "model.onnx"]
    first = folder.stat().st_ino
    make(settings, variant, model, dataset, VERSION)
    assert folder.stat().st_ino == first
    (folder / "model.onnx").write_text("changed")
    assert made(settings, make(settings, variant, model, dataset, VERSION))[1] == manifest


@pytest.mark.parametrize(("shift", "refusal"), [(0.0, ""), (1.0, "onnxruntime odd: largest difference")])
def test_a_form_is_held_against_the_framework_s_answers_with_its_version_s_weights(
    settings: Settings,
    model: Model,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    shift: float,
    refusal: str,
) -> None:
    def write(model: Model, weights: dict[str, np.ndarray], folder: Path, _calibration: Arrays) -> None:
        (folder / "odd.onnx").write_bytes(b"\0" * sum(array.nbytes for array in weights.values()))

    def answer(_path: Path, model: Model, batches: list[Arrays]) -> list[Arrays]:
        weights = drawn(model.initial_weights(1))
        found = [reference.outputs(model, "pytorch", weights, batch) for batch in batches]
        return [{name: array + shift for name, array in own.items()} for own in found]

    exporter = Exporter({"float32": "odd.onnx"}, write, answer, runtime="An odd runtime")
    monkeypatch.setattr(exporting, "load", lambda *_: exporter)
    variant = Variant(TARGET, "odd", form="odd")
    if refusal:
        with pytest.raises(GateError, match=refusal):
            make(settings, variant, model, dataset, VERSION)
        assert not list(settings.artifacts.rglob("odd.onnx"))
        return
    folder, manifest = made(settings, make(settings, variant, model, dataset, VERSION))
    assert (manifest.serve, manifest.runtime, manifest.batched) == ("odd.onnx", "An odd runtime", True)
    assert (folder / "golden.json").exists()


def test_a_version_whose_weights_are_gone_says_so(settings: Settings, model: Model, dataset: Dataset) -> None:
    (history,) = settings.artifacts.glob("runs/*/pytorch/history.json")
    replace(History([], [], 0.0), weights_digest="another").write(history)
    with pytest.raises(TargetError, match="weights of its version are not in"):
        make(settings, Variant(TARGET, "float32", form="float32"), model, dataset, VERSION)


@pytest.mark.parametrize(
    ("frameworks", "told"),
    [(("pytorch",), "has no keras_model.py"), (FRAMEWORKS, "not in float32 on one CPU")],
)
def test_keras_on_pytorch_is_left_out_with_the_reason(
    settings: Settings,
    model: Model,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    frameworks: tuple[str, ...],
    told: str,
) -> None:
    (run,) = settings.artifacts.glob("runs/*")
    trained = Trained("tensorflow", drawn(model.initial_weights(2)), History([], [], 0.0, devices=2))
    trained.write(run / "tensorflow")
    folder = repository.version_dir(settings.repository, TARGET, settings.model, VERSION)
    manifest = repository.read_manifest(folder)
    repository.write_manifest(folder, replace(manifest, weights={"tensorflow": trained.digest}))
    monkeypatch.setattr(Model, "frameworks", frameworks)
    made = ComparedRows(settings, model, dataset, VERSION, [TARGET], ExitStack(), lambda _: None)
    made._variant(Variant(TARGET, KERAS, form=KERAS, source=KERAS), KERAS)
    assert made.subjects == []
    assert made.notes[0].startswith(f"{TARGET} {KERAS} is left out: ")
    assert told in made.notes[0]
    assert not (run / KERAS).exists()


def test_every_variant_is_of_a_form_and_a_precision_that_its_exporter_has(model: Model) -> None:
    assert len({(v.target, v.name) for v in variants.VARIANTS}) == len(variants.VARIANTS)
    for variant in variants.VARIANTS:
        assert variant.precision in exporting.load(variant.target, variant.form).variants(model)
    assert "exported" not in [v.name for v in variants.chosen(model, ["torchserve"], "exported")]
    plain = replace(model, spec=replace(model.spec, precisions=("float32",)))
    assert [v.name for v in variants.chosen(plain, ["litert", TARGET], "")] == ["unbatched", KERAS]
    targets = {v.target for v in variants.chosen(model, ["torchserve"], "")}
    assert targets == {"torchserve", "executorch"}


@pytest.fixture
def compared(settings: Settings, model: Model, dataset: Dataset) -> ComparedRows:
    return ComparedRows(settings, model, dataset, VERSION, ["torchserve"], ExitStack(), lambda _: None)


def test_executorch_is_left_out_with_its_reason_where_there_is_no_pytorch_network(
    compared: ComparedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(Model, "frameworks", ("tensorflow",))
    published = SimpleNamespace(parameters={}, source="tensorflow")
    monkeypatch.setattr(ComparedRows, "_manifest", lambda *_: published)
    monkeypatch.setattr(ComparedRows, "_variant", lambda _self, variant, *_: made.append(variant.target))
    compared.variants()
    assert set(made) == {"torchserve"}
    assert compared.notes == ["executorch is left out: fashion has no network in PyTorch"]


def test_a_converter_that_cannot_be_installed_leaves_its_row_out(
    compared: ComparedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise InstallError("no index within reach")

    monkeypatch.setattr(executorch, "require", refuse)
    compared._variant(Variant("executorch", "float32", form="float32"), "pytorch")
    (subject,) = compared.subjects
    assert (subject.row.name, subject.row.works) == ("executorch float32 in process", False)
    assert subject.row.reason == "no index within reach"
