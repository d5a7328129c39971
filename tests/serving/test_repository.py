from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving import repository
from serving.repository import Manifest, ManifestError, Pointer, RepositoryError


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "onnxruntime" / "fashion" / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "model.onnx").write_text("graph")
    (folder / "variables" / "data").write_text("numbers")
    manifest = Manifest(
        model="fashion",
        version=1,
        target="onnxruntime",
        source="pytorch",
        files=repository.file_digests(folder),
        serve="model.onnx",
        signature={},
        metrics={"pytorch/accuracy": 0.9},
        data_digest="d",
        seed=1,
        fingerprint="f",
        created="2026-11-22",
    )
    repository.write_manifest(folder, manifest)
    return folder


def test_manifest_comes_back_as_it_was_written(version: Path) -> None:
    manifest = repository.verify(version)
    assert manifest.metrics == {"pytorch/accuracy": 0.9}
    assert set(manifest.files) == {"model.onnx", "variables/data"}


def test_a_manifest_that_does_not_say_so_is_not_batched(version: Path) -> None:
    path = version / repository.MANIFEST
    fields = json.loads(path.read_text())
    del fields["batched"]
    path.write_text(json.dumps(fields))
    assert not repository.read_manifest(version).batched
    path.write_text(json.dumps(fields | {"batched": True}))
    assert repository.read_manifest(version).batched


def test_changed_missing_and_added_files_are_refused(version: Path) -> None:
    (version / "variables" / "data").write_text("other")
    with pytest.raises(ManifestError, match="variables/data was changed"):
        repository.verify(version)
    (version / "variables" / "data").unlink()
    with pytest.raises(ManifestError, match="variables/data is missing"):
        repository.verify(version)
    (version / "variables" / "data").write_text("numbers")
    (version / "extra").write_text("")
    with pytest.raises(ManifestError, match="extra is not listed"):
        repository.verify(version)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "fashion"}', '{"surprise": 1}'])
def test_broken_manifests_are_refused(version: Path, text: str) -> None:
    (version / repository.MANIFEST).write_text(text)
    with pytest.raises(ManifestError, match="cannot be read as a manifest"):
        repository.verify(version)


def test_versions_are_plain_integers_only(tmp_path: Path) -> None:
    for name in ("1", "10", "2", ".incoming-3", "latest", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file")
    assert repository.versions(tmp_path) == [1, 2, 10]
    assert repository.versions(tmp_path / "nothing") == []


def test_served_version_is_the_pointers_else_the_highest(tmp_path: Path) -> None:
    assert repository.served_version(tmp_path) is None
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    assert repository.served_version(tmp_path) == 2
    repository.write_pointer(tmp_path / repository.POINTER, Pointer(1, previous=2, held=True))
    assert repository.served_version(tmp_path) == 1
    assert repository.read_pointer(tmp_path / repository.POINTER) == Pointer(1, 2, True)


@pytest.mark.parametrize("text", ["", "7", "{}", '{"version": "x", "previous": null, "held": false}'])
def test_broken_pointers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / repository.POINTER).write_text(text)
    with pytest.raises(RepositoryError, match="expected a pointer"):
        repository.served_version(tmp_path)
