from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.data import Pictures
from tests.pipelines.project import Project, enlarged


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(_template: Project, tmp_path: Path) -> Project:
    """Sources in a folder of their own, with a model `sample` and no data yet."""
    shutil.copytree(_template.folder, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def pictures(sample: Pictures) -> tuple[Pictures, Pictures]:
    """Some thousand pictures to train and to test with."""
    return enlarged(sample)
