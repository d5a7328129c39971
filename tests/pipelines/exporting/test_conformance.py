"""Artifacts that answer test pictures rightly and are wrong all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.signature import BATCH, Signature, Tensor
from pipelines.exporting import conformance
from tests.pictures import Images
from tests.serving.server.artifacts import write_onnx

IMAGES: Images = np.random.default_rng(0).random((70, 28, 28, 1), np.float32)
SIGNATURE = Signature(
    (Tensor("image", "float32", (BATCH, 28, 28, 1)),),
    tuple(Tensor(name, "float32", (BATCH, 10)) for name in ("logits", "probabilities")),
)


def logits(images: Images) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :10]


WRONG: dict[str, Callable[[Images], np.ndarray]] = {
    "one row": lambda x: logits(x) + (len(x) == 1),
    "three rows": lambda x: logits(x) + (len(x) == 3),
    "64 rows": lambda x: logits(x)[:32],
    "zeros": lambda x: logits(x) / np.where(x.max() == 0, np.nan, 1),
    "ones": lambda x: logits(x) - (x.min() == 1),
    "large values": lambda x: logits(x).clip(-100, 100),
}


@pytest.mark.parametrize("fault", ["", *WRONG])
def test_a_difference_that_no_test_picture_shows_is_found(fault: str) -> None:
    runs = conformance.batches({"image": IMAGES})
    assert [len(run["image"]) for run in runs] == [1, 3, 64, 3, 3, 3]
    assert np.abs(runs[-1]["image"]).max() > 1e3
    answers = [{"logits": WRONG.get(fault, logits)(run["image"])} for run in runs]
    apart = conformance.difference(answers, [{"logits": logits(run["image"])} for run in runs])
    assert apart > 0.5 if fault else apart == 0


def test_an_artifact_that_declares_another_signature_is_named(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, 1)
    assert conformance.untruths("onnxruntime", folder, "", SIGNATURE) == []
    graph = onnx.load(folder / "model.onnx")
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(graph, folder / "model.onnx")
    (fault,) = conformance.untruths("onnxruntime", folder, "", SIGNATURE)
    assert fault.startswith("outputs {'logits': ('float32', (2, 10)), ")
    assert "expected {'logits': ('float32', (-1" in fault


def test_an_artifact_is_alone_with_what_is_published_with_it(tmp_path: Path) -> None:
    for name in ("model.bin", "weights.bin", "other.bin"):
        (tmp_path / name).touch()
    with conformance.alone(tmp_path, "model.bin", ["other.bin"]) as path:
        assert sorted(p.name for p in path.parent.iterdir()) == ["model.bin", "weights.bin"]
    with conformance.alone(tmp_path, "", []) as path:
        assert len(list(path.iterdir())) == 3
