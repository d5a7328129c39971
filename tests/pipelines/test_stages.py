"""The decisions of `deploy` on what to make anew; the end-to-end tests make it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models import twins
from models.base import Model
from models.data import Dataset, Rows
from pipelines import exporting, publish, stages, training, validation
from pipelines.exporting import Candidate
from pipelines.exporting.roads import Roads
from pipelines.exporting.torchserve import HANDLER
from pipelines.gates import Check, GateError, artifacts, networks
from pipelines.gates.networks import Evaluated
from pipelines.records import fingerprint, lineage
from pipelines.stages import Recipe
from pipelines.training.record import History, Trained
from serving import repository, targets
from serving.settings import Settings

Deploy = Callable[[str], int]


@pytest.fixture
def made() -> list[str]:
    """The versions whose sources were trained, in order."""
    return []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), artifacts=tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def deploy(
    settings: Settings,
    model: Model,
    sample: Rows,
    made: list[str],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Deploy:
    """Publish what is made from sources with this fingerprint; "bad" ones are refused by a gate."""

    def trained(_framework: str, *_: object) -> Trained:
        return Trained(_framework, {}, History([], [], 0.0))

    def evaluate(*_: object) -> Evaluated:
        bad = Check("quality", "test accuracy", 0.5, ">=", 0.9)
        return Evaluated({}, (bad,) if made[-1] == "bad" else ())

    def export(_model: object, _trained: object, found: Roads, folder: Path, *_: object) -> Candidate:
        for target in targets.NAMES:
            (folder / target).mkdir(parents=True, exist_ok=True)
            (folder / target / "model.bin").write_text(folder.name)
            repository.write_seal(folder / target, folder / target)
        return Candidate(folder, found)

    def note(*_: object) -> None:
        made.append(asked[-1])

    asked: list[str] = []
    monkeypatch.setattr(twins, "check", note)
    monkeypatch.setattr(validation, "validate", lambda *_: validation.Validated({}, ()))
    monkeypatch.setattr(training, "train", trained)
    monkeypatch.setattr(networks, "evaluate", evaluate)
    monkeypatch.setattr(exporting, "export_all", export)
    monkeypatch.setattr(artifacts, "gate", lambda *_: artifacts.Gated(dict.fromkeys(targets.NAMES, True), ()))
    dataset = Dataset(sample, sample, sample, "digest")

    def run(fingerprint: str) -> int:
        asked.append(fingerprint)
        return stages.ensure_published(
            Recipe(settings, model, dataset, fingerprint, fingerprint), said.append
        )

    return run


def test_a_file_in_a_subfolder_of_the_model_is_one_of_its_sources(
    settings: Settings, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model.folder, tmp_path / "fashion")
    monkeypatch.setattr(Model, "folder", tmp_path / "fashion")
    before = fingerprint.training(model, settings, "digest")
    (tmp_path / "fashion" / "blocks").mkdir()
    (tmp_path / "fashion" / "blocks" / "attention.py").write_text("HEADS = 4\n")
    assert fingerprint.training(model, settings, "digest") != before


def test_all_that_an_archive_holds_of_tandem_is_among_a_versions_sources(
    settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_digest", lambda sources, _: sources)
    assert {*HANDLER.glob("*.py")} <= {*fingerprint.version_of(model, settings, "")}


def published(settings: Settings) -> int | None:
    pointer = publish.pointer(settings.repository, "fashion")
    return pointer.version if pointer else None


def test_unchanged_sources_are_made_once(deploy: Deploy, made: list[str], said: list[str]) -> None:
    assert [deploy("a"), deploy("a"), deploy("a")] == [1, 1, 1]
    assert made == ["a"]
    assert "nothing to train" in said[-1]


def test_sources_changed_back_are_published_again_without_making_them(
    deploy: Deploy, made: list[str], settings: Settings
) -> None:
    assert [deploy("a"), deploy("b"), deploy("a")] == [1, 2, 1]
    assert made == ["a", "b"]
    assert published(settings) == 1


def test_a_rollback_holds_until_the_sources_change(
    deploy: Deploy, said: list[str], settings: Settings
) -> None:
    deploy("a")
    deploy("b")
    publish.rollback(settings.repository, "fashion")
    assert deploy("b") == 1
    assert "version 1 is held by a rollback, though these sources are version 2" in said[-1]
    assert deploy("c") == 3
    assert published(settings) == 3


def change(settings: Settings, target: str) -> None:
    """Change a file of version 1."""
    folder = repository.version_dir(settings.repository, target, "fashion", 1)
    (folder / "model.bin").write_text("other")


def test_a_refused_version_leaves_what_is_served_and_every_run_is_recorded_however_it_ends(
    deploy: Deploy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy("a")
    with pytest.raises(GateError):
        deploy("bad")
    assert published(settings) == 1
    assert publish.versions(settings.repository, "fashion") == [1]

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            deploy("c")
    deploy("d")
    runs = lineage.runs(settings.lineage, "fashion")
    assert [(run.state, run.version) for run in runs] == [
        ("published", 1),
        ("refused", None),
        ("interrupted", None),
        ("published", 2),
    ]
    assert "quality: test accuracy 0.5 (limit >= 0.9)" in runs[1].reason
    assert [run.state for run in lineage.refused_before(runs, 2)] == ["refused", "interrupted"]
    for run in runs:
        assert (settings.artifacts / run.page).exists()


def test_a_version_complete_but_not_pointed_to_is_found(
    deploy: Deploy, made: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy("a")

    class PowerCut(BaseException):
        pass

    def cut(*_arguments: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(publish, "point", cut)
        with pytest.raises(PowerCut):
            deploy("b")
    assert published(settings) == 1
    assert deploy("b") == 2
    assert made == ["a", "b"]
    assert published(settings) == 2


def test_a_published_file_that_was_changed_is_made_again(
    deploy: Deploy, made: list[str], said: list[str], settings: Settings
) -> None:
    deploy("a")
    change(settings, "litert")
    assert deploy("a") == 2
    assert made == ["a", "a"]
    assert any("version 1 was changed since it was published" in line for line in said)
    assert deploy("a") == 2
    assert made == ["a", "a"]


def test_a_held_version_that_was_changed_is_not_served(deploy: Deploy, settings: Settings) -> None:
    deploy("a")
    deploy("b")
    publish.rollback(settings.repository, "fashion")
    change(settings, "tfjs")
    with pytest.raises(publish.PublishError, match=r"version 1, which a rollback holds, was changed"):
        deploy("b")
