"""TFX's DAG in its container, on the sample pictures: it blesses, it remembers, it refuses.

The first run is a user's. Of the others, those that need its state run in one container after it, and those on harmed
pictures in one beside it: importing TensorFlow and TFX takes longer than most runs of so few pictures.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.base import Model
from models.data import Rows
from pipelines.exporting import reference
from pipelines.gates import GateError
from pipelines.records.recording import Recorder
from pipelines.stages import Recipe
from pipelines.tfx import environment, run
from pipelines.tfx.environment import Container, Native
from pipelines.tfx.request import Answer
from pipelines.training import record
from pipelines.training.record import Trained
from pipelines.validation import Published, schema, statistics
from tests.pipelines.tfx import samples, several
from tests.pipelines.tfx.samples import HARMS, Script

pytestmark = [pytest.mark.tfx, pytest.mark.timeout(900)]

DATA = ["ImportExampleGen", "SchemaGen", "StatisticsGen", "ExampleValidator", "RowValidator"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, model: Model, sample: Rows) -> Recipe:
    """One state for all runs of this file, as a user's is."""
    return samples.sources(tmp_path_factory.mktemp("tfx"), model, samples.dataset(sample))


@pytest.fixture(scope="module")
def where(recipe: Recipe) -> Container | Native:
    found = environment.choose(recipe.settings)
    assert isinstance(found, Container)
    found.prepare(recipe.settings, print)
    return found


def in_one_process(
    where: Container | Native, runs: Sequence[tuple[str, Recipe]], before: Published | None
) -> Path:
    """Runs of the same state, one after the other; returns the folder that has a folder of each by its name."""
    for name, sources in runs:
        request = run.new_request(sources, before, "")
        request.write(request.folder / "several" / name / "request.json")
    folder = request.folder / "several"
    folders = [str(folder / name) for name, _ in runs]
    with where.command(sources.settings, request) as command:
        script = ["--entrypoint=python", command[-1], "-c", Path(several.__file__).read_text()]
        done = subprocess.run([*command[:-1], *script, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return folder


@pytest.fixture(scope="module")
def refusing(where: Container, recipe: Recipe) -> Iterator[Future[Path]]:
    """The runs on harmed pictures, with a state and a container of their own, beside the other runs."""
    settings = recipe.settings
    apart = dataclasses.replace(settings, artifacts=settings.artifacts / "harmed", project="tandem-harmed")
    own = dataclasses.replace(recipe, settings=apart)
    runs = [
        (name, dataclasses.replace(own, dataset=samples.harmed(recipe.dataset, harm)))
        for name, (harm, _) in HARMS.items()
    ]
    before = Published(1, statistics.of_dataset(recipe.dataset, recipe.model.spec, schema.load(recipe.model)))
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(in_one_process, where, runs, before)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """The lines that the first run reports."""
    return []


@pytest.fixture(scope="module")
def first(refusing: Future[Path], where: Container, recipe: Recipe, said: list[str]) -> Recorder:
    """The run that everything else is compared with."""
    recorder = Recorder(recipe.settings.artifacts, recipe.folder, recipe.model.spec)
    run.orchestrate(where, "", said.append, recipe, recorder, None)
    return recorder


@pytest.fixture(scope="module")
def blessed(first: Recorder, recipe: Recipe) -> Answer:
    """TFX's answer to the first run."""
    return Answer.read(recipe.settings.artifacts / "tfx" / "fashion" / "answer.json")


@pytest.fixture(scope="module")
def strongest(blessed: Answer, recipe: Recipe) -> str:
    """The class that the first model knows best."""
    return max(recipe.model.spec.task.classes, key=lambda name: blessed.metrics[f"accuracy/{name}"])


@pytest.fixture(scope="module")
def later(where: Container, recipe: Recipe, blessed: Answer, strongest: str) -> Path:
    """The runs after the first: of the same sources, with another limit, with another seed."""
    profile = dataclasses.replace(samples.PROFILE, minimum_score=1.01)
    spec = dataclasses.replace(recipe.model.spec, profiles={"quick": profile})
    short = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, spec=spec))
    lost = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=2))
    file = recipe.settings.artifacts / "tfx" / "fashion" / "several" / "lost" / several.LOST
    file.parent.mkdir(parents=True)
    file.write_text(f"{spec.task.classes.index(strongest)} {blessed.pushed}")
    return in_one_process(where, [("again", recipe), ("short", short), ("lost", lost)], None)


def taken_in(recipe: Recipe, folder: Path) -> tuple[Recorder, str]:
    """Take over the answer of a run. Returns the record, and the reason of a refusal."""
    where: Any = Script(f"cp {folder}/answer.json $3")
    recorder, why = Recorder(recipe.settings.artifacts, recipe.folder, recipe.model.spec), ""
    try:
        run.orchestrate(where, "", print, recipe, recorder, None)
    except GateError as refusal:
        why = str(refusal)
    return recorder, why


def states(recorder: Recorder) -> dict[str, str]:
    return {execution.type: execution.state for execution in recorder.executions}


def cached(recorder: Recorder) -> set[str]:
    return {name for name, state in states(recorder).items() if state == "cached"}


def test_a_blessed_model_becomes_the_runs_training(first: Recorder, recipe: Recipe) -> None:
    folder = recipe.folder / "tensorflow"
    assert record.intact(folder)
    trained = Trained.read("tensorflow", folder)
    assert trained is not None
    assert len(trained.history.epochs) == samples.PROFILE.epochs
    expected = {*DATA, "DataGate", "Trainer", "LatestBlessedModel", "Evaluator", "Pusher"}
    assert expected <= set(states(first))
    assert set(states(first).values()) == {"complete"}
    assert "accuracy" in [check.name for check in first.checks]


def test_components_epochs_and_times_are_said(first: Recorder, said: list[str]) -> None:
    names = [name for name, state in states(first).items() if state == "complete" and name != "SchemaGen"]
    assert {f"tfx: {name}" for name in names} <= set(said)
    trainer = said.index("tfx: Trainer")
    assert said[trainer + 1 : trainer + 3] == ["tfx: Epoch 1/2", "tfx: Epoch 2/2"]
    times = {execution.type: execution.seconds for execution in first.executions}
    assert times["Trainer"] > 1
    assert f"Trainer {times['Trainer']:.1f}" in said[-2]


def test_evaluator_and_our_own_gate_measure_the_same(blessed: Answer, recipe: Recipe) -> None:
    trained = Trained.read("tensorflow", Path(blessed.pushed) / "assets.extra")
    assert trained is not None
    test = recipe.dataset.test
    spec = recipe.model.spec
    inputs = test.served(spec.signature)
    logits = reference.outputs(recipe.model, "tensorflow", trained.weights, inputs)["logits"]
    ours = spec.task.metrics(logits, test.targets)
    del ours["macro_f1"]
    assert blessed.metrics == pytest.approx(ours, abs=1e-6)


def test_tfdv_and_our_own_statistics_are_the_same(later: Path, recipe: Recipe) -> None:
    ours = statistics.of_dataset(recipe.dataset, recipe.model.spec, schema.load(recipe.model))
    theirs = json.loads((later / "again" / "statistics.json").read_text())
    assert set(theirs) == set(ours)
    for name, own in ours.items():
        found, image = theirs[name], own.inputs["image"]
        assert (found["rows"], found["classes"]) == (own.rows, own.classes)
        assert (found["values"], found["zeros"]) == (image.values, image.zeros)
        assert (found["minimum"], found["maximum"]) == (image.minimum, image.maximum)
        assert (found["mean"], found["std"]) == pytest.approx((image.mean, image.std), abs=1e-6)


def test_a_second_run_trains_nothing(later: Path, recipe: Recipe) -> None:
    again, why = taken_in(recipe, later / "again")
    assert not why
    # The blessed model that Evaluator compares with is another one now.
    assert cached(again) == {*DATA, "DataGate", "Trainer"}


def test_another_limit_trains_nothing_and_what_falls_short_is_refused(later: Path, recipe: Recipe) -> None:
    refused, why = taken_in(recipe, later / "short")
    assert "FAIL evaluator: accuracy 0." in why
    assert "(limit >= 1.01)" in why
    assert cached(refused) == {*DATA, "DataGate", "Trainer"}


def test_another_seed_trains_again_and_a_model_that_lost_one_class_only_is_refused(
    later: Path, recipe: Recipe, blessed: Answer, strongest: str
) -> None:
    refused, why = taken_in(recipe, later / "lost")
    assert cached(refused) == {*DATA, "DataGate"}
    lost = f"accuracy/{strongest}"
    assert (
        f"FAIL evaluator: {lost}, less the blessed model's -{blessed.metrics[lost]:.6g} (limit >= -0.05)"
        in why
    )
    assert not [line for line in why.splitlines() if "accuracy/" in line and lost not in line]


def test_what_was_refused_was_not_pushed(later: Path, blessed: Answer) -> None:
    answers = {name: Answer.read(later / name / "answer.json") for name in ("again", "short", "lost")}
    pushed = {str(folder) for folder in (later.parent / "pushed").iterdir()}
    assert pushed == {blessed.pushed, answers["again"].pushed}
    assert (answers["short"].pushed, answers["lost"].pushed) == ("", "")


@pytest.mark.parametrize("harm", list(HARMS))
def test_broken_pictures_stop_before_the_training(refusing: Future[Path], recipe: Recipe, harm: str) -> None:
    folder = refusing.result()
    refused, why = taken_in(recipe, folder / harm)
    assert f"FAIL data: {HARMS[harm][1]}" in why
    assert states(refused)["DataGate"] == "refused"
    assert {"Trainer", "Evaluator", "Pusher"}.isdisjoint(states(refused))
    assert not (folder.parent / "pushed").exists()
