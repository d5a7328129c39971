"""A version's origin, and making it again: the whole path on small data, once, with what it refuses on the way."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from models.data import Rows
from pipelines.records import lineage
from serving import repository, targets
from serving.repository import Manifest
from tests.pictures import labelled
from tests.pipelines.project import MODEL, Project, enlarged

SECONDS = 1500
LOST = "Trouser"
LOSE_A_CLASS = f"""
import numpy as np
from pipelines import stages
from pipelines.training.record import Trained
from serving.settings import Settings
recipe = stages.load_recipe(Settings.from_environment(), lambda line: None)
before = next(one for one in recipe.folder.parent.iterdir() if (one / "pytorch" / "weights.npz").exists())
for framework in ("tensorflow", "pytorch"):
    trained = Trained.read(framework, before / framework)
    trained.weights["classifier/bias"][recipe.model.spec.task.classes.index("{LOST}")] -= 100
    trained.write(recipe.folder / framework)
"""


def git(project: Project, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=project.folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, sample: Rows) -> Project:
    """A project in git with a version 1, really trained on a few thousand pictures, and a run refused on the way."""
    project = Project.create(tmp_path_factory.mktemp("published") / "project")
    project.train_briefly()
    train, test = enlarged(sample)
    images = train.inputs["image"].copy()
    images[:3] = 0
    project.put(labelled(images, train.targets), test)
    (project.folder / ".gitignore").write_text("artifacts/\n__pycache__/\n")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "black pictures")
    assert project.tandem("publish").returncode == 1
    project.put(train, test)
    git(project, "commit", "--quiet", "--all", "--message", "good pictures")
    done = project.tandem("publish", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def manifest(project: Project) -> Manifest:
    return repository.read_manifest(repository.version_dir(project.repository, "onnxruntime", MODEL, 1))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_lineage_tells_where_a_version_came_from(published: Project) -> None:
    own = manifest(published)
    done = published.tandem("lineage", MODEL, "1")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert f"version 1 of {MODEL}, made {own.created}, published now" in text
    assert f"data        {MODEL} sha256 {own.data_digest}" in text
    assert git(published, "rev-parse", "HEAD") in text
    assert "parameters  seed 1, profile quick" in text
    assert re.search(r"^ExampleValidator +complete ", text, re.MULTILINE)
    assert re.search(r"^Pusher +complete ", text, re.MULTILINE)
    assert "on the way, not published: 1" in text
    assert "FAIL data: train: pictures of one colour 2 (limit <= 0)" in text
    assert "FAIL data: validation: pictures of one colour 1 (limit <= 0)" in text
    (run,) = [one for one in lineage.runs(published.artifacts / "lineage", MODEL) if one.version == 1]
    assert {one.name for one in run.executions[-1].outputs} == set(targets.NAMES)
    assert "Published as version 1" in (published.artifacts / run.page).read_text()


@pytest.mark.thorough
@pytest.mark.timeout(SECONDS)
def test_a_version_is_made_again_from_its_commit(published: Project) -> None:
    before = published.served()
    published.spec.write_text(published.spec.read_text().replace("epochs=2", "epochs=3"))
    try:
        done = published.tandem("reproduce", MODEL, "1", timeout=SECONDS)
    finally:
        git(published, "checkout", "--quiet", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"sources: commit {manifest(published).git_commit[:12]}, in " in done.stdout
    for framework in ("tensorflow", "pytorch"):
        assert f"{framework}: the same weights, to the last bit" in done.stdout
    assert done.stdout.endswith("reproduced\n")
    assert "NOT reproduced" not in done.stdout
    assert published.served() == before


@pytest.mark.thorough
@pytest.mark.timeout(SECONDS)
def test_a_model_that_lost_one_class_only_is_refused(published: Project) -> None:
    # The trained weights, with one class silenced, stand in for the training of changed sources.
    spec = published.spec.read_text()
    published.spec.write_text(spec.replace("epochs=2", "epochs=3"))
    before = published.served()
    try:
        done = published.python("-c", LOSE_A_CLASS)
        assert done.returncode == 0, done.stderr
        done = published.tandem("publish", timeout=SECONDS)
    finally:
        published.spec.write_text(spec)
    assert done.returncode == 1, done.stdout
    assert published.served() == before
    failed = re.findall(r"FAIL (.*)", done.stderr)
    assert [line.split(" 0 (limit >= ")[0] for line in failed if LOST in line] == [
        f"quality: {framework}: accuracy/{LOST} against the published version"
        for framework in ("tensorflow", "pytorch")
    ]
    assert not [line for line in failed if "accuracy/" in line and LOST not in line]
    assert "==> export" not in done.stdout


@pytest.mark.thorough
@pytest.mark.timeout(SECONDS)
def test_an_artifact_that_was_changed_before_its_gate_is_refused(published: Project) -> None:
    # Another set of sources for the exports, the same for the training: artifacts wait, and one of them is changed.
    before = published.served()
    done = published.tandem("export", "--source", "pytorch", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = (published.artifacts / "candidates").glob("*/onnxruntime/model.onnx")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    done = published.tandem("publish", "--source", "pytorch", timeout=SECONDS)
    assert done.returncode == 1, done.stdout
    assert (
        "FAIL integrity: onnxruntime: files of the artifact that were changed since its export 1 (limit <= 0)"
        in (done.stderr)
    )
    assert published.served() == before


def test_what_is_not_there_is_one_clear_line(served: Project) -> None:
    for arguments, message in (
        (
            ["lineage", "nothing", "1"],
            "there is no model 'nothing' in models/; there are: fashion, garments, language, sample",
        ),
        (["reproduce", MODEL, "9"], "version 9 of sample is not in the repository; there are: 1"),
        (["lineage", "fashion"], "no version of fashion is published; `make deploy` publishes the first"),
    ):
        done = served.tandem(*arguments)
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n"), arguments


def test_lineage_without_the_store_tells_what_the_manifest_knows(served: Project) -> None:
    done = served.tandem("lineage", MODEL, "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"version 1 of {MODEL}, made ")
    assert "what is above is from the manifest" in done.stdout
    assert "nothing was refused on the way" in done.stdout


def test_sources_that_changed_and_were_never_committed_cannot_be_made_again(served: Project) -> None:
    for target in targets.NAMES:
        path: Path = repository.version_dir(served.repository, target, MODEL, 1) / "manifest.json"
        fields = json.loads(path.read_text())
        fields |= {"parameters": {"profile": "quick", "seed": 1, "source": ""}, "git_commit": "abc-dirty"}
        path.write_text(json.dumps(fields))
    done = served.tandem("reproduce", MODEL, "1")
    assert done.returncode == 1
    assert "error: version 1 was made from sources that no commit holds (abc-dirty)" in done.stderr
