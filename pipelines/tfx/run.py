"""A run on TFX: its DAG up to a blessed model, then the steps that every run has, from PyTorch to publishing."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import shutil
import time
from functools import partial
from pathlib import Path

from models.classification import Classification
from pipelines import data
from pipelines.gates import Check, GateError
from pipelines.records import fingerprint
from pipelines.records.lineage import Artifact, Execution
from pipelines.records.recording import Recorder
from pipelines.stages import Orchestrate, Recipe, Report
from pipelines.tfx import EXTRA, environment, sources
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
    """A component failed; the message has its error and the path of the log."""


def training(of_default_runner: str) -> str:
    """Return the fingerprint of a training by TFX, which has libraries and gates of its own."""
    own = [of_default_runner, PINS.read_text(), sources.digest(["pipelines.tfx.dag"])]
    return hashlib.sha256("\0".join(own).encode()).hexdigest()


def require(recipe: Recipe) -> None:
    """Raise `PipelineError` if TFX cannot train this model."""
    model, settings = recipe.model, recipe.settings
    lacking = ""
    if model.spec.checkpoint or recipe.profile.frozen:
        lacking = f"whole networks from drawn weights, and {model.spec.name} starts from a checkpoint"
    elif "tensorflow" not in model.frameworks or not model.spec.batched:
        lacking = f"a network of batches in Keras, which {model.spec.name} has not"
    elif not isinstance(model.spec.task, Classification):
        lacking = f"classifications, and {model.spec.name} is a {model.spec.task.kind}"
    elif settings.precision != "float32":
        lacking = f"in float32, not in {settings.precision}"
    elif settings.alone.devices != 1 or settings.device == "gpu":
        lacking = f"on one CPU, not on {settings.alone.devices} (device {settings.device})"
    if lacking:
        raise PipelineError(f"TFX trains {lacking}: take the default orchestrator")


def orchestrated(recipe: Recipe, beam: str, report: Report) -> tuple[Recipe, Orchestrate]:
    """Return the recipe of a version whose TensorFlow side TFX trains, and the function that trains it.

    `beam` are options of Beam's pipelines as on a command line; "" runs them in one process. Raises `PlatformError` if
    TFX cannot run here, and `PipelineError` if it cannot train this model.
    """
    require(recipe)
    model, settings, trained = recipe.model, recipe.settings, training(recipe.training_fingerprint)
    version = fingerprint.version_of(model, settings, trained)
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
    """Run the DAG, record its components, and take over the blessed model.

    Raises `GateError` if a gate refused it, `PlatformError` if TFX cannot run, `PipelineError` if it failed.
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
    run.require(answer.checks)
    take(answer, recipe.folder / "tensorflow", run)
    score = recipe.model.spec.task.score
    report(f"TFX blessed a model with {score} {answer.metrics[score]:.4f}")


def new_request(recipe: Recipe, published: Published | None, beam: str) -> Request:
    """Return a request for this recipe, and write its records."""
    from pipelines.tfx import examples

    settings, spec = recipe.settings, recipe.model.spec
    folder, parts = settings.artifacts / "tfx" / spec.name, recipe.dataset.splits
    contents = data.digest(*parts.values()) + sources.digest(["pipelines.tfx.examples"])
    records = folder / "records" / hashlib.sha256(contents.encode()).hexdigest()[:16]
    examples.write(spec, parts, records)
    return Request(
        model=spec.name,
        profile=spec.profile(settings.profile),
        seed=settings.seed,
        folder=folder,
        records=records,
        published="" if published is None else statistics.to_json(published.statistics),
        version=0 if published is None else published.version,
        beam=tuple(shlex.split(beam)) or (IN_MEMORY,),
    )


def ask(where: Container | Native, settings: Settings, request: Request, report: Report) -> Answer:
    """Run the DAG of a request. Raises `PipelineError` if it ends without an answer."""
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
    require(recipe)
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
    """Add the DAG's components to the run's record."""
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
