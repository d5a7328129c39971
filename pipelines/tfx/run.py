"""A run on TFX: its DAG up to a blessed model, then the steps that every run has, from PyTorch to publishing."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import shutil
import time
from functools import partial
from pathlib import Path

from pipelines.gates import Check, GateError
from pipelines.records import fingerprint
from pipelines.records.lineage import Artifact, Execution
from pipelines.records.recording import Recorder
from pipelines.stages import Orchestrate, Recipe, Report
from pipelines.tfx import EXTRA, environment, sources, splits
from pipelines.tfx.environment import PINS, Container, Native
from pipelines.tfx.request import IN_MEMORY, Answer, Request
from pipelines.training.record import intact
from pipelines.validation import Published, statistics
from serving import repository
from serving.errors import TandemError
from serving.platforms import images
from serving.settings import Settings

STATES = {"COMPLETE": "complete", "CACHED": "cached"}


class PipelineError(TandemError):
    """A component failed; its words and the log's place are in the message."""


def training(of_default_runner: str) -> str:
    """The fingerprint of a training whose libraries, and the gates before it, are others than the default runner's."""
    own = [of_default_runner, PINS.read_text(), sources.digest(["pipelines.tfx.dag"])]
    return hashlib.sha256("\0".join(own).encode()).hexdigest()


def orchestrated(recipe: Recipe, beam: str, report: Report) -> tuple[Recipe, Orchestrate]:
    """The recipe of a version whose TensorFlow side TFX trains, and what trains it.

    `beam` are options of Beam's pipelines as on a command line; "" runs them in this process. Raises `PlatformError`
    where TFX cannot run, and `PipelineError` where the model is not trained from drawn weights, as a whole.
    """
    model, settings, trained = recipe.model, recipe.settings, training(recipe.training_fingerprint)
    lacking = ""
    if model.spec.checkpoint or recipe.profile.frozen:
        lacking = f"whole networks from drawn weights, and {model.spec.name} starts from a checkpoint"
    elif "tensorflow" not in model.frameworks or not model.spec.batched:
        lacking = f"a network of batches in Keras, which {model.spec.name} has not"
    elif settings.precision != "float32":
        lacking = f"in float32, not in {settings.precision}"
    elif settings.all_devices != 1 or settings.device == "gpu":
        lacking = f"on one CPU, not on {settings.all_devices} (device {settings.device})"
    if lacking:
        raise PipelineError(f"TFX trains {lacking}: take the default orchestrator")
    version = fingerprint.version_of(
        model, trained, settings.source, settings.torchserve_form, settings.targets
    )
    where = environment.choose(settings)
    report(f"TFX runs {'in its image' if where.name == 'docker' else 'natively'}")
    recipe = dataclasses.replace(
        recipe, training_fingerprint=trained, version_fingerprint=version, orchestrator="tfx"
    )
    return recipe, partial(orchestrate, where, beam, report)


def orchestrate(
    where: Container | Native,
    beam: str,
    report: Report,
    recipe: Recipe,
    run: Recorder,
    published: Published | None,
) -> None:
    """Run the DAG, record its components, and take in what it blessed.

    Raises `GateError` where a gate refused it, `PlatformError` where TFX cannot run, `PipelineError` where it failed.
    """
    settings = recipe.settings
    where.prepare(settings, report)
    request = dataclasses.replace(new_request(recipe, published, beam), server_image=where.server_image)
    started = time.monotonic()
    answer = ask(where, settings, request, report)
    record(answer, recipe, run)
    times = ", ".join(f"{name} {step.seconds:.1f}" for name, step in answer.steps.items())
    report(f"TFX took {time.monotonic() - started:.0f} s; by ML Metadata its components took: {times}")
    if answer.error:
        raise PipelineError(f"TFX failed: {answer.error}; all it said: {settings.logs / 'tfx.log'}")
    checks = answer.checks + [Check("data", f"TFDV: {text}", 1, "<=", 0) for text in answer.anomalies]
    run.require(checks)
    take(answer, recipe.folder / "tensorflow", run)
    score = recipe.model.spec.task.score
    report(f"TFX blessed a model with {score} {answer.metrics[score]:.4f}")


def new_request(recipe: Recipe, published: Published | None, beam: str) -> Request:
    """A request for these sources, with the files that it names."""
    settings, spec = recipe.settings, recipe.model.spec
    parts = splits.of_dataset(recipe.dataset)
    request = Request(
        model=spec.name,
        profile=spec.profile(settings.profile),
        seed=settings.seed,
        folder=settings.artifacts / "tfx" / spec.name,
        data=splits.digest(parts),
        published="" if published is None else statistics.to_json(published.statistics),
        version=0 if published is None else published.version,
        beam=tuple(shlex.split(beam)) or (IN_MEMORY,),
        spread=float(recipe.dataset.test.targets.var(axis=0).mean()),
    )
    if not request.rows.exists():
        splits.write(parts, request.rows)
    return request


def ask(where: Container | Native, settings: Settings, request: Request, report: Report) -> Answer:
    """Run the DAG of a request. Raises `PipelineError` where it ended without an answer."""
    asked, answered = request.folder / "request.json", request.folder / "answer.json"
    answered.unlink(missing_ok=True)
    request.write(asked)
    status = environment.run(where, settings, request, ["run", str(asked), str(answered)], report)
    if not answered.exists():
        log = settings.logs / "tfx.log"
        end = "\n  ".join(log.read_text().splitlines()[-10:])
        raise PipelineError(f"TFX ended with status {status} and no answer; the end of {log}:\n  {end}")
    return Answer.read(answered)


def compile(recipe: Recipe, file: str, beam: str, report: Report) -> None:
    """Write the DAG for Kubeflow Pipelines v2 to `file`. Raises as `orchestrate` does."""
    settings = recipe.settings
    where = environment.choose(settings)
    where.prepare(settings, report)
    request = new_request(recipe, None, beam)
    asked, written = request.folder / "compile.json", request.folder / "pipeline.yaml"
    request.write(asked)
    command = ["compile", str(asked), str(written), f"--image={images.reference('tfx')}"]
    status = environment.run(where, settings, request, command, report)
    if status:
        raise PipelineError(f"the DAG could not be compiled; why: {settings.logs / 'tfx.log'}")
    repository.write_atomically(Path(file), written.read_text())
    report(f"Kubeflow: {file}")


def record(answer: Answer, recipe: Recipe, run: Recorder) -> None:
    """Put the DAG's components into the run's record."""
    inputs = tuple(run.described(recipe.dataset))
    for name, step in answer.steps.items():
        state = STATES.get(step.state, "refused" if name == "DataGate" else "failed")
        outputs = (Artifact("Model", "blessed", answer.pushed),) if name == "Pusher" and answer.pushed else ()
        properties = {"run": answer.run, "orchestrator": "tfx"}
        run.executions.append(Execution(name, state, step.seconds, inputs, outputs, properties))


def take(answer: Answer, folder: Path, run: Recorder) -> None:
    """Make the blessed model's weights and history the run's training in TensorFlow. Raises `GateError`."""
    if not answer.pushed:
        raise GateError("TFX's Evaluator blessed no model; what is served stays as it is")
    name = f"models changed since they were trained, in {answer.pushed}"
    changed = int(not intact(Path(answer.pushed) / EXTRA))
    run.require([Check("integrity", name, changed, "<=", 0)])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("history.json", "weights.npz"):
        shutil.copyfile(Path(answer.pushed) / EXTRA / name, folder / name)
        (folder / name).chmod(0o644)
    repository.sync(folder)
