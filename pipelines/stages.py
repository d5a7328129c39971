"""The stages in order: data, train, export, gate, publish. Each takes values and returns values."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import models.base
from models.base import FRAMEWORKS, Model, Weights, count_parameters
from pipelines import data, exporting, fingerprint, gates, publish, rollout, samples, training
from pipelines.data import Dataset
from pipelines.gates import Check
from pipelines.rollout import Report
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained
from serving import repository, targets
from serving.repository import Manifest
from serving.settings import Settings

CALIBRATION_PICTURES = 500
"""How many validation pictures int8 quantization is calibrated on."""


class BusyError(Exception):
    """Another command works on the same artifacts."""


@dataclass(frozen=True)
class Sources:
    """What a version is made from, before anything is made."""

    settings: Settings
    model: Model
    dataset: Dataset
    training: str
    version: str

    @property
    def run(self) -> Path:
        """Where this training lies; trainings of other sources lie beside it."""
        name = f"{self.model.spec.name}-{self.settings.profile}-seed{self.settings.seed}-{self.training[:10]}"
        return self.settings.artifacts / "runs" / name

    @property
    def candidate(self) -> Path:
        """Where the artifacts wait for their gates."""
        return self.settings.artifacts / "candidates" / f"{self.model.spec.name}-{self.version[:10]}"

    def source(self, target: str) -> str:
        """The framework whose weights go to a target."""
        return self.settings.source or targets.load(target).source


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


def sources(settings: Settings, report: Report, progress: data.Progress | None = None) -> Sources:
    """Load the model and its data."""
    model = models.base.load(settings.model)
    model.spec.profile(settings.profile)
    report(f"data: {model.spec.data.name}")
    cache = settings.artifacts / "data" / model.spec.data.name
    dataset = data.load(model.spec.data, cache, settings.seed, progress)
    trained = fingerprint.training(model, settings.profile, settings.seed, dataset.digest)
    return Sources(settings, model, dataset, trained, fingerprint.version_of(model, trained, settings.source))


def train(made_from: Sources, report: Report) -> dict[str, Trained]:
    """Train in both frameworks, unless they are trained already."""
    model, settings, dataset = made_from.model, made_from.settings, made_from.dataset
    plan = BatchPlan(dataset.train, model.spec.profile(settings.profile), settings.seed)
    result = {}
    for framework in FRAMEWORKS:
        if Trained.read(framework, made_from.run / framework) is None:
            report(f"train {framework}: profile {settings.profile}, {plan.profile.epochs} epochs")
        else:
            report(f"train {framework}: done already, in {made_from.run.name}")
        result[framework] = training.train(framework, model, plan, dataset.validation, made_from.run)
    return result


def export(made_from: Sources, trained: Mapping[str, Trained], report: Report) -> Path:
    """Write the artifact of every target; returns their folder."""
    weights = {target: trained[made_from.source(target)].weights for target in targets.NAMES}
    calibration = made_from.dataset.validation.floats()[:CALIBRATION_PICTURES]
    exporting.export_all(
        made_from.model, weights, made_from.candidate, calibration, lambda target: report(f"export {target}")
    )
    return made_from.candidate


def gate(made_from: Sources, trained: Mapping[str, Trained], report: Report) -> dict[str, dict[str, float]]:
    """Hold data, training and artifacts against their limits; returns each framework's test metrics.

    Writes every figure to `gates.json` in the run's folder, passed or not. Raises `GateError`.
    """
    from pipelines import reference

    settings, model, test = made_from.settings, made_from.model, made_from.dataset.test
    spec = model.spec
    report("gates: data, quality, training parity")
    checks = gates.data(spec, made_from.dataset)
    found = {
        framework: gates.metrics(
            reference.logits(model, framework, trained[framework].weights, test.floats()),
            test.labels,
            spec.classes,
        )
        for framework in FRAMEWORKS
    }
    checks += gates.quality(spec, spec.profile(settings.profile), found, _published_metrics(made_from))
    checks += gates.training(spec, trained["tensorflow"].history, trained["pytorch"].history)
    report(f"gates: parity and size on {gates.PARITY_PICTURES} test pictures")
    checks += artifact_checks(made_from, {name: one.weights for name, one in trained.items()})
    record = {
        "passed": all(check.passed for check in checks),
        "metrics": found,
        "checks": [dataclasses.asdict(check) | {"passed": check.passed} for check in checks],
    }
    repository.write_atomically(made_from.run / "gates.json", json.dumps(record, indent=1) + "\n")
    gates.require(checks)
    return found


def artifact_checks(made_from: Sources, weights: Mapping[str, Weights]) -> list[Check]:
    """Parity and size of every variant of every artifact, and of the second road to ONNX."""
    from pipelines import reference
    from pipelines.exporting import onnx_from_tensorflow

    model, folder = made_from.model, made_from.candidate
    images, labels = gates.parity_pictures(made_from.dataset.test, made_from.settings.seed)
    expected = {name: reference.logits(model, name, own, images) for name, own in weights.items()}
    checks: list[Check] = []
    for target in targets.NAMES:
        exporter, source = exporting.load(target), made_from.source(target)
        parameters = count_parameters(weights[source])
        for precision, file in exporter.variants.items():
            path = folder / target / file
            name = f"{target} {precision} from {source}"
            outputs = exporter.run(path, images)
            checks += gates.parity(model.spec, name, precision, outputs, expected[source], labels)
            # An artifact of one variant may have its weights in files of their own.
            own = path if len(exporter.variants) > 1 else folder / target
            checks += gates.size(name, precision, own, parameters)
    cross = folder / ".cross-check.onnx"
    onnx_from_tensorflow.write(model, weights["tensorflow"], cross)
    outputs = onnx_from_tensorflow.run(cross, images)
    name = "onnx by tf2onnx from tensorflow"
    return checks + gates.parity(model.spec, name, "float32", outputs, expected["tensorflow"], labels)


def publish_candidate(made_from: Sources, found: Mapping[str, Mapping[str, float]], report: Report) -> int:
    """Publish the gated candidate as the next version; returns it."""
    spec, settings = made_from.model.spec, made_from.settings
    created = datetime.now(UTC).isoformat(timespec="seconds")
    libraries = fingerprint.libraries(fingerprint.TRAINING_LIBRARIES + fingerprint.EXPORTING_LIBRARIES)
    shape = [-1, *spec.image_shape]
    signature = {
        "inputs": {spec.input_name: {"dtype": "float32", "shape": shape}},
        "outputs": {
            name: {"dtype": "float32", "shape": [-1, len(spec.classes)]} for name in spec.output_names
        },
    }
    manifests = {
        target: Manifest(
            model=spec.name,
            version=0,
            target=target,
            source=made_from.source(target),
            files={},
            serve=exporting.load(target).serve,
            signature=signature,
            metrics={f"{f}/{name}": value for f, own in found.items() for name, value in own.items()},
            data_digest=made_from.dataset.digest,
            seed=settings.seed,
            fingerprint=made_from.version,
            created=created,
            git_commit=fingerprint.git_commit(),
            libraries=libraries,
        )
        for target in targets.NAMES
    }
    version = publish.publish(settings.repository, spec.name, made_from.candidate, manifests)
    shutil.rmtree(made_from.candidate)
    report(f"published version {version}")
    return version


def ensure_published(made_from: Sources, report: Report) -> int:
    """Have a published version that was made from these sources; makes it where there is none.

    A version that a rollback holds stays, until the sources change.
    """
    root, name = made_from.settings.repository, made_from.model.spec.name
    publish.settle(root, name)
    now = publish.pointer(root, name)
    existing = publish.find(root, name, made_from.version)
    if existing is None:
        trained = train(made_from, report)
        export(made_from, trained, report)
        return publish_candidate(made_from, gate(made_from, trained, report), report)
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


def deploy(settings: Settings, report: Report, progress: data.Progress | None = None) -> rollout.Deployment:
    """From nothing, or from whatever is there, to five targets that answer with the version of these sources."""
    made_from = sources(settings, report, progress)
    version = ensure_published(made_from, report)
    samples.write(made_from.model.spec, made_from.dataset.test, rollout.sample_folder(settings))
    return rollout.serve(settings, version, report)


def _published_metrics(made_from: Sources) -> dict[str, dict[str, float]]:
    root, name = made_from.settings.repository, made_from.model.spec.name
    now = publish.pointer(root, name)
    if now is None:
        return {}
    folder = repository.version_dir(root, targets.NAMES[0], name, now.version)
    found: dict[str, dict[str, float]] = {framework: {} for framework in FRAMEWORKS}
    for key, value in repository.read_manifest(folder).metrics.items():
        framework, _, metric = key.partition("/")
        found[framework][metric] = value
    return found
