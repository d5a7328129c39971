"""TFX's DAG in its container, on the sample pictures: it blesses, it remembers, it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.base import Model
from pipelines.data import Dataset, Pictures
from pipelines.gates import GateError
from pipelines.recording import Recorder
from pipelines.sources import Sources
from pipelines.tfx import environment, run
from pipelines.tfx.environment import Container, Native
from pipelines.tfx.request import Answer
from pipelines.training import record
from pipelines.training.record import Trained
from pipelines.validation import Published, statistics
from tests.pipelines.tfx import samples

pytestmark = [pytest.mark.tfx, pytest.mark.timeout(900)]

DATA = (
    "ImportExampleGen",
    "SchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "SkewValidator",
    "PictureValidator",
)


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


def states(recorder: Recorder) -> dict[str, str]:
    return {execution.type: execution.state for execution in recorder.executions}


def answer(made_from: Sources) -> Answer:
    return Answer.read(made_from.settings.artifacts / "tfx" / "fashion" / "answer.json")


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


def test_evaluator_and_our_own_gate_measure_the_same(first: Recorder, made_from: Sources) -> None:
    from pipelines import gates, reference

    trained = Trained.read("tensorflow", made_from.run / "tensorflow")
    assert trained is not None
    test = made_from.dataset.test
    logits = reference.logits(made_from.model, "tensorflow", trained.weights, test.floats())
    ours = gates.metrics(logits, test.labels, made_from.model.spec.classes)
    assert answer(made_from).metrics == pytest.approx(ours, abs=1e-6)


def test_tfdv_and_our_own_statistics_are_the_same(first: Recorder, made_from: Sources) -> None:
    ours = statistics.of_dataset(made_from.dataset, 10)
    theirs = answer(made_from).statistics
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


def test_a_second_run_trains_nothing(first: Recorder, where: Container, made_from: Sources) -> None:
    again = Recorder(made_from.model.spec.classes)
    run.orchestrate(where, "", made_from, again, print)
    cached = {name for name, state in states(again).items() if state == "cached"}
    # The blessed model that Evaluator compares with is another one now.
    assert cached - {"InfraValidator"} == {*DATA, "DataGate", "Trainer"}


def test_a_changed_seed_trains_again_and_what_falls_short_is_refused(
    first: Recorder, where: Container, made_from: Sources
) -> None:
    pushed = sorted(pushed_models(made_from))
    spec = made_from.model.spec
    out_of_reach = dataclasses.replace(samples.PROFILE, minimum_accuracy=1.01)
    changed = dataclasses.replace(
        made_from,
        settings=dataclasses.replace(made_from.settings, seed=2),
        model=dataclasses.replace(
            made_from.model, spec=dataclasses.replace(spec, profiles={"quick": out_of_reach})
        ),
    )
    refused = Recorder(spec.classes)
    with pytest.raises(GateError, match=r"evaluator: accuracy 0\.\d+ \(limit >= 1\.01\)"):
        run.orchestrate(where, "", changed, refused, print)
    assert {name for name, state in states(refused).items() if state == "cached"} == {*DATA, "DataGate"}
    assert sorted(pushed_models(made_from)) == pushed


def test_drifted_pictures_stop_before_the_training(
    first: Recorder, where: Container, made_from: Sources
) -> None:
    def dimmed(part: Pictures) -> Pictures:
        return Pictures((255 - part.images // 2).astype(np.uint8), part.labels)

    pushed = sorted(pushed_models(made_from))
    dataset = made_from.dataset
    drifted = Dataset(dimmed(dataset.train), dimmed(dataset.validation), dimmed(dataset.test), "drifted")
    refused = Recorder(made_from.model.spec.classes)
    refused.published = Published(1, statistics.of_dataset(dataset, 10))
    with pytest.raises(GateError, match=r"above the threshold 0\.01"):
        run.orchestrate(where, "", dataclasses.replace(made_from, dataset=drifted), refused, print)
    assert states(refused)["DataGate"] == "refused"
    assert "Trainer" not in states(refused)
    assert sorted(pushed_models(made_from)) == pushed
    ours = [
        check.figure for check in refused.checks if check.name.endswith("version 1: pixels, Jensen-Shannon")
    ]
    tfdv = {
        check.name: check.figure for check in refused.checks if check.name.endswith("image, Jensen-Shannon")
    }
    found = [tfdv[f"{name}_{name}: image, Jensen-Shannon"] for name in samples.SPLITS]
    assert found == pytest.approx(ours, abs=0.05)


def pushed_models(made_from: Sources) -> list[Path]:
    return list((made_from.settings.artifacts / "tfx" / "fashion" / "pushed").iterdir())
