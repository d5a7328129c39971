"""The steps of a run: each takes values, returns values, and tells its recorder what it read, wrote and found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from models.base import FRAMEWORKS, ModelSpec, Weights, count_parameters
from pipelines import exporting, fingerprint, gates, lineage, publish, training, validation
from pipelines.exporting import batching
from pipelines.gates import Check
from pipelines.lineage import Artifact
from pipelines.recording import Recorder
from pipelines.rollout import Report
from pipelines.sources import Sources
from pipelines.training import record
from pipelines.training.batches import BatchPlan
from pipelines.training.record import Trained
from pipelines.validation import Published, schema, statistics
from serving import repository, targets
from serving.repository import Manifest

CALIBRATION_PICTURES = 500
"""How many validation pictures int8 quantization is calibrated on."""
GOLDEN_PICTURES = 2
"""How many validation pictures travel with each artifact, to be asked where it is served."""


def validate(made_from: Sources, run: Recorder, report: Report) -> None:
    """Hold the data against its schema, itself and the published version's. Raises `GateError`."""
    model, dataset = made_from.model, made_from.dataset
    rules = schema.load(model)
    curated = Artifact(
        "Schema", schema.FILE, str(schema.path(model)), repository.file_digest(schema.path(model))
    )
    report(f"validate: {sum(map(len, statistics.splits(dataset).values()))} pictures")
    run.published = _published_statistics(made_from)
    before = [] if run.published is None else [_published_artifact(made_from, run.published)]
    with run.step("ExampleValidator", [made_from.examples, curated, *before]) as step:
        validated = validation.validate(dataset, rules, model.spec.classes, run.published)
        run.statistics = validated.statistics
        path = made_from.run / "statistics.json"
        repository.write_atomically(path, statistics.to_json(validated.statistics))
        step.outputs.append(made_from.artifact("ExampleStatistics", path.name, path))
        run.require(validated.checks)


def train(made_from: Sources, run: Recorder, report: Report) -> dict[str, Trained]:
    """Train in both frameworks, unless they are trained already. Raises `GateError` where a training was changed."""
    model, settings, dataset = made_from.model, made_from.settings, made_from.dataset
    plan = BatchPlan(dataset.train, model.spec.profile(settings.profile), settings.seed)
    result = {}
    for framework in FRAMEWORKS:
        folder = made_from.run / framework
        with run.step("Trainer", [made_from.examples], framework=framework) as step:
            changed = int(not record.intact(folder))
            name = f"{framework}: trainings in {folder} that were changed since they ended"
            run.require([Check("integrity", name, changed, "<=", 0)])
            if not (folder / "weights.npz").exists():
                report(f"train {framework}: profile {settings.profile}, {plan.profile.epochs} epochs")
            else:
                report(f"train {framework}: done already, in {made_from.run.name}")
                step.state = "cached"
            result[framework] = training.train(framework, model, plan, dataset.validation, made_from.run)
            run.histories = {**run.histories, framework: result[framework].history}
            step.outputs.append(made_from.model_artifact(result[framework]))
    return result


def evaluate(made_from: Sources, trained: Mapping[str, Trained], run: Recorder, report: Report) -> None:
    """Hold the trained networks against their limits, the published version and each other. Raises `GateError`."""
    from pipelines import reference

    settings, model, test = made_from.settings, made_from.model, made_from.dataset.test
    spec = model.spec
    report("gates: quality, training parity")
    models_of = [made_from.model_artifact(one) for one in trained.values()]
    with run.step("Evaluator", [made_from.examples, *models_of]) as step:
        run.metrics = {
            framework: gates.metrics(
                reference.logits(model, framework, trained[framework].weights, test.floats()),
                test.labels,
                spec.classes,
            )
            for framework in FRAMEWORKS
        }
        step.outputs += [
            Artifact("ModelEvaluation", name, properties=dict(own)) for name, own in run.metrics.items()
        ]
        profile = spec.profile(settings.profile)
        checks = gates.quality(profile, run.metrics, _published_metrics(made_from))
        checks += gates.training(profile, trained["tensorflow"].history, trained["pytorch"].history)
        run.require(checks)


def export(made_from: Sources, trained: Mapping[str, Trained], run: Recorder, report: Report) -> Path:
    """Write the artifact of every target; returns their folder."""
    from pipelines import reference

    weights = {target: trained[made_from.source(target)].weights for target in targets.NAMES}
    calibration = made_from.dataset.validation.floats()[:CALIBRATION_PICTURES]
    samples = made_from.dataset.validation.floats()[:GOLDEN_PICTURES]
    golden = {
        name: reference.golden(made_from.model, name, one.weights, samples) for name, one in trained.items()
    }
    with run.step("Exporter", [made_from.model_artifact(one) for one in trained.values()]) as step:
        exporting.export_all(
            made_from.model,
            weights,
            made_from.candidate,
            calibration,
            {target: golden[made_from.source(target)] for target in targets.NAMES},
            made_from.settings.torchserve_form,
            lambda target: report(f"export {target}"),
        )
        step.outputs += made_from.candidates()
    return made_from.candidate


def gate(made_from: Sources, trained: Mapping[str, Trained], run: Recorder, report: Report) -> None:
    """Hold every artifact against its source framework, its size and its seal, and see whether it may be batched.

    Raises `GateError`.
    """
    report(f"gates: parity, size and batching on {gates.PARITY_PICTURES} test pictures")
    with run.step("InfraValidator", made_from.candidates()):
        run.require(
            [
                Check(
                    "integrity",
                    f"{target}: files of the artifact that were changed since its export",
                    len(repository.broken_seal(made_from.candidate / target)),
                    "<=",
                    0,
                )
                for target in targets.NAMES
            ]
        )
        run.require(artifact_checks(made_from, {name: one.weights for name, one in trained.items()}))
        found = batching_checks(made_from)
        run.batched = {target: all(check.passed for check in own) for target, own in found.items()}
        checks = [check for own in found.values() for check in own]
        for check in checks:
            if not check.passed and not check.refuses:
                report(str(check))
        run.require(checks)


def artifact_checks(made_from: Sources, weights: Mapping[str, Weights]) -> list[Check]:
    """Parity and size of every variant of every artifact, and of the second road to ONNX."""
    from pipelines import reference
    from pipelines.exporting import conformance, onnx, onnx_from_tensorflow

    model, folder = made_from.model, made_from.candidate
    images, labels = gates.parity_pictures(made_from.dataset.test, made_from.settings.seed)
    expected = {name: reference.logits(model, name, own, images) for name, own in weights.items()}
    runs, signature = conformance.batches(images), _signature(model.spec)
    extremes = {
        name: [reference.logits(model, name, own, run) for run in runs] for name, own in weights.items()
    }
    checks: list[Check] = []
    for target in targets.NAMES:
        exporter = exporting.load(target, made_from.settings.torchserve_form)
        source = made_from.source(target)
        parameters = count_parameters(weights[source])
        for precision, file in exporter.variants.items():
            # An artifact of one variant may have its weights in files of their own.
            whole = len(exporter.variants) == 1
            name = f"{target} ({exporter.runtime}) {precision} from {source}"
            with conformance.alone(folder / target, file, whole) as path:
                outputs = exporter.run(path, images)
                checks += gates.parity(model.spec, name, precision, outputs, expected[source], labels)
                checks += gates.size(name, precision, path.parent if whole and file else path, parameters)
                if exporter.backend:
                    own = path.parent if file else path
                    faults = conformance.untruths(exporter.backend, own, file, signature)
                    checks.append(gates.truth(name, faults))
                if precision == "float32":
                    answers = {name: exporter.answer}
                    if exporter.backend == "onnxruntime":
                        answers[f"{name}, unoptimized"] = partial(onnx.answer, optimized=False)
                    for label, answer in answers.items():
                        apart = conformance.difference(partial(answer, path), extremes[source], runs)
                        checks.append(gates.extremes(model.spec, label, apart))
    cross = folder / ".cross-check.onnx"
    onnx_from_tensorflow.write(model, weights["tensorflow"], cross)
    outputs = onnx_from_tensorflow.run(cross, images)
    name = "onnx by tf2onnx from tensorflow"
    return checks + gates.parity(model.spec, name, "float32", outputs, expected["tensorflow"], labels)


def batching_checks(made_from: Sources) -> dict[str, list[Check]]:
    """By target: whether each variant of its artifact answers a row alike, alone and in company."""
    images, _ = gates.parity_pictures(made_from.dataset.test, made_from.settings.seed)
    checks: dict[str, list[Check]] = {}
    for target in targets.NAMES:
        exporter = exporting.load(target)
        for precision, file in exporter.variants.items():
            answer = partial(exporter.answer, made_from.candidate / target / file)
            check = gates.batching(
                made_from.model.spec,
                f"{target} {precision}",
                batching.difference(answer, images),
                exporter.always_batched,
            )
            checks.setdefault(target, []).append(check)
    return checks


def publish_candidate(
    made_from: Sources, trained: Mapping[str, Trained], run: Recorder, report: Report
) -> int:
    """Publish the gated candidate as the next version; returns it."""
    spec, settings = made_from.model.spec, made_from.settings
    created = datetime.now(UTC).isoformat(timespec="seconds")
    libraries = fingerprint.libraries(fingerprint.TRAINING_LIBRARIES + fingerprint.EXPORTING_LIBRARIES)
    exporters = {target: exporting.load(target, settings.torchserve_form) for target in targets.NAMES}
    manifests = {
        target: Manifest(
            model=spec.name,
            version=0,
            target=target,
            source=made_from.source(target),
            files=repository.read_seal(made_from.candidate / target),
            serve=exporter.serve,
            runtime=exporter.runtime,
            instruction_set=dict(exporter.instruction_set),
            signature=_signature(spec),
            metrics={f"{f}/{name}": value for f, own in run.metrics.items() for name, value in own.items()},
            data_digest=made_from.dataset.digest,
            seed=settings.seed,
            fingerprint=made_from.version,
            created=created,
            git_commit=fingerprint.git_commit(),
            libraries=libraries,
            parameters=made_from.parameters,
            weights={framework: one.digest for framework, one in trained.items()},
            batched=run.batched[target],
            # A picture has no NaN.
            finite=True,
        )
        for target, exporter in exporters.items()
    }
    with run.step("Pusher", made_from.candidates()) as step:
        version = publish.publish(
            settings.repository, spec.name, made_from.candidate, manifests, statistics.to_json(run.statistics)
        )
        run.version = version
        step.outputs += [
            made_from.artifact(
                "PushedModel",
                target,
                repository.version_dir(settings.repository, target, spec.name, version),
                lineage.digest(manifest.files),
            )
            for target, manifest in manifests.items()
        ]
    shutil.rmtree(made_from.candidate)
    report(f"published version {version}")
    return version


def _signature(spec: ModelSpec) -> dict[str, Any]:
    shape = [-1, *spec.image_shape]
    return {
        "inputs": {spec.input_name: {"dtype": "float32", "shape": shape}},
        "outputs": {
            name: {"dtype": "float32", "shape": [-1, len(spec.classes)]} for name in spec.output_names
        },
    }


def _published_statistics(made_from: Sources) -> Published | None:
    root, name = made_from.settings.repository, made_from.model.spec.name
    now = publish.pointer(root, name)
    text = None if now is None else publish.statistics(root, name, now.version)
    return None if now is None or text is None else Published(now.version, statistics.from_json(text))


def _published_artifact(made_from: Sources, published: Published) -> Artifact:
    settings = made_from.settings
    path = repository.statistics_path(settings.repository, made_from.model.spec.name, published.version)
    return made_from.artifact("ExampleStatistics", f"version {published.version}", path)


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
