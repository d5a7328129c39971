"""Runtimes in this process: the memory of a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from models.base import Model
from serving import repository
from serving.compare import local
from serving.compare.local import IN_PROCESS
from serving.repository import Pointer
from serving.settings import Settings
from tests.serving.server.artifacts import images, logits, write_manifest, write_onnx


def test_a_model_s_memory_is_what_it_adds_after_a_first_row(tmp_path: Path, model: Model) -> None:
    settings = replace(Settings(), artifacts=tmp_path, model="fashion")
    folder = write_onnx(settings.repository / "onnxruntime" / "fashion", 1)
    write_manifest(folder, "model.onnx")
    manifest = replace(repository.read_manifest(folder), signature=model.spec.signature.to_json())
    repository.write_manifest(folder, manifest)
    repository.write_pointer(folder.parent / repository.POINTER, Pointer(1))
    client = local.connect(settings, "onnxruntime", IN_PROCESS)
    assert isinstance(client, local.Local)
    assert client.memory is not None
    assert 0 <= client.memory < 100 * 2**20
    np.testing.assert_allclose(client.predict({"image": images(2)})["logits"], logits(images(2)), atol=1e-5)
    client.close()
