"""Runtimes in this process: what they refuse, the memory of a model, and what they leave behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.base import Model
from serving import repository
from serving.compare import local
from serving.compare.executorch import Program
from serving.compare.generator import ANSWERS, Generator, Job
from serving.compare.local import IN_PROCESS
from serving.repository import Pointer
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve import archive
from tests.serving.server.artifacts import images, logits, write_manifest, write_onnx


def publish(folder: Path, file: str, model: Model) -> None:
    write_manifest(folder, file)
    manifest = replace(repository.read_manifest(folder), signature=model.spec.signature.to_json())
    repository.write_manifest(folder, manifest)
    repository.write_pointer(folder.parent / repository.POINTER, Pointer(1))


def test_a_model_s_memory_is_what_it_adds_after_a_first_row(tmp_path: Path, model: Model) -> None:
    settings = replace(Settings(), artifacts=tmp_path, model="fashion")
    publish(write_onnx(settings.repository / "onnxruntime" / "fashion", 1), "model.onnx", model)
    client = local.connect(settings, "onnxruntime", IN_PROCESS, {"image": images(1)})
    assert isinstance(client, local.Local)
    assert client.memory is not None
    assert 0 <= client.memory < 100 * 2**20
    np.testing.assert_allclose(client.predict({"image": images(2)})["logits"], logits(images(2)), atol=1e-5)
    client.close()


HANDLER = b"""
class Handler:
    def initialize(self, context):
        pass

    def infer(self, inputs):
        return [inputs["image"].sum((1, 2, 3)), inputs["image"].max((1, 2, 3))]
"""


@pytest.mark.slow
def test_a_generator_that_is_closed_closes_its_clients(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe's archive is unpacked into a temporary folder."""
    settings = replace(Settings(), artifacts=tmp_path, model="fashion")
    folder = settings.repository / "torchserve" / "fashion" / "1"
    folder.mkdir(parents=True)
    manifest = json.dumps({"model": {"handler": "handler.py"}}).encode()
    archive.write_archive(folder / "model.mar", {archive.MANIFEST: manifest, "handler.py": HANDLER})
    publish(folder, "model.mar", model)
    samples, temporary = tmp_path / "samples.npz", tmp_path / "temporary"
    np.savez(samples, image=images(3))
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    generator = Generator()
    answers = generator.do(Job(settings, "torchserve", IN_PROCESS, samples, ANSWERS, rows=2)).answers
    np.testing.assert_allclose(answers["logits"], images(3).sum((1, 2, 3)), rtol=1e-5)
    assert list(temporary.iterdir())
    generator.close()
    assert not generator.is_alive
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("shape", [(129, 2), (1, 3), (2,)])
def test_more_than_a_program_has_memory_for_is_refused(shape: tuple[int, ...]) -> None:
    program = object.__new__(Program)
    program.largest = [(128, 2)]
    with pytest.raises(TargetError, match=r"at most \[128, 2\], got"):
        program([np.zeros(shape, np.float32)])
