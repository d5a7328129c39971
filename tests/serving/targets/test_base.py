import dataclasses
from pathlib import Path

import pytest

from serving.repository import Manifest, version_dir, write_manifest
from serving.settings import Settings
from serving.targets.base import runs


@pytest.mark.parametrize(
    ("target", "runtime", "image", "expected"),
    [
        ("torchserve", "PyTorch (torch.export)", "", "PyTorch (torch.export) in TorchServe"),
        ("tf-serving", "TensorFlow", "", "TensorFlow in our stand-in for TensorFlow Serving"),
        ("tf-serving", "TensorFlow", "tensorflow/serving:2.20.0", "TensorFlow in TensorFlow Serving"),
        ("litert", "", "", "unknown runtime in our server"),
    ],
)
def test_a_row_is_named_by_its_version_and_its_server(
    tmp_path: Path, target: str, runtime: str, image: str, expected: str
) -> None:
    settings = Settings(artifacts=tmp_path)
    assert runs(settings, target, None, image).startswith("nothing yet, in ")
    fields = {field.name: "" for field in dataclasses.fields(Manifest)} | {"version": 1, "runtime": runtime}
    write_manifest(version_dir(settings.repository, target, settings.model, 1), Manifest(**fields))  # type: ignore[arg-type]
    assert runs(settings, target, 1, image) == expected
