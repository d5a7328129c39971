"""Models and servers for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..processes import ServerProcess, running_tfs
from .clients import Grpc
from .saved_models import model_config, write_half_plus, write_half_plus_two, write_shapes, write_types


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it is slow: TensorFlow starts in many ways."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """half_plus_two in version 123, half_plus in versions 1 to 3, types and shapes; not to be changed."""
    root = tmp_path_factory.mktemp("conformance")
    write_half_plus_two(root / "half_plus_two", 123)
    for version in (1, 2, 3):
        write_half_plus(root / "half_plus", version)
    write_types(root / "types")
    write_shapes(root / "shapes")
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[ServerProcess]:
    """A server of every model of `models`, all versions of each, with the metrics on."""
    everything = "model_version_policy { all { } }"
    names = ("half_plus_two", "half_plus", "types", "shapes")
    config = models / "models.config"
    config.write_text(model_config(**{name: f"{models / name} {everything}" for name in names}))
    monitoring = models / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    flags = (f"--model_config_file={config}", f"--monitoring_config_file={monitoring}")
    versions = [f"half_plus/versions/{version}" for version in (1, 2, 3)]
    with running_tfs(models, *flags, models=(*names, *versions)) as server:
        yield server


@pytest.fixture(scope="session")
def grpc_client(server: ServerProcess) -> Iterator[Grpc]:
    """The stubs of `server`."""
    with Grpc(server.grpc) as client:
        yield client
