"""Our side of a run on TFX: what goes over, what comes back, and what is made of it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base import Model
from models.data import Rows
from models.regression import Regression
from pipelines.gates import Check, GateError
from pipelines.records.recording import Recorder
from pipelines.stages import Recipe
from pipelines.tfx import environment, examples, run
from pipelines.tfx.request import Answer, Request, Step
from pipelines.training import record
from pipelines.training.record import Epoch, History, Trained
from pipelines.validation import Published, schema, statistics
from serving.platforms import images
from tests.pipelines.tfx import samples
from tests.pipelines.tfx.samples import Script


@pytest.fixture
def recipe(tmp_path: Path, model: Model, sample: Rows) -> Recipe:
    return samples.sources(tmp_path, model, samples.dataset(sample))


def recording(recipe: Recipe) -> Recorder:
    return Recorder(recipe.settings.artifacts, recipe.folder, recipe.model.spec)


def orchestrate(recipe: Recipe, answer: Answer, tmp_path: Path) -> tuple[Recorder, list[str]]:
    answer.write(tmp_path / "answer.json")
    say = "echo INFO:absl:Component Trainer is running."
    where: Any = Script(f"{say}; cp {tmp_path}/answer.json $3")
    recorder, said = recording(recipe), list[str]()
    try:
        run.orchestrate(where, "", said.append, recipe, recorder, None)
    except GateError as error:
        said.append(str(error))
    return recorder, said


def pushed(model: Model, folder: Path) -> str:
    history = History([1.0], [Epoch(1.0, 0.5, 1.0, 0.5)], 1.0)
    Trained("tensorflow", model.initial_weights(1), history).write(folder / "assets.extra")
    return str(folder)


def test_what_was_blessed_becomes_the_runs_training(recipe: Recipe, tmp_path: Path) -> None:
    steps = {"StatisticsGen": Step("CACHED", 0.1), "Pusher": Step("COMPLETE", 0.2)}
    checks = [Check("evaluator", "accuracy", 0.9, ">=", 0.5)]
    folder = pushed(recipe.model, tmp_path / "pushed" / "1")
    answer = Answer("run 1", steps, checks, metrics={"accuracy": 0.9}, pushed=folder)
    recorder, said = orchestrate(recipe, answer, tmp_path)
    assert record.intact(recipe.folder / "tensorflow")
    assert (recipe.folder / "tensorflow" / "weights.npz").exists()
    assert [(one.type, one.state) for one in recorder.executions] == [
        ("StatisticsGen", "cached"),
        ("Pusher", "complete"),
    ]
    assert recorder.checks[0] == checks[0]
    assert [(check.gate, check.figure) for check in recorder.checks[1:]] == [("integrity", 0)]
    assert said[0] == "tfx: Trainer"
    assert said[1].endswith("by ML Metadata its components took: StatisticsGen 0.1, Pusher 0.2")
    assert said[2] == "TFX blessed a model with accuracy 0.9000"


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        ({"precision": "bf16"}, {}, "in float32, not in bf16"),
        ({"devices": 2}, {}, "on one CPU, not on 2"),
        ({}, {"task": Regression(("price",))}, "classifications, and fashion is a regression"),
        ({}, {"batched": False}, "a network of batches in Keras"),
    ],
)
def test_a_model_that_tfx_cannot_train_is_refused(
    recipe: Recipe, settings: dict[str, Any], spec: dict[str, Any], message: str
) -> None:
    model = dataclasses.replace(recipe.model, spec=dataclasses.replace(recipe.model.spec, **spec))
    own = dataclasses.replace(recipe.settings, **settings)
    with pytest.raises(run.PipelineError, match=f"TFX trains {message}.*: take the default orchestrator"):
        run.orchestrated(dataclasses.replace(recipe, model=model, settings=own), "", print)


def test_what_was_refused_is_not_taken_and_says_why(recipe: Recipe, tmp_path: Path) -> None:
    steps = {"DataGate": Step("FAILED", 0.1)}
    checks = [Check("data", "TFDV: test: image: Unexpectedly large value: 2.", 1, "<=", 0)]
    answer = Answer("run 1", steps, checks)
    recorder, said = orchestrate(recipe, answer, tmp_path)
    assert [(one.type, one.state) for one in recorder.executions] == [("DataGate", "refused")]
    assert "TFDV: test: image: Unexpectedly large value: 2." in said[-1]
    assert not (recipe.folder / "tensorflow").exists()


def test_a_model_without_a_blessing_is_not_taken(recipe: Recipe, tmp_path: Path) -> None:
    _, said = orchestrate(recipe, Answer("run 1", {"Evaluator": Step("COMPLETE", 1.0)}), tmp_path)
    assert "blessed no model" in said[-1]
    assert not (recipe.folder / "tensorflow").exists()


def test_an_end_without_an_answer_is_an_error_with_the_logs_end(recipe: Recipe) -> None:
    where: Any = Script("echo Killed; exit 137")
    ended = r"status 137 and no answer; the end of .*tfx\.log:\n  Killed"
    with pytest.raises(run.PipelineError, match=ended):
        run.orchestrate(where, "", lambda _: None, recipe, recording(recipe), None)


def test_a_request_comes_over_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    found = statistics.of_dataset(recipe.dataset, recipe.model.spec, schema.load(recipe.model))
    published = Published(3, found)
    request = run.new_request(recipe, published, "--runner=FlinkRunner --parallelism=4")
    assert request.beam == ("--runner=FlinkRunner", "--parallelism=4")
    assert json.loads(request.published)["train"]["rows"] == 310
    request.write(tmp_path / "request.json")
    assert Request.read(tmp_path / "request.json") == request
    test = examples.read([str(request.records / "test.gz")], recipe.model.spec)
    assert np.array_equal(test.inputs["image"], recipe.dataset.test.inputs["image"])
    assert np.array_equal(test.targets, recipe.dataset.test.targets)


def test_what_tfx_is_doing_is_said_and_ctrl_c_ends_it(recipe: Recipe, tmp_path: Path) -> None:
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if line == "tfx: Epoch 1/2":
            raise KeyboardInterrupt

    lines = "INFO:absl:Component Trainer is running.\nEpoch 1/2"
    where: Any = Script(f"echo $$ >{tmp_path}/pid; echo '{lines}'; exec sleep 60")
    with pytest.raises(KeyboardInterrupt):
        run.orchestrate(where, "", report, recipe, recording(recipe), None)
    assert said == ["tfx: Trainer", "tfx: Epoch 1/2"]
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        # Ended, though its parent may not have asked yet how.
        if not (status := Path(f"/proc/{pid}/stat")).exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} goes on")


def test_the_dag_for_kubeflow_runs_in_this_version_of_the_image(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: Any = Script('test "$1" = compile && test -s "$2" && echo "$4" >"$3"')
    monkeypatch.setattr(environment, "choose", lambda _settings: where)
    file = tmp_path / "kubeflow" / "pipeline.yaml"
    run.compile(recipe, str(file), "", lambda _line: None)
    assert file.read_text() == f"--image={images.reference('tfx')}\n"
    where.line = "exit 1"
    with pytest.raises(run.PipelineError, match=r"could not be compiled; why: .*tfx\.log"):
        run.compile(recipe, str(file), "", lambda _line: None)
