"""A version is verified, loaded and run once, or refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.repository import MANIFEST
from serving.server.backends.base import Servable, loader
from serving.server.errors import ArtifactError
from serving.server.repository.loading import load_version

from .artifacts import write_manifest, write_onnx
from .processes import running

onnx = loader("onnxruntime")


def test_a_version_without_a_manifest_loads_by_the_backend_s_usual_name(tmp_path: Path) -> None:
    loaded = load_version(write_onnx(tmp_path, 1), onnx, 1)
    signature = loaded.servable.signatures["serving_default"]
    assert [spec.shape for spec in signature.inputs] == [(-1, 28, 28, 1)]
    assert (loaded.batched, loaded.finite) == (None, False)


def test_the_manifest_names_the_file_to_serve(tmp_path: Path) -> None:
    directory = write_onnx(tmp_path, 1)
    (directory / "model.onnx").rename(directory / "other.onnx")
    with pytest.raises(ArtifactError, match=r"has no file model\.onnx; it holds other\.onnx"):
        load_version(directory, onnx, 1)
    write_manifest(directory, "other.onnx")
    assert load_version(directory, onnx, 1).batched is False


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.onnx", "other", "was changed: sha256"),
        ("more", "", "more is not listed"),
        ("model.onnx", None, "is missing"),
        (MANIFEST, "[]", "cannot be read as a manifest"),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, content: str | None, reason: str) -> None:
    directory = write_onnx(tmp_path, 1)
    write_manifest(directory, "model.onnx")
    (directory / file).unlink() if content is None else (directory / file).write_text(content)
    with pytest.raises(ArtifactError, match=reason):
        load_version(directory, onnx, 1)


def test_whatever_a_runtime_raises_refuses_the_version(tmp_path: Path) -> None:
    def load(directory: Path, file: str, threads: int) -> Servable:
        raise AttributeError("no such attribute")

    with pytest.raises(ArtifactError, match="cannot be loaded: AttributeError: no such attribute"):
        load_version(write_onnx(tmp_path, 1), load, 1)


def test_a_version_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    def load(directory: Path, file: str, threads: int) -> Servable:
        loaded = onnx(directory, file, threads)
        (directory / "model.onnx").write_bytes(b"the next one")
        return loaded

    with pytest.raises(ArtifactError, match="was changed while it was read"):
        load_version(write_onnx(tmp_path, 1), load, 1)


@pytest.mark.parametrize("mislaid", ["model.onnx", "fashion/model.onnx"])
def test_where_no_model_is_found_the_layout_is_named(tmp_path: Path, mislaid: str) -> None:
    file = tmp_path / "repository" / mislaid
    file.parent.mkdir(parents=True)
    (write_onnx(tmp_path, 1) / "model.onnx").rename(file)
    with running("onnxruntime", tmp_path, ready=False) as server:
        server.wait_for_log("no model was found; expected <model>/<version>/model.onnx below")
