"""Real data, really broken: the command refuses it before it trains, says by how much, and what is served stays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.data import Rows
from pipelines import publish
from pipelines.records import lineage
from serving import repository
from tests.pictures import labelled
from tests.pipelines.project import MODEL, Project, moved
from tests.pipelines.test_publish import manifests

Break = Callable[[Rows, Rows], tuple[Rows, Rows]]
CLASSES, COAT, SNEAKER, BAG = 10, 4, 7, 8


BOTH = ("train", "test")


def changed(
    images: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    labels: Callable[[np.ndarray], np.ndarray] = lambda y: y,
    splits: tuple[str, ...] = ("train",),
) -> Break:
    """Change pictures or labels of these splits."""

    def harm(train: Rows, test: Rows) -> tuple[Rows, Rows]:
        parts = {"train": train, "test": test}
        for name in splits:
            parts[name] = labelled(images(parts[name].inputs["image"]), labels(parts[name].targets))
        return parts["train"], parts["test"]

    return harm


def swapped(labels: np.ndarray) -> np.ndarray:
    return np.select([labels == SNEAKER, labels == BAG], [BAG, SNEAKER], labels)


swapped_in_training = changed(labels=swapped)


def partly_random(labels: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.where(generator.random(len(labels)) < 0.3, generator.integers(0, CLASSES, len(labels)), labels)


def missing_class(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    return train.take(train.targets != COAT), test


def leaked_pictures(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    joined = [np.concatenate([a, b[:3]]) for a, b in zip(arrays(train), arrays(test), strict=True)]
    return labelled(*joined), test


def arrays(part: Rows) -> tuple[np.ndarray, np.ndarray]:
    return part.inputs["image"], part.targets


def animals_everywhere(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    everything = animals()
    order = np.random.default_rng(0).permutation(len(everything))
    return everything.take(order[300:]), everything.take(order[:300])


def black_pictures(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    images = train.inputs["image"].copy()
    images[np.argmax(train.targets == COAT)] = 0
    return labelled(images, train.targets), test


def animals() -> Rows:
    """13 pictures of each of ten animals, moved: of the same form and of something else (Animal-MNIST, MIT)."""
    with np.load(Path(__file__).parents[1] / "data" / "animal-sample.npz") as file:
        return moved(labelled(file["images"], file["labels"]))


QUICK = [
    (black_pictures, "train: pictures of one colour 1", "<= 0"),
    (missing_class, "train: classes without a row 1", "<= 0"),
    (animals_everywhere, "train: drift from version 1: image, Jensen-Shannon 0.", "<= 0.01"),
    (
        changed(lambda x: x[:, :14, :14], splits=BOTH),
        "train: image: rows that are not uint8 or float32 [28, 28, 1] (they are uint8 [14, 14, 1]) 3872",
        "<= 0",
    ),
]
THOROUGH = [
    (swapped_in_training, "test: labels unlike train's, worst class ", "<= "),
    (changed(labels=swapped, splits=BOTH), "train: labels unlike version 1's, worst class ", "<= "),
    (changed(labels=partly_random), "train: labels unlike version 1's, worst class ", "<= "),
    (
        changed(labels=lambda y: np.r_[[CLASSES] * 2, y[2:]], splits=("test",)),
        "test: labels outside the schema 2",
        "<= 0",
    ),
    (leaked_pictures, "test rows that are training rows too 3", "<= 0"),
    (lambda train, _test: (train, animals()), "test: skew from train: image, Jensen-Shannon 0.", "<= 0.01"),
    (
        changed(lambda x: 255 - x, splits=BOTH),
        "train: drift from version 1: image, Jensen-Shannon 0.",
        "<= 0.01",
    ),
    (changed(lambda x: x[:, ::-1], splits=BOTH), "test: labels unlike version 1's, worst class ", "<= "),
]


@pytest.mark.parametrize(
    ("harm", "check", "limit"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.thorough) for case in THOROUGH)],
)
def test_broken_data_is_refused_before_training(
    served: Project, pictures: tuple[Rows, Rows], harm: Break, check: str, limit: str
) -> None:
    served.put(*harm(*pictures))
    before = served.served()
    done = served.tandem("publish")
    assert done.returncode == 1, done.stdout + done.stderr
    assert served.served() == before
    (line,) = [line for line in done.stderr.splitlines() if f"FAIL data: {check}" in line]
    assert f"(limit {limit}" in line
    assert "==> train" not in done.stdout

    (run,) = lineage.runs(served.artifacts / "lineage", MODEL)
    assert (run.state, run.version) == ("refused", None)
    assert line.strip() in run.reason
    page = (served.artifacts / run.page).read_text()
    assert "Refused: " in page
    assert f"(version {1})" in page
    gates = json.loads((served.artifacts / run.page).with_name("gates.json").read_text())
    assert not gates["passed"]
    assert any(f"data: {one['name']}" in line for one in gates["checks"] if not one["passed"])


@pytest.mark.parametrize("verb", ["train", pytest.param("export", marks=pytest.mark.thorough)])
def test_train_and_export_refuse_broken_data_too(
    project: Project, pictures: tuple[Rows, Rows], verb: str
) -> None:
    project.put(*black_pictures(*pictures))
    done = project.tandem(verb)
    assert done.returncode == 1
    assert "FAIL data: train: pictures of one colour 1 (limit <= 0)" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollback"],
        pytest.param(["rollback", "--version", "1"], marks=pytest.mark.thorough),
        pytest.param(["publish", "--version", "1"], marks=pytest.mark.thorough),
    ],
)
def test_a_published_artifact_that_was_changed_is_not_gone_back_to(
    served: Project, arguments: list[str]
) -> None:
    own = {target: dataclasses.replace(one, model=MODEL) for target, one in manifests("next").items()}
    publish.publish(served.repository, MODEL, served.folder / "candidate", own)
    (repository.version_dir(served.repository, "onnxruntime", MODEL, 1) / "model.bin").write_text("Model")
    before = served.served()
    done = served.tandem(*arguments)
    assert done.returncode == 1
    assert "error: version 1 of sample was tampered with, what is served stays: " in done.stderr
    assert "model.bin was changed: sha256 " in done.stderr
    assert served.served() == before
