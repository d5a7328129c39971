"""Each framework's part in the published version: records of its run, lines of code of each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from models.base import FRAMEWORKS, NETWORKS, Model
from pipelines import exporting
from pipelines.cli.variants import KERAS, training_folder
from pipelines.training import FITS
from pipelines.training.record import History, loss_difference
from serving import repository, targets
from serving.compare.measure import Subject
from serving.compare.report import Framework
from serving.settings import Settings
from serving.targets.base import served_manifest

GRAPHS = {"tensorflow": "keras_graph", "pytorch": "torch_graph", KERAS: "keras_on_torch"}
CLIENTS = {
    "tf-serving": "targets.tf_serving_client",
    "litert": "targets.open_inference_client",
    "tfjs": "targets.browser",
    "torchserve": "targets.torchserve_client",
    "onnxruntime": "targets.open_inference_client",
}
LIBRARIES = {"tensorflow": ("tensorflow-cpu", "tensorflow"), "pytorch": ("torch",), KERAS: ("keras",)}


def measured(settings: Settings, model: Model, version: int, rows: Iterable[Subject] = ()) -> list[Framework]:
    """Return the records of a published version's run, without a framework whose run is not among the artifacts.

    Keras on PyTorch has one if it has rows.
    """
    root, name = settings.repository, model.spec.name
    folders = [repository.version_dir(root, target, name, version) for target in targets.NAMES]
    manifests = dict(zip(targets.NAMES, map(repository.read_manifest, folders), strict=True))
    first, found = manifests[targets.NAMES[0]], []
    keras = [(own.settings, own.row.target) for own in rows if own.row.framework == KERAS]
    by_keras = {target: served_manifest(own, target) for own, target in keras if own}
    runs = {framework: training_folder(settings, first, framework) for framework in FRAMEWORKS}
    if by_keras and (beside := runs["tensorflow"]):
        runs[KERAS] = beside.with_name(KERAS)
    histories = {framework: History.read(run / "history.json") for framework, run in runs.items() if run}
    for framework, history in histories.items():
        sources = by_keras if framework == KERAS else manifests
        own = {target: made for target, made in sources.items() if made.source == framework}
        library = next((name for name in LIBRARIES[framework] if name in first.libraries), "")
        found.append(
            Framework(
                framework,
                f"{library} {first.libraries.get(library, '')}".strip(),
                [dataclasses.asdict(epoch) for epoch in history.epochs],
                history.seconds,
                first.metrics.get(f"{framework}/{model.spec.task.score}"),
                history.peak_bytes,
                history.arithmetic,
                history.step_seconds,
                history.waiting,
                {target: made.export_seconds for target, made in own.items() if made.export_seconds},
                lines(model, framework, list(own)),
                loss_difference(histories.get("tensorflow", history), history),
            )
        )
    return found


def lines(model: Model, framework: str, names: list[str]) -> dict[str, int]:
    """Return the lines of code of a framework's network, training, export and clients for these targets."""
    exports = [GRAPHS[framework], *(targets.load(name).exporter for name in names)]
    # It runs TensorFlow's, too.
    fits = [FITS[framework], *([FITS["tensorflow"]] if framework == KERAS else [])]
    clients = {f"serving.{CLIENTS[name]}" for name in names if name in CLIENTS}
    return {
        "network": _code(model.folder / f"{NETWORKS.get(framework, 'keras_model')}.py"),
        "training": sum(_code(_source(module)) for module in fits),
        "export": sum(_code(_source(f"pipelines.exporting.{module}")) for module in exports),
        "clients": sum(_code(_source(module)) for module in clients),
    }


def _source(module: str) -> Path:
    return Path(exporting.__file__).parents[2] / f"{module.replace('.', '/')}.py"


def _code(path: Path) -> int:
    """Return the number of lines that are neither empty nor a comment; 0 if there is no such file."""
    kept = (line.strip() for line in path.read_text().splitlines()) if path.exists() else ()
    return sum(bool(line) and not line.startswith("#") for line in kept)
