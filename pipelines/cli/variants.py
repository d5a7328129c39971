"""Other forms of what is published: each made from the weights of its run, gated, and laid out for a server of its own.

They lie in `artifacts/variants`, each as a folder of artifacts with a model repository of one version.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.base import Model, ModelError
from models.data import Dataset
from models.signature import rows
from pipelines import exporting, training
from pipelines.gates import require
from pipelines.training import keras_on_torch
from pipelines.training.record import History, Trained
from serving import golden, repository
from serving.golden import Golden
from serving.progress import say
from serving.repository import GOLDEN, MANIFEST, POINTER, Manifest, ManifestError, Pointer
from serving.settings import Settings
from serving.targets.base import SAMPLES, TargetError


@dataclass(frozen=True)
class Variant:
    """One row more for each protocol of a target, or for what runs in process only."""

    target: str
    name: str
    """In the report, after the target's."""
    form: str = ""
    """Of the target's exporter, which makes it; "" takes the published files."""
    precision: str = "float32"
    batched: bool | None = None
    """True if requests share runs; None: as far as the gate allows."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Of TorchServe's archive, other than the exporter's."""
    source: str = ""
    """The framework whose weights it has; "" is the published one's."""

    @property
    def base(self) -> str:
        """Return the target whose published version gives it weights and signature."""
        return "torchserve" if self.target == EXECUTORCH else self.target


KERAS = keras_on_torch.NAME
EXECUTORCH = "executorch"
"""A runtime of phones, which has no server."""
VARIANTS = (
    Variant("litert", "float16", precision="float16"),
    Variant("litert", "int8", precision="int8"),
    Variant("onnxruntime", "int8", form="int8", precision="int8"),
    Variant("onnxruntime", "unbatched", batched=False),
    Variant("torchserve", "exported", form="exported"),
    Variant("torchserve", "aot", form="aot"),
    Variant("torchserve", "onnx", form="onnx"),
    Variant("torchserve", "batched", batched=True, configuration={"batchSize": 8, "maxBatchDelay": 1}),
    Variant("onnxruntime", KERAS, form=KERAS, source=KERAS),
    Variant("torchserve", KERAS, form=KERAS, source=KERAS),
    Variant(EXECUTORCH, "float32", form="float32"),
    Variant(EXECUTORCH, "int8", form="int8", precision="int8"),
)
"""A further row is an entry here."""

NULL_HANDLER = """
import json

import torch
from handler import Handler


class Null(Handler):
    def load(self, folder, form):
        torch.set_num_threads(1)
        outputs = json.loads((folder / "signature.json").read_text())["outputs"]
        shapes = [tensor["shape"][1:] for tensor in outputs.values()]
        self.network = lambda *tensors: [torch.zeros(len(tensors[0]), *shape) for shape in shapes]
"""


def chosen(model: Model, names: list[str], deployed_form: str) -> list[Variant]:
    """Those of these targets that the model's spec has, but for the form of TorchServe that is deployed."""
    own = [v for v in VARIANTS if v.base in names and v.precision in model.spec.precisions]
    own = [v for v in own if v.target != EXECUTORCH or "pytorch" in model.frameworks]
    return [variant for variant in own if not variant.form or variant.form != deployed_form]


def make(settings: Settings, variant: Variant, model: Model, dataset: Dataset, version: int) -> Settings:
    """Settings whose repository has the variant of a published version; made, and gated, where it is not there.

    Raises `TargetError`, `ExportError`, `GateError` or `ModelError` with the reason why there is none.
    """
    published = repository.version_dir(settings.repository, variant.base, model.spec.name, version)

    def write(folder: Path) -> Manifest:
        manifest = repository.read_manifest(published)
        if (published / SAMPLES).exists():
            shutil.copytree(published / SAMPLES, folder / SAMPLES)
        if variant.form or variant.source:
            made = _exported(settings, variant, model, dataset, manifest, folder)
        else:
            file = exporting.load(variant.target).variants(model)[variant.precision]
            made = replace(manifest, serve=manifest.serve if variant.precision == "float32" else file)
            shutil.copy2(published / made.serve, folder)
            if variant.precision == "float32":
                shutil.copy2(published / GOLDEN, folder)
        if variant.configuration:
            _configure(folder / made.serve, variant.configuration)
        return replace(made, batched=made.batched and variant.batched is not False)

    name = " ".join(dict.fromkeys((variant.name, variant.source))).strip().replace(" ", "-")
    return _laid_out(settings, variant.target, name, published, write)


def null(settings: Settings, target: str, model: Model, version: int) -> Settings:
    """Settings whose repository has a version of a target without a model in it."""
    published = repository.version_dir(settings.repository, target, model.spec.name, version)

    def write(folder: Path) -> Manifest:
        serve = MANIFEST
        if target == "torchserve":
            from pipelines.exporting import torchserve

            serve = "model.mar"
            torchserve.pack(model, folder / serve, {"null.py": NULL_HANDLER.encode()}, handler="null.py")
        manifest = repository.read_manifest(published)
        return replace(manifest, serve=serve, runtime="no model", instruction_set={})

    return _laid_out(settings, target, "null", published, write)


def training_folder(settings: Settings, manifest: Manifest, framework: str) -> Path | None:
    """The run that a version has a framework's weights from; None where it is not among the artifacts."""
    for history in sorted((settings.artifacts / "runs").glob(f"{manifest.model}-*/{framework}/history.json")):
        try:
            if History.read(history).weights_digest == manifest.weights.get(framework):
                return history.parent
        except (ValueError, TypeError, KeyError):
            continue
    return None


def _laid_out(
    settings: Settings, target: str, name: str, published: Path, write: Callable[[Path], Manifest]
) -> Settings:
    """The settings of a folder that `write` has filled; what is there, and unchanged, is left."""
    fingerprint = repository.read_manifest(published).fingerprint[:10]
    own = settings.artifacts / "variants" / f"{settings.model}-{fingerprint}" / f"{target}-{name}"
    made = replace(settings, artifacts=own)
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "web").is_symlink():
        # What the browser loads beside the model is fetched once.
        (own / "web").symlink_to(settings.artifacts / "web")
    folder = repository.version_dir(made.repository, target, settings.model, int(published.name))
    try:
        repository.verify(folder)
    except ManifestError:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incoming-") as incoming:
            beside = Path(incoming)
            manifest = write(beside)
            repository.write_manifest(beside, replace(manifest, files=repository.file_digests(beside)))
            shutil.copytree(beside, folder)
    repository.write_pointer(folder.parent / POINTER, Pointer(int(folder.name)))
    return made


def _exported(
    settings: Settings, variant: Variant, model: Model, dataset: Dataset, published: Manifest, folder: Path
) -> Manifest:
    """Export it, and hold it against its source's own answers; returns its manifest."""
    from pipelines.gates import artifacts

    source, exporter = variant.source or published.source, exporting.load(variant.target, variant.form)
    # Keras on PyTorch answers as it does on TensorFlow.
    judge = "tensorflow" if source == KERAS else source
    if source == KERAS and judge not in model.frameworks:
        raise ModelError(f"{model.spec.name} has no keras_model.py")
    run = training_folder(settings, published, judge)
    trained = Trained.read(judge, run) if run else None
    if run is None or trained is None:
        raise TargetError(f"the weights of its version are not in {settings.artifacts / 'runs'}")
    if source == KERAS:
        trained = _trained_by_keras(model, dataset, published, trained.history, run.parent)
    spec, file = model.spec, exporter.variants(model)[variant.precision]
    calibration = dataset.validation.take(slice(exporting.CALIBRATION_ROWS)).served(spec.signature)
    started = time.monotonic()
    exporter.write(model, trained.weights, folder, calibration)
    seconds = time.monotonic() - started
    test = artifacts.parity_rows(dataset.test, settings.seed)
    label = f"{variant.target} {variant.name}"
    origin = artifacts.Source(model, judge, trained.weights, test)
    checks = artifacts.file_checks(model, exporter, folder / file, variant.precision, origin, label)
    require(checks)
    # A server that reads a golden sample refuses less precise answers.
    if variant.precision == "float32" or variant.target == EXECUTORCH:
        sample = rows(calibration, slice(exporting.GOLDEN_ROWS))
        answers = exporting.reference.outputs(model, judge, trained.weights, sample)
        golden.write(folder, Golden(sample, answers, spec.tolerances.outputs))
    return replace(
        published,
        target=variant.target,
        source=source,
        serve=file,
        weights={**published.weights, source: trained.digest},
        export_seconds=round(seconds, 2),
        runtime=exporter.runtime,
        instruction_set=dict(exporter.instruction_set),
        batched=artifacts.independent_rows(checks),
    )


def _trained_by_keras(
    model: Model, dataset: Dataset, published: Manifest, history: History, folder: Path
) -> Trained:
    """Train once what the version's TensorFlow training was. Raises `ModelError` if that was not on one CPU."""
    if history.arithmetic != "float32 on 1 cpu" or dataset.digest != published.data_digest:
        raise ModelError("the version was trained on other data, or not in float32 on one CPU")
    name = published.parameters["profile"]
    say(f"train {KERAS}: profile {name}")
    return training.train(KERAS, model, model.spec.profile(name), published.seed, dataset, folder)


def _configure(path: Path, changes: Mapping[str, Any]) -> None:
    from pipelines.exporting.torchserve import CONFIGURATION
    from serving.torchserve import archive

    text = "".join(f"{key}: {value}\n" for key, value in {**CONFIGURATION, **changes}.items())
    archive.write_archive(path, archive.read_archive(path) | {"model-config.yaml": text.encode()})
