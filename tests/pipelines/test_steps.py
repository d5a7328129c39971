"""The default runner's whole path, with networks that need no framework: a mean picture a class is the weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import twins
from models.base import Model, Weights
from models.data import Dataset, Rows
from models.signature import Arrays
from pipelines import exporting, publish, stages, training, validation
from pipelines.exporting import Candidate, onnx, reference
from pipelines.exporting.base import Exporter
from pipelines.gates import Check, GateError, artifacts, networks
from pipelines.records import lineage, reproduction
from pipelines.records.reproduction import ReproductionError
from pipelines.stages import Recipe
from pipelines.training.record import Epoch, History, Trained
from pipelines.validation.statistics import class_means
from serving import repository, targets
from serving.settings import Settings
from tests.pictures import Images, labelled

Publish = Callable[..., int]
HISTORY = History([2.0, 1.5], [Epoch(1.0, 0.7, 0.9, 0.7)], 1.0)


def logits(weights: Weights, images: Images) -> np.ndarray:
    # In float64: in float32 the rounding depends on how many pictures there are.
    means = weights["means/kernel"].astype(np.float64)
    found = images.reshape(len(images), -1) @ means.T - np.sum(means**2, axis=1) / 2
    with np.errstate(over="ignore"):
        result: np.ndarray = found.astype(np.float32)
    return result


def answered(weights: Weights, inputs: Arrays) -> Arrays:
    found = logits(weights, inputs["image"])
    with np.errstate(invalid="ignore"):
        odds = np.exp(found - found.max(axis=1, keepdims=True))
    return {"logits": found, "probabilities": odds / odds.sum(axis=1, keepdims=True)}


def answer(path: Path, _model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    with np.load(path) as file:
        weights = {name: file[name] for name in file.files}
    return [answered(weights, inputs) for inputs in batches]


def write(_model: Model, weights: Weights, folder: Path, _calibration: Arrays) -> None:
    np.savez(folder / "model.npz", **weights)  # type: ignore[arg-type]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), artifacts=tmp_path / "artifacts")


@pytest.fixture
def sources(
    settings: Settings, model: Model, pictures: tuple[Rows, Rows], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Recipe]:
    """Sources with this fingerprint, whose networks and artifacts are made in no time."""
    train, test = pictures
    held_out = np.random.default_rng(1).random(len(train)) < 1 / 12
    parts = [labelled(train.inputs["image"][own], train.targets[own]) for own in (~held_out, held_out)]
    dataset = Dataset(*parts, test, "digest")

    def fit(
        framework: str,
        _model: Model,
        _profile: object,
        _seed: int,
        dataset: Dataset,
        folder: Path,
        _nodes: object,
    ) -> Trained:
        done = Trained.read(framework, folder / framework)
        if done is None:
            means = class_means(dataset.train.inputs["image"], dataset.train.targets, 10)
            done = Trained(framework, {"means/kernel": means}, HISTORY)
            done.write(folder / framework)
            return replace(done, checks=(Check("integrity", "changed", 0, "<=", 0),))
        return replace(done, cached=True)

    rules = validation.schema.load(model)
    rules = replace(rules, label=replace(rules.label, skew=0.08))
    monkeypatch.setattr(validation.schema, "load", lambda _model: rules)
    monkeypatch.setattr(twins, "check", lambda *_: None)
    monkeypatch.setattr(training, "train", fit)
    monkeypatch.setattr(
        reference,
        "answers",
        lambda _model, _framework, weights, calls: [answered(weights, own) for own in calls],
    )
    exporter = Exporter({"float32": "model.npz"}, write, answer)
    monkeypatch.setattr(exporting, "load", lambda _target, _form="": exporter)
    monkeypatch.setattr(
        onnx, "write_by_tf2onnx", lambda _model, weights, path: path.write_bytes(_npz(weights))
    )
    monkeypatch.setattr(onnx, "EXPORTER", exporter)
    profile = replace(model.spec.profile("quick"), minimum_score=0.5)
    own = replace(model, spec=replace(model.spec, profiles={"quick": profile}))
    return lambda fingerprint: Recipe(settings, own, dataset, fingerprint, fingerprint)


def _npz(weights: Weights) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **weights)  # type: ignore[arg-type]
    return stream.getvalue()


def run(recipe: Recipe) -> int:
    return stages.ensure_published(recipe, lambda _line: None)


def served(settings: Settings) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(settings.repository.rglob("*")) if p.is_file()}


def refused(recipe: Recipe) -> list[str]:
    """Return the message of a gate that refuses these sources; nothing served may change."""
    before = served(recipe.settings)
    with pytest.raises(GateError) as refusal:
        run(recipe)
    assert served(recipe.settings) == before
    return [line.strip() for line in str(refusal.value).splitlines()[1:]]


def test_a_version_has_its_origin_in_manifest_repository_and_store(
    sources: Callable[[str], Recipe], settings: Settings
) -> None:
    assert run(sources("a")) == 1
    manifest = repository.read_manifest(repository.version_dir(settings.repository, "litert", "fashion", 1))
    expected = {
        "profile": "quick",
        "seed": 1,
        "precision": "float32",
        "devices": 1,
        "device": "auto",
        "source": "",
        "torchserve_form": "exported",
        "targets": "",
        "orchestrator": "default",
    }
    assert manifest.parameters == expected
    assert (manifest.batched, manifest.finite) == (True, True)
    assert set(manifest.weights) == {"tensorflow", "pytorch"}
    statistics = json.loads(publish.statistics(settings.repository, "fashion", 1) or "")
    assert set(statistics) == {"train", "validation", "test"}
    (known,) = lineage.runs(settings.lineage, "fashion")
    assert [one.type for one in known.executions] == [
        "ExampleValidator",
        "TwinValidator",
        "Trainer",
        "Trainer",
        "Evaluator",
        "Exporter",
        "InfraValidator",
        "Pusher",
    ]
    written = [one for step in known.executions for one in step.outputs if one.type == "Model"]
    assert {one.digest for one in written} == set(manifest.weights.values())
    gates_found = json.loads((settings.artifacts / known.page).with_name("gates.json").read_text())
    assert gates_found["passed"]
    assert {check["gate"] for check in gates_found["checks"]} == {
        "data",
        "integrity",
        "quality",
        "training parity",
        "parity",
        "size",
        "batching",
    }
    page = (settings.artifacts / known.page).read_text()
    assert "Published as version 1" in page
    assert str(settings.artifacts) not in json.dumps(known.page), "the store can be moved with its artifacts"


def test_the_next_version_is_compared_with_the_published_one(
    sources: Callable[[str], Recipe], settings: Settings
) -> None:
    assert [run(sources("a")), run(sources("b"))] == [1, 2]
    second = lineage.runs(settings.lineage, "fashion")[1]
    (statistics,) = (one for one in second.executions[0].inputs if one.type == "ExampleStatistics")
    assert (statistics.name, statistics.uri) == ("version 1", "repository/statistics/fashion/1.json")
    found = json.loads((settings.artifacts / second.page).with_name("gates.json").read_text())["checks"]
    assert len([one for one in found if "version 1" in one["name"]]) == 9
    assert len([one for one in found if "accuracy/Bag against the published version" in one["name"]]) == 2


def test_damaged_statistics_of_the_published_version_are_no_yardstick(
    sources: Callable[[str], Recipe], settings: Settings
) -> None:
    run(sources("a"))
    repository.statistics_path(settings.repository, "fashion", 1).write_text('{"train": ')
    assert run(sources("b")) == 2


def test_an_artifact_that_does_not_run_is_refused(
    sources: Callable[[str], Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> list[Arrays]:
        raise ValueError("no such\noperator")

    made, load = sources("a"), exporting.load
    monkeypatch.setattr(exporting, "load", lambda name, _form="": replace(load(name), answer=crash))
    lines = refused(made)
    assert len(lines) == len(targets.NAMES)
    assert lines[0].startswith(
        "FAIL parity: tf-serving () float32 from tensorflow: artifacts that do not run (no such"
    )


def test_an_artifact_whose_answers_depend_on_their_company_is_published_unbatched(
    sources: Callable[[str], Recipe], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
        """One that is right in all but runs with values of a million."""
        images = [inputs["image"] for inputs in batches]
        return answer(path, model, [{"image": own * (0.5 if own.max() > 1e5 else 1)} for own in images])

    load = exporting.load
    leaks = replace(load("onnxruntime"), answer=leaking)
    monkeypatch.setattr(
        exporting, "load", lambda name, _form="": leaks if name == "onnxruntime" else load(name)
    )
    lines: list[str] = []
    stages.ensure_published(sources("a"), lines.append)
    for target in targets.NAMES:
        folder = repository.version_dir(settings.repository, target, "fashion", 1)
        assert repository.read_manifest(folder).batched == (target != "onnxruntime")
    assert any(line.startswith("note batching: onnxruntime () float32") for line in lines)
    (known,) = lineage.runs(settings.lineage, "fashion")
    gates_found = json.loads((settings.artifacts / known.page).with_name("gates.json").read_text())
    assert gates_found["passed"]
    (noted,) = (check for check in gates_found["checks"] if not check["passed"])
    assert (noted["gate"], noted["limit"]) == ("batching", 1e-5)
    assert noted["figure"] > 1e-5
    leaks = replace(leaks, always_batched="its servers know no other way")
    assert [line.split(":")[0] for line in refused(sources("b"))] == ["FAIL batching"]


@pytest.mark.slow
def test_an_artifact_that_was_changed_after_its_gates_is_not_published(
    sources: Callable[[str], Recipe], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(sources("a"))
    before, gate = served(settings), artifacts.gate

    def tamper(model: Model, trained: Any, candidate: Candidate, test: Rows) -> artifacts.Gated:
        found = gate(model, trained, candidate, test)
        (candidate.folder / "tfjs" / "more.bin").write_bytes(b"!")
        return found

    monkeypatch.setattr(artifacts, "gate", tamper)
    with pytest.raises(publish.PublishError, match=r"tfjs was changed after it passed its gates"):
        run(sources("b"))
    assert served(settings) == before
    assert lineage.runs(settings.lineage, "fashion")[-1].state == "failed"


@pytest.mark.slow
def test_a_training_that_is_done_is_recorded_as_cached(
    sources: Callable[[str], Recipe], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.train(sources("a"), lambda _line: None)
    run(sources("a"))
    first, second = lineage.runs(settings.lineage, "fashion")
    assert (first.state, second.state) == ("complete", "published")
    states = [[one.state for one in own.executions if one.type == "Trainer"] for own in (first, second)]
    assert states == [["complete", "complete"], ["cached", "cached"]]


def test_runs_of_the_same_sources_keep_a_page_each(
    sources: Callable[[str], Recipe], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sources("a")
    with monkeypatch.context() as patch:
        patch.setattr(networks, "quality", lambda *_: [Check("quality", "accuracy", 0.5, ">=", 0.9)])
        refused(recipe)
    assert "Refused: " in (recipe.folder / "index.html").read_text()
    run(recipe)
    pages = [settings.artifacts / one.page for one in lineage.runs(settings.lineage, "fashion")]
    for path, verdict, passed in zip(
        pages, ("Refused: ", "Published as version 1"), (False, True), strict=True
    ):
        assert verdict in path.read_text()
        assert json.loads(path.with_name("gates.json").read_text())["passed"] == passed
    assert (recipe.folder / "index.html").resolve() == pages[1], "the training's folder shows its last run"


@pytest.mark.parametrize(
    "harm", ["none", *(pytest.param(harm, marks=pytest.mark.slow) for harm in ("bytes", "weights"))]
)
def test_a_reproduction_is_compared_by_weights_bytes_and_answers(
    sources: Callable[[str], Recipe],
    settings: Settings,
    pictures: tuple[Rows, Rows],
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    recipe = sources("a")
    run(recipe)
    before = served(settings)

    def make(_settings: Settings, _manifest: object, _code: Path, folder: Path) -> None:
        again = replace(recipe, settings=replace(settings, artifacts=folder))
        stages.export(again, lambda _line: None)
        if harm == "bytes":
            np.savez_compressed(again.candidate / "tfjs" / "model.npz", **_means(again))  # type: ignore[arg-type]
        if harm == "weights":
            own = {"means/kernel": _means(again)["means/kernel"] + np.float32(1e-3)}
            Trained("pytorch", own, HISTORY).write(again.folder / "pytorch")
            write(again.model, own, again.candidate / "onnxruntime", {})

    monkeypatch.setattr(reproduction, "_code", lambda *_: settings.artifacts)
    monkeypatch.setattr(reproduction, "_make", make)
    monkeypatch.setattr(reproduction.data, "load", lambda *_: recipe.dataset)
    lines: list[str] = []
    status = reproduction.reproduce(settings, None, lambda _line: None, lines.append)
    assert served(settings) == before
    assert (status, lines[-1]) == ((1, "NOT reproduced") if harm == "weights" else (0, "reproduced"))
    assert ("pytorch: OTHER WEIGHTS" in lines) == (harm == "weights")
    table = next(line for line in lines if line.startswith("target"))
    rows = {line.split()[0]: line for line in table.splitlines()[2:]}
    assert "the same bytes" in rows["litert"]
    if harm == "bytes":
        assert "differ" in rows["tfjs"]
        assert "0.0e+00" in rows["tfjs"]


def test_a_reproduction_with_other_libraries_is_refused(
    sources: Callable[[str], Recipe], settings: Settings
) -> None:
    run(sources("a"))
    for target in targets.NAMES:
        folder = repository.version_dir(settings.repository, target, "fashion", 1)
        manifest = repository.read_manifest(folder)
        repository.write_manifest(folder, replace(manifest, libraries={"numpy": "0.1"}))
    with pytest.raises(ReproductionError, match=r"was made with numpy 0\.1, here is "):
        reproduction.reproduce(settings, 1, lambda _line: None, lambda _line: None)


def _means(recipe: Recipe) -> Weights:
    with np.load(recipe.folder / "pytorch" / "weights.npz") as file:
        return {name: file[name] for name in file.files}
