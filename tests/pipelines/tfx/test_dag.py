"""TFX's DAG in its container, on the sample pictures: it blesses, it remembers, it refuses.

The first run is a user's. The others run in one more container: TensorFlow and TFX are imported twice in all.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.base import Model
from pipelines import gates, reference
from pipelines.data import Pictures
from pipelines.gates import GateError
from pipelines.recording import Recorder
from pipelines.sources import Sources
from pipelines.tfx import environment, run
from pipelines.tfx.environment import Container, Native
from pipelines.tfx.request import Answer
from pipelines.training import record
from pipelines.training.record import Trained
from pipelines.validation import Published, statistics
from tests.pipelines.tfx import samples, several
from tests.pipelines.tfx.samples import HARMS, Script

pytestmark = [pytest.mark.tfx, pytest.mark.timeout(900)]

DATA = (
    "ImportExampleGen",
    "SchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "SkewValidator",
    "PictureValidator",
)


Orchestrate = Callable[[str], tuple[Recorder, str]]


@pytest.fixture(scope="module")
def made_from(tmp_path_factory: pytest.TempPathFactory, model: Model, sample: Pictures) -> Sources:
    """One state for all runs of this file, as a user's is."""
    return samples.sources(tmp_path_factory.mktemp("tfx"), model, samples.dataset(sample))


@pytest.fixture(scope="module")
def where(made_from: Sources) -> Container | Native:
    found = environment.choose(made_from.settings)
    assert isinstance(found, Container)
    found.prepare(made_from.settings, print)
    return found


@pytest.fixture(scope="module")
def first(where: Container, made_from: Sources) -> Recorder:
    """The run that everything else is compared with."""
    recorder = Recorder(made_from.model.spec.classes)
    run.orchestrate(where, "", made_from, recorder, print)
    return recorder


@pytest.fixture(scope="module")
def blessed(first: Recorder, made_from: Sources) -> Answer:
    """What TFX answered to the first run."""
    return Answer.read(made_from.settings.artifacts / "tfx" / "fashion" / "answer.json")


@pytest.fixture(scope="module")
def strongest(blessed: Answer, made_from: Sources) -> str:
    """The class that the first model knows best."""
    return max(made_from.model.spec.classes, key=lambda name: blessed.metrics[f"accuracy/{name}"])


def of(made_from: Sources, name: str) -> Sources:
    """The sources of a later run."""
    settings, model = made_from.settings, made_from.model
    if name == "short":
        profile = dataclasses.replace(samples.PROFILE, minimum_accuracy=1.01)
        spec = dataclasses.replace(model.spec, profiles={"quick": profile})
        return dataclasses.replace(made_from, model=dataclasses.replace(model, spec=spec))
    if name == "lost":
        return dataclasses.replace(made_from, settings=dataclasses.replace(settings, seed=2))
    if name in HARMS:
        harm, _ = HARMS[name]
        return dataclasses.replace(made_from, dataset=samples.harmed(made_from.dataset, harm))
    return made_from


@pytest.fixture(scope="module")
def answers(where: Container, made_from: Sources, blessed: Answer, strongest: str) -> Path:
    """The folder with the answer of every later run, which one process made one after the other."""
    published = Published(1, statistics.of_dataset(made_from.dataset, 10))
    folder = made_from.settings.artifacts / "tfx" / "fashion" / "several"
    names = ["again", "short", "lost", *HARMS]
    for name in names:
        own = run.new_request(of(made_from, name), published if name in HARMS else None, "")
        own.write(folder / name / "request.json")
    label = made_from.model.spec.classes.index(strongest)
    (folder / "lost" / several.LOST).write_text(f"{label} {blessed.pushed}")
    script = Path(several.__file__).read_text()
    with where.command(made_from.settings, own) as command:
        alone = [*command[:-1], "--entrypoint=python", command[-1], "-c", script]
        done = subprocess.run(
            [*alone, *(str(folder / name) for name in names)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return folder


@pytest.fixture
def orchestrate(answers: Path, made_from: Sources) -> Orchestrate:
    """What a later run comes to on our side, and why it was refused."""

    def play(name: str) -> tuple[Recorder, str]:
        where: Any = Script(f"cp {answers}/{name}/answer.json $3")
        recorder, why = Recorder(made_from.model.spec.classes), ""
        try:
            run.orchestrate(where, "", of(made_from, name), recorder, print)
        except GateError as refusal:
            why = str(refusal)
        return recorder, why

    return play


def states(recorder: Recorder) -> dict[str, str]:
    return {execution.type: execution.state for execution in recorder.executions}


def test_a_blessed_model_becomes_the_runs_training(first: Recorder, made_from: Sources) -> None:
    folder = made_from.run / "tensorflow"
    assert record.intact(folder)
    trained = Trained.read("tensorflow", folder)
    assert trained is not None
    assert len(trained.history.epochs) == samples.PROFILE.epochs
    expected = {*DATA, "DataGate", "Trainer", "LatestBlessedModel", "Evaluator", "BulkInferrer", "Pusher"}
    assert expected <= set(states(first))
    assert set(states(first).values()) == {"complete"}
    assert "accuracy" in [check.name for check in first.checks]


def test_evaluator_and_our_own_gate_measure_the_same(blessed: Answer, made_from: Sources) -> None:
    trained = Trained.read("tensorflow", Path(blessed.pushed) / "assets.extra")
    assert trained is not None
    test = made_from.dataset.test
    logits = reference.logits(made_from.model, "tensorflow", trained.weights, test.floats())
    ours = gates.metrics(logits, test.labels, made_from.model.spec.classes)
    assert blessed.metrics == pytest.approx(ours, abs=1e-6)


def test_tfdv_and_our_own_statistics_are_the_same(blessed: Answer, made_from: Sources) -> None:
    ours = statistics.of_dataset(made_from.dataset, 10)
    theirs = blessed.statistics
    assert set(theirs) == set(ours)
    for name, own in ours.items():
        found = theirs[name]
        assert (found["pictures"], found["values"], found["zeros"]) == (own.pictures, own.values, own.zeros)
        assert (found["minimum"], found["maximum"]) == (own.minimum, own.maximum)
        assert (found["mean"], found["std"]) == pytest.approx((own.mean, own.std), abs=1e-6)
        assert found["classes"] == own.classes


def test_tfdv_and_our_own_validation_measure_the_same(first: Recorder) -> None:
    def figure(name: str) -> float:
        (found,) = (check.figure for check in first.checks if check.name == name)
        return found

    for split in ("validation", "test"):
        ours = figure(f"{split}: skew from train: pixels, Jensen-Shannon")
        # TFDV's histograms are of sketches, so it calls its divergence approximate.
        assert figure(f"{split}_train: image, Jensen-Shannon") == pytest.approx(ours, abs=1e-3)
        ours = figure(f"{split}: skew from train: classes, L-infinity")
        assert figure(f"{split}_train: label, L-infinity") == pytest.approx(ours, abs=1e-6)


def test_a_second_run_trains_nothing(orchestrate: Orchestrate) -> None:
    again, why = orchestrate("again")
    assert not why
    # The blessed model that Evaluator compares with is another one now.
    cached = {name for name, state in states(again).items() if state == "cached"}
    assert cached == {*DATA, "DataGate", "Trainer"}


def test_another_limit_trains_nothing_and_what_falls_short_is_refused(
    orchestrate: Orchestrate, answers: Path
) -> None:
    refused, why = orchestrate("short")
    assert "FAIL evaluator: accuracy 0." in why
    assert "(limit >= 1.01)" in why
    assert {name for name, state in states(refused).items() if state == "cached"} == {
        *DATA,
        "DataGate",
        "Trainer",
    }
    assert not Answer.read(answers / "short" / "answer.json").pushed


def test_another_seed_trains_again_and_a_model_that_lost_one_class_only_is_refused(
    orchestrate: Orchestrate, answers: Path, blessed: Answer, strongest: str
) -> None:
    refused, why = orchestrate("lost")
    assert {name for name, state in states(refused).items() if state == "cached"} == {*DATA, "DataGate"}
    lost = f"accuracy/{strongest}"
    assert (
        f"FAIL evaluator: {lost}, less the blessed model's -{blessed.metrics[lost]:.6g} (limit >= -0.05)"
        in why
    )
    assert not [line for line in why.splitlines() if "accuracy/" in line and lost not in line]
    assert not Answer.read(answers / "lost" / "answer.json").pushed


@pytest.mark.parametrize("harm", list(HARMS))
def test_broken_pictures_stop_before_the_training(orchestrate: Orchestrate, answers: Path, harm: str) -> None:
    refused, why = orchestrate(harm)
    assert f"FAIL data: {HARMS[harm][1]}" in why
    assert states(refused)["DataGate"] == "refused"
    assert {"Trainer", "Evaluator", "Pusher"}.isdisjoint(states(refused))
    assert not Answer.read(answers / harm / "answer.json").pushed


def test_tfdv_sees_drift_and_missing_classes_itself(orchestrate: Orchestrate) -> None:
    drifted, why = orchestrate("drifted")
    assert "above the threshold 0.01" in why
    found = {check.name: check.figure for check in drifted.checks}
    ours = found["train: drift from version 1: pixels, Jensen-Shannon"]
    assert found["train_train: image, Jensen-Shannon"] == pytest.approx(ours, abs=0.05)
    _, why = orchestrate("missing")
    assert "above the threshold 0.03" in why


def test_what_was_refused_was_not_pushed(answers: Path, blessed: Answer) -> None:
    again = Answer.read(answers / "again" / "answer.json").pushed
    pushed = {str(folder) for folder in (answers.parent / "pushed").iterdir()}
    assert pushed == {blessed.pushed, again}
