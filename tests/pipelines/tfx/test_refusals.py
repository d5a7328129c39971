"""Refusals on TFX's path, by the command itself: exit status, message, and the version that stays served.

TFX's side is played from here; test_dag.py has the same harms in its components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.base import Model
from models.data import Rows
from pipelines import cli, data, stages, training
from pipelines.gates import Check
from pipelines.records import fingerprint, lineage, reproduction
from pipelines.stages import Recipe
from pipelines.tfx import environment
from pipelines.tfx import run as running
from pipelines.tfx.request import Answer, Step
from pipelines.training.record import Trained
from pipelines.validation.statistics import class_means
from serving import repository
from serving.settings import Settings
from tests.pipelines.test_steps import HISTORY, served
from tests.pipelines.tfx import samples
from tests.pipelines.tfx.samples import Script

STEPS = {"DataGate": Step("COMPLETE", 0.1), "Trainer": Step("COMPLETE", 9.0), "Pusher": Step("COMPLETE", 0.1)}
LOST = "accuracy/Bag, less the blessed model's"


class Machine:
    """A machine on which `tandem pipeline --orchestrator tfx` is called, with what TFX answers next."""

    def __init__(self, recipe: Recipe, answer: Path, patch: pytest.MonkeyPatch) -> None:
        self.recipe, self.answer, self.patch = recipe, answer, patch
        train = recipe.dataset.train
        self.weights = {"means/kernel": class_means(train.inputs["image"], train.targets, 10)}
        pushed = answer.with_name("pushed")
        Trained("tensorflow", self.weights, HISTORY).write(pushed / "assets.extra")
        accuracy = Check("evaluator", "accuracy", 0.8, ">=", 0.5)
        self.blessed = Answer("run", STEPS, [accuracy], metrics={"accuracy": 0.8}, pushed=str(pushed))

    def tandem(self, answer: Answer | None = None, seed: int = 1, verb: str = "pipeline") -> int:
        """The command's exit status; without an answer TFX must not be asked."""
        self.answer.unlink(missing_ok=True)
        if answer is not None:
            answer.write(self.answer)
        where: Any = Script(f"cp {self.answer} $3")
        self.patch.setattr(environment, "choose", lambda _settings: where)
        self.patch.setattr(cli.signal, "signal", lambda *_: None)
        settings = dataclasses.replace(self.recipe.settings, seed=seed)
        recipe = dataclasses.replace(self.recipe, settings=settings, training_fingerprint=f"{seed}")
        self.patch.setattr(stages, "load_recipe", lambda *_: recipe)
        self.patch.setenv("TANDEM_ARTIFACTS", str(settings.artifacts))
        return cli.main([verb, "--orchestrator", "tfx"])

    def fit(self, framework: str, *values: Any) -> Trained:
        (folder,) = (value for value in values if isinstance(value, Path))
        if done := Trained.read(framework, folder / framework):
            return dataclasses.replace(done, cached=True)
        done = Trained(framework, self.weights, HISTORY)
        done.write(folder / framework)
        return done

    def last(self) -> lineage.Run:
        return lineage.runs(self.recipe.settings.lineage, "fashion")[-1]


@pytest.fixture
def machine(
    sources: Callable[[str], Recipe], sample: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """A machine that has published version 1 by TFX."""
    recipe = dataclasses.replace(sources("1"), dataset=samples.dataset(sample))
    own = Machine(recipe, tmp_path / "answer.json", monkeypatch)
    monkeypatch.setattr(training, "train", own.fit)
    assert own.tandem(own.blessed) == 0
    return own


def refused(
    machine: Machine, settings: Settings, capsys: pytest.CaptureFixture[str], answer: Answer | None = None
) -> str:
    """Return the message of the command, which has refused the next sources."""
    before = served(settings)
    assert before
    capsys.readouterr()
    assert machine.tandem(answer, seed=2) == 1
    assert served(settings) == before
    run = machine.last()
    assert (run.orchestrator, run.state, run.version) == ("tfx", "refused", None)
    said = capsys.readouterr()
    assert said.err.removeprefix("error: ").strip() == run.reason.strip()
    page = (settings.artifacts / run.page).read_text()
    assert "Refused: " in page
    assert "(version 1)" in page
    return said.err


def test_what_tfx_blessed_is_published_with_its_orchestrator(machine: Machine, settings: Settings) -> None:
    run = machine.last()
    assert (run.orchestrator, run.state, run.version) == ("tfx", "published", 1)
    steps_of_run = [(one.type, one.state, one.properties.get("orchestrator")) for one in run.executions]
    assert steps_of_run[:6] == [
        ("ExampleValidator", "complete", None),
        ("TwinValidator", "complete", None),
        ("DataGate", "complete", "tfx"),
        ("Trainer", "complete", "tfx"),
        ("Pusher", "complete", "tfx"),
        ("Trainer", "cached", None),
    ]
    manifest = repository.read_manifest(repository.version_dir(settings.repository, "litert", "fashion", 1))
    assert manifest.parameters["orchestrator"] == "tfx"
    weights = Trained.read("tensorflow", Path(machine.blessed.pushed) / "assets.extra")
    assert weights is not None
    assert manifest.weights["tensorflow"] == weights.digest


def test_broken_data_stops_before_tfx_is_asked(
    machine: Machine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    own, check = samples.HARMS["corrupt"]
    machine.recipe = dataclasses.replace(machine.recipe, dataset=samples.harmed(machine.recipe.dataset, own))
    said = refused(machine, settings, capsys)
    assert f"FAIL data: {check}" in said


def test_a_model_that_lost_one_class_only_is_refused_with_evaluators_figure(
    machine: Machine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [*machine.blessed.checks, Check("evaluator", LOST, -0.9, ">=", -0.05)]
    answer = dataclasses.replace(machine.blessed, checks=checks, pushed="")
    said = refused(machine, settings, capsys, answer)
    assert f"FAIL evaluator: {LOST} -0.9 (limit >= -0.05)" in said


def test_a_blessed_model_that_was_changed_is_refused(
    machine: Machine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(machine.blessed.pushed) / "assets.extra"
    history = (folder / "history.json").read_text()
    weights = {"means/kernel": np.zeros((10, 784), np.float32)}
    Trained("tensorflow", weights, HISTORY).write(folder)
    (folder / "history.json").write_text(history)
    said = refused(machine, settings, capsys, machine.blessed)
    name = f"models changed since they were trained, in {folder.parent}"
    assert f"FAIL integrity: {name} 1 (limit <= 0)" in said


def test_a_version_of_tfx_is_made_again_by_tfx(
    machine: Machine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def export(command: list[str], **_options: object) -> Any:
        called.extend(command[1:])
        artifacts = settings.artifacts
        folder = artifacts / "reproductions" / "fashion-1"
        again = dataclasses.replace(machine.recipe.settings, artifacts=folder)
        machine.recipe = dataclasses.replace(machine.recipe, settings=again)
        with monkeypatch.context() as patch:
            machine.patch = patch
            assert machine.tandem(machine.blessed, verb="export") == 0
        return SimpleNamespace(returncode=0)

    dataset, before = machine.recipe.dataset, served(settings)
    monkeypatch.setattr(reproduction, "_code", lambda *_: settings.artifacts)
    monkeypatch.setattr(reproduction, "subprocess", SimpleNamespace(run=export))
    monkeypatch.setattr(reproduction.data, "load", lambda *_: dataset)
    lines: list[str] = []
    assert reproduction.reproduce(settings, None, lambda _line: None, lines.append) == 0
    assert called == ["-m", "pipelines.cli", "export", "--orchestrator=tfx"]
    assert lines[0] == "tensorflow: the same weights, to the last bit"
    assert served(settings) == before


@pytest.mark.thorough
def test_todays_sources_are_known_as_those_of_a_version_of_tfx(
    machine: Machine, model: Model, settings: Settings, tmp_path: Path
) -> None:
    manifest = repository.read_manifest(repository.version_dir(settings.repository, "litert", "fashion", 1))
    digest = data.load(model, settings.artifacts, settings.seed).digest
    own = running.training(fingerprint.training(model, settings, digest))
    manifest = dataclasses.replace(manifest, fingerprint=fingerprint.version_of(model, settings, own))
    said: list[str] = []
    assert reproduction._code(settings, manifest, tmp_path, said.append) == fingerprint.PIPELINES.parent
    assert said[0].endswith("which are those of version 1")
    by_default = manifest.parameters | {"orchestrator": "default"}
    dirty = dataclasses.replace(manifest, parameters=by_default, git_commit="-dirty")
    with pytest.raises(reproduction.ReproductionError, match=r"have changed since|cannot be had"):
        reproduction._code(settings, dirty, tmp_path, said.append)
