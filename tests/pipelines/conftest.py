from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

import models.base
from models.data import Rows
from pipelines import publish
from pipelines.validation import schema, statistics
from serving import targets
from tests.pipelines.project import MODEL, Project, enlarged
from tests.pipelines.test_publish import manifests


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(_template: Project, tmp_path: Path) -> Project:
    """Sources in a folder of their own, with a model `sample` and no data yet."""
    shutil.copytree(_template.folder, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def pictures(sample: Rows) -> tuple[Rows, Rows]:
    """Some thousand pictures to train and to test with."""
    return enlarged(sample)


@pytest.fixture
def served(project: Project, pictures: tuple[Rows, Rows]) -> Project:
    """A project that serves a version 1 from good pictures: its artifacts are placeholders, as no server runs."""
    fashion = models.base.load("fashion")
    found = statistics.of_dataset(project.put(*pictures), fashion.spec, schema.load(fashion))
    candidate = project.folder / "candidate"
    for target in targets.NAMES:
        (candidate / target).mkdir(parents=True)
        (candidate / target / "model.bin").write_text("model")
    own = {target: dataclasses.replace(one, model=MODEL) for target, one in manifests("good").items()}
    publish.publish(project.repository, MODEL, candidate, own, statistics.to_json(found))
    return project
