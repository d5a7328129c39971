"""A version is verified, loaded and run once, or refused with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serving import golden
from serving.golden import Golden
from serving.repository import GOLDEN, MANIFEST
from serving.server.backends.base import BACKENDS, Servable, loader
from serving.server.errors import ArtifactError
from serving.server.repository.loading import load_version

from .artifacts import images, logits, write_manifest, write_onnx, write_tflite

onnx = loader("onnxruntime")


def test_a_version_without_a_manifest_loads_by_the_backend_s_usual_name(tmp_path: Path) -> None:
    loaded = load_version(write_onnx(tmp_path, 1), onnx, 1)
    signature = loaded.servable.signatures["serving_default"]
    assert [spec.shape for spec in signature.inputs] == [(-1, 28, 28, 1)]
    assert loaded.manifest is None


def test_the_manifest_names_the_file_to_serve(tmp_path: Path) -> None:
    directory = write_onnx(tmp_path, 1)
    (directory / "model.onnx").rename(directory / "other.onnx")
    with pytest.raises(ArtifactError, match=r"has no file model\.onnx; it holds other\.onnx"):
        load_version(directory, onnx, 1)
    write_manifest(directory, "other.onnx")
    assert load_version(directory, onnx, 1).manifest is not None


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.onnx", "other", "was changed: sha256"),
        ("more", "", "more is not listed"),
        ("model.onnx", None, "is missing"),
        (MANIFEST, "[]", "cannot be read as a manifest"),
        (MANIFEST, "files", "cannot be loaded: AttributeError"),
        (MANIFEST, "a folder", "cannot be loaded: IsADirectoryError"),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, content: str | None, reason: str) -> None:
    directory = write_onnx(tmp_path, 1)
    write_manifest(directory, "model.onnx")
    path = directory / file
    manifest = path.read_text() if path.name == MANIFEST else ""
    path.unlink(missing_ok=True)
    if content == "a folder":
        path.mkdir()
    elif content == "files":
        path.write_text(json.dumps(json.loads(manifest) | {"files": []}))
    elif content is not None:
        path.write_text(content)
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


def with_golden(directory: Path, serve: str, version: int, wrong: float = 0) -> Path:
    expected = logits(images(2), version)
    expected[1, 3] += wrong
    golden.write(directory, Golden({"image": images(2)}, {"logits": expected}, 1e-5))
    write_manifest(directory, serve)
    return directory


@pytest.mark.parametrize("backend", ["onnxruntime", "litert", "tensorflow"])
def test_a_version_that_does_not_answer_its_golden_sample_is_refused_with_both_figures(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    directory, serve = tmp_path / "1", BACKENDS[backend]
    if backend == "onnxruntime":
        write_onnx(tmp_path, 1)
    else:
        saved_model = request.getfixturevalue("saved_models") / "fashion" / "1"
        if backend == "litert":
            write_tflite(tmp_path, saved_model)
        else:
            shutil.copytree(saved_model, directory)
            serve = ""
    load_version(with_golden(directory, serve, 1), loader(backend), 1).servable.close()
    figures = r"golden sample: logits differs by 0\.0[12]\d* from .* the limit is 1e-05"
    with pytest.raises(ArtifactError, match=figures):
        load_version(with_golden(directory, serve, 1, wrong=0.02), loader(backend), 1)
    with pytest.raises(ArtifactError, match=r"logits differs by inf .* the limit is 1e-05"):
        load_version(with_golden(directory, serve, 1, wrong=float("nan")), loader(backend), 1)


@pytest.mark.parametrize("content", ["", "{}", '{"tolerance": 1, "inputs": {"image": 1}, "outputs": {}}'])
def test_a_golden_sample_that_cannot_be_read_refuses_the_version(tmp_path: Path, content: str) -> None:
    directory = write_onnx(tmp_path, 1)
    (directory / GOLDEN).write_text(content)
    write_manifest(directory, "model.onnx")
    with pytest.raises(ArtifactError, match="cannot be read as a golden sample"):
        load_version(directory, onnx, 1)
