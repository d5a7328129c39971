"""One server of each kind for all tests that do not change what it serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .artifacts import IDENTITIES, write_identity, write_manifest, write_onnx, write_saved_model
from .processes import ServerProcess, running


@pytest.fixture(scope="session")
def oip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """`tandem-server` with ONNX Runtime, version 1 of `fashion`, bodies of up to 1 MiB, up to 64 rows."""
    root = tmp_path_factory.mktemp("onnxruntime")
    write_onnx(root / "repository" / "fashion", 1)
    limits = ("--max-body-bytes=1048576", "--max-rows=64")
    with running("onnxruntime", root, *limits) as server:
        yield server


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fashion`, `finite` that its manifest calls so, and for each datatype a model that gives back what it gets."""
    root = tmp_path_factory.mktemp("controlled") / "repository"
    write_onnx(root / "fashion", 1)
    write_manifest(write_onnx(root / "finite", 1), "model.onnx", finite=True)
    for datatype, name in IDENTITIES.items():
        write_identity(root / f"same_{datatype.lower()}", name)
    return root


@pytest.fixture(scope="session")
def controlled(repository: Path) -> Iterator[ServerProcess]:
    """`tandem-server` with `repository`, batching and repository control; what a test changes it puts back."""
    with running("onnxruntime", repository.parent, "--repository-control", "--batching") as server:
        yield server


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SavedModel of `fashion`, version 1."""
    root = tmp_path_factory.mktemp("saved_models")
    write_saved_model(root / "fashion" / "1")
    return root
