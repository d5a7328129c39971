from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import publish
from pipelines.publish import PublishError
from serving import repository, targets
from serving.repository import Manifest, Pointer


def manifests(fingerprint: str) -> dict[str, Manifest]:
    return {
        target: Manifest(
            model="fashion",
            version=0,
            target=target,
            source="tensorflow",
            files={},
            serve="model.bin",
            signature={},
            metrics={},
            data_digest="",
            seed=1,
            fingerprint=fingerprint,
            created="",
        )
        for target in targets.NAMES
    }


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    for target in targets.NAMES:
        (tmp_path / "candidate" / target / "inner").mkdir(parents=True)
        (tmp_path / "candidate" / target / "model.bin").write_text(f"model for {target}")
        (tmp_path / "candidate" / target / "inner" / "weights.bin").write_text("weights")
    return tmp_path / "candidate"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def served(root: Path) -> set[int | None]:
    return {
        repository.served_version(repository.model_dir(root, target, "fashion")) for target in targets.NAMES
    }


def test_versions_count_up_and_every_target_follows(root: Path, candidate: Path) -> None:
    assert publish.publish(root, "fashion", candidate, manifests("a")).number == 1
    assert served(root) == {1}
    assert publish.publish(root, "fashion", candidate, manifests("b")).number == 2
    assert served(root) == {2}
    for target in targets.NAMES:
        for version in (1, 2):
            manifest = repository.verify(repository.version_dir(root, target, "fashion", version))
            assert (manifest.version, manifest.target) == (version, target)
            assert set(manifest.files) == {"model.bin", "inner/weights.bin"}


def test_rollback_goes_back_by_pointer_and_forth_again(root: Path, candidate: Path) -> None:
    for fingerprint in "abc":
        publish.publish(root, "fashion", candidate, manifests(fingerprint))
    before = {p: p.stat().st_mtime_ns for p in root.rglob("model.bin")}
    assert publish.rollback(root, "fashion") == 2
    assert served(root) == {2}
    assert publish.pointer(root, "fashion") == Pointer(2, 3, held=True)
    assert publish.rollback(root, "fashion") == 3
    assert publish.rollback(root, "fashion", version=1) == 1
    assert served(root) == {1}
    assert {p: p.stat().st_mtime_ns for p in root.rglob("model.bin")} == before
    assert publish.publish(root, "fashion", candidate, manifests("d")).number == 4
    assert publish.pointer(root, "fashion") == Pointer(4, 1, held=False)


def test_a_version_whose_folder_was_removed_is_followed_by_the_next_number(
    root: Path, candidate: Path
) -> None:
    publish.publish(root, "fashion", candidate, manifests("a"))
    shutil.rmtree(repository.version_dir(root, "litert", "fashion", 1))
    assert publish.find(root, "fashion", "a") is None
    assert publish.publish(root, "fashion", candidate, manifests("a")).number == 2
    assert served(root) == {2}


def test_nothing_to_roll_back_to_is_an_error(root: Path, candidate: Path) -> None:
    with pytest.raises(PublishError, match="no version of fashion is published"):
        publish.rollback(root, "fashion")
    publish.publish(root, "fashion", candidate, manifests("a"))
    with pytest.raises(PublishError, match="the only one"):
        publish.rollback(root, "fashion")
    with pytest.raises(PublishError, match="version 7 of fashion is not in the repository; there are: 1"):
        publish.rollback(root, "fashion", version=7)
    assert served(root) == {1}


def test_versions_are_found_by_what_they_were_made_from(root: Path, candidate: Path) -> None:
    assert publish.find(root, "fashion", "a") is None
    for fingerprint in "ab":
        publish.publish(root, "fashion", candidate, manifests(fingerprint))
    assert publish.find(root, "fashion", "a") == 1
    assert publish.find(root, "fashion", "z") is None


@pytest.mark.parametrize("calls_before", range(1, 27, 4))
def test_cut_off_anywhere_leaves_what_is_served_and_the_next_one_repairs(
    root: Path, candidate: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    publish.publish(root, "fashion", candidate, manifests("a"))
    calls = 0

    class PowerCut(BaseException):
        pass

    def cut_after(step: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > calls_before:
                raise PowerCut
            return step(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", cut_after(shutil.copytree))
        patch.setattr(Path, "replace", cut_after(Path.replace))
        with pytest.raises(PowerCut):
            publish.publish(root, "fashion", candidate, manifests("b"))

    assert served(root) <= {1, 2}
    publish.settle(root, "fashion")
    committed = publish.pointer(root, "fashion")
    assert committed is not None
    assert served(root) == {committed.version}
    expected = 2 if publish.find(root, "fashion", "b") is None else 3
    assert publish.publish(root, "fashion", candidate, manifests("c")).number == expected
    assert served(root) == {expected}
    assert not list(root.rglob(".*"))
    for target in targets.NAMES:
        repository.verify(repository.version_dir(root, target, "fashion", expected))


def test_a_full_disk_is_told_and_leaves_nothing_behind(
    root: Path, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.publish(root, "fashion", candidate, manifests("a"))
    copies = 0
    copytree = shutil.copytree

    def fills_up(*arguments: Any, **options: Any) -> Any:
        nonlocal copies
        copies += 1
        if copies == 3:
            raise OSError(28, "No space left on device")
        return copytree(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fills_up)
        with pytest.raises(PublishError, match=r"version 2 of fashion could not be written: .*No space left"):
            publish.publish(root, "fashion", candidate, manifests("b"))
    assert served(root) == {1}
    assert not list(root.rglob(".incoming*"))
