"""One server of each kind for all tests that do not change what it serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .artifacts import (
    IDENTITIES,
    write_identity,
    write_manifest,
    write_onnx,
    write_saved_models,
    write_tflite,
)
from .processes import ServerProcess, running, tandem_server, tandem_tf_serving

CONFIG = """model_config_list {{
  config {{
    name: "fashion"
    base_path: "{root}/fashion"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: {version} }} }}
  }}
  config {{ name: "half_plus_two" base_path: "{root}/half_plus_two" model_platform: "tensorflow" }}
}}
"""


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
    root = tmp_path_factory.mktemp("repository")
    write_onnx(root / "fashion", 1)
    write_manifest(write_onnx(root / "finite", 1), "model.onnx", finite=True)
    for datatype, name in IDENTITIES.items():
        write_identity(root / f"same_{datatype.lower()}", name)
    return root


@pytest.fixture(scope="session")
def controlled(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """`tandem-server` with `repository`, batching and repository control; what a test changes it puts back."""
    flags = ("--repository-control", "--batching")
    server = tandem_server("onnxruntime", repository, tmp_path_factory.mktemp("log") / "log", *flags)
    server.wait_for("/v2/health/ready")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the SavedModels `fashion` and `half_plus_two`."""
    root = tmp_path_factory.mktemp("saved_models")
    write_saved_models(root)
    return root


@pytest.fixture(scope="session")
def model_config(saved_models: Path) -> Path:
    """The model config file of `tfs`."""
    file = saved_models / "models.config"
    file.write_text(CONFIG.format(root=saved_models, version=1))
    return file


@pytest.fixture(scope="session")
def tfs(saved_models: Path, model_config: Path) -> Iterator[ServerProcess]:
    """`tandem-tf-serving` with version 1 of `fashion` by a polled config file, bodies of up to 1 MiB."""
    monitoring = saved_models / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    server = tandem_tf_serving(
        saved_models / "log",
        f"--model_config_file={model_config}",
        "--model_config_file_poll_wait_seconds=0.2",
        f"--monitoring_config_file={monitoring}",
        "--max_body_bytes=1048576",
        "--enable_batching",
        "--flush_filesystem_caches=false",
    )
    server.wait_for("/v1/models/fashion", "AVAILABLE")
    server.wait_for("/v1/models/half_plus_two", "AVAILABLE")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def litert(saved_models: Path) -> Iterator[ServerProcess]:
    """`tandem-server` with LiteRT and version 1 of `fashion`."""
    write_tflite(saved_models / "litert" / "fashion", saved_models / "fashion" / "1")
    server = tandem_server("litert", saved_models / "litert", saved_models / "litert.log")
    server.wait_for("/v2/health/ready")
    yield server
    assert server.stop() == 0
