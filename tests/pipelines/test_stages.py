"""What `deploy` decides to make anew; the making itself is put in by the test, the end-to-end test does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.base import Model
from pipelines import publish, stages
from pipelines.data import Dataset, Pictures
from pipelines.gates import GateError
from pipelines.stages import Sources
from serving import targets
from serving.settings import Settings

Deploy = Callable[[str], int]


@pytest.fixture
def made() -> list[str]:
    """Which versions' sources were trained, in order."""
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
    sample: Pictures,
    made: list[str],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Deploy:
    """Publish what is made from sources with this fingerprint; "bad" ones are refused by a gate."""

    def train(made_from: Sources, report: stages.Report) -> dict[str, object]:
        made.append(made_from.version)
        return {}

    def export(made_from: Sources, trained: object, report: stages.Report) -> Path:
        for target in targets.NAMES:
            (made_from.candidate / target).mkdir(parents=True, exist_ok=True)
            (made_from.candidate / target / "model.bin").write_text(made_from.version)
        return made_from.candidate

    def gate(made_from: Sources, trained: object, report: stages.Report) -> dict[str, dict[str, float]]:
        if made_from.version == "bad":
            raise GateError("a gate refused this version")
        return {"tensorflow": {"accuracy": 0.9}}

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(stages, "export", export)
    monkeypatch.setattr(stages, "gate", gate)
    dataset = Dataset(sample, sample, sample, "digest")

    def run(fingerprint: str) -> int:
        sources = Sources(settings, model, dataset, training=fingerprint, version=fingerprint)
        return stages.ensure_published(sources, said.append)

    return run


def published(settings: Settings) -> int | None:
    pointer = publish.pointer(settings.repository, "fashion")
    return pointer.version if pointer else None


def test_unchanged_sources_are_made_once(deploy: Deploy, made: list[str], said: list[str]) -> None:
    assert [deploy("a"), deploy("a"), deploy("a")] == [1, 1, 1]
    assert made == ["a"]
    assert "nothing to train" in said[-1]


def test_changed_sources_are_the_next_version(deploy: Deploy, made: list[str]) -> None:
    assert [deploy("a"), deploy("b")] == [1, 2]
    assert made == ["a", "b"]


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


def test_a_refused_version_leaves_what_is_served(deploy: Deploy, settings: Settings) -> None:
    deploy("a")
    with pytest.raises(GateError):
        deploy("bad")
    assert published(settings) == 1
    assert publish.versions(settings.repository, "fashion") == [1]


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
