"""The stages in order: data, validate, train, evaluate, export, gate, publish, serve. Each is a step in steps.py."""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pipelines import fingerprint, publish, rollout, samples, steps
from pipelines import sources as sourcing
from pipelines.recording import Recorder, recording
from pipelines.rollout import Report
from pipelines.sources import Sources
from pipelines.training.record import Trained
from serving import targets
from serving.settings import Settings


class BusyError(Exception):
    """Another command works on the same artifacts."""


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the artifacts for one command that changes them. Raises `BusyError` naming the holder."""
    settings.artifacts.mkdir(parents=True, exist_ok=True)
    with (settings.artifacts / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                f"process {file.read() or '?'} is changing {settings.artifacts}; try again when it is done"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sources(settings: Settings, report: Report) -> Sources:
    """Load the model and its data."""
    return sourcing.load(settings, report)


def train(made_from: Sources, report: Report) -> dict[str, Trained]:
    """Train in both frameworks, on data that passed its checks."""
    with recorded(made_from, report) as run:
        steps.validate(made_from, run, report)
        return steps.train(made_from, run, report)


Orchestrate = Callable[[Sources, Recorder, Report], None]
"""What an orchestrator of its own does before the steps go on with what it trained."""


def export(made_from: Sources, report: Report, orchestrate: Orchestrate | None = None) -> Path:
    """Train, and write the artifact of every target; returns their folder."""
    with recorded(made_from, report) as run:
        return steps.export(made_from, _trained(made_from, run, report, orchestrate), run, report)


def ensure_published(made_from: Sources, report: Report, orchestrate: Orchestrate | None = None) -> int:
    """Have a published version that was made from these sources; makes it where there is none.

    A version that a rollback holds stays, until the sources change.
    """
    root, name = made_from.settings.repository, made_from.model.spec.name
    publish.settle(root, name)
    now = publish.pointer(root, name)
    existing = publish.find(root, name, made_from.version)
    if existing is None:
        with recorded(made_from, report) as run:
            trained = _trained(made_from, run, report, orchestrate)
            steps.evaluate(made_from, trained, run, report)
            steps.export(made_from, trained, run, report)
            steps.gate(made_from, trained, run, report)
            return steps.publish_candidate(made_from, trained, run, report)
    if now is None or (now.version != existing and not now.held):
        publish.point(root, name, existing)
        report(f"version {existing} was made from these sources already; it is published again")
        return existing
    if now.version != existing:
        report(
            f"version {now.version} is held by a rollback, though these sources are version {existing}; "
            f"`tandem publish --version {existing}` goes on with that"
        )
    else:
        report(f"version {existing} is up to date: nothing to train, export or publish")
    return now.version


def _trained(
    made_from: Sources, run: Recorder, report: Report, orchestrate: Orchestrate | None
) -> dict[str, Trained]:
    steps.validate(made_from, run, report)
    if orchestrate is not None:
        orchestrate(made_from, run, report)
    return steps.train(made_from, run, report)


def deploy(made_from: Sources, report: Report, orchestrate: Orchestrate | None = None) -> rollout.Deployment:
    """From nothing, or from whatever is there, to five targets that answer with the version of these sources."""
    settings = made_from.settings
    with rollout.prepared(settings, report) as told:
        version = ensure_published(made_from, told, orchestrate)
        samples.write(made_from.model.spec, made_from.dataset.test, rollout.sample_folder(settings))
    return rollout.serve(settings, version, report)


def configure_containers(made_from: Sources) -> None:
    """Write what servers read that compose starts: the samples, and their configuration."""
    settings = dataclasses.replace(made_from.settings, platform="docker")
    samples.write(made_from.model.spec, made_from.dataset.test, rollout.sample_folder(settings))
    for name in targets.NAMES:
        targets.load(name).configure(settings)


def recorded(made_from: Sources, report: Report) -> AbstractContextManager[Recorder]:
    """A run of these sources: what it does until the block ends, well or not, is on its page and in the lineage."""
    settings = made_from.settings
    code = {
        "git_commit": fingerprint.git_commit(),
        "fingerprint": made_from.version,
        "libraries": fingerprint.libraries(fingerprint.TRAINING_LIBRARIES + fingerprint.EXPORTING_LIBRARIES),
    }
    spec = made_from.model.spec
    return recording(
        settings.artifacts, made_from.run, spec, made_from.parameters, code, report, made_from.orchestrator
    )
