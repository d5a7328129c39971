"""Each framework's part in the published version: records of its run, lines of code of each step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from models.base import FRAMEWORKS, NETWORKS, Model
from pipelines import exporting
from pipelines.cli.variants import training_folder
from pipelines.training import FITS
from pipelines.training.record import History
from serving import repository, targets
from serving.compare.report import Framework
from serving.settings import Settings

GRAPHS = {"tensorflow": "keras_graph", "pytorch": "torch_graph"}
CLIENTS = {
    "tf-serving": "targets.tf_serving_client",
    "litert": "targets.open_inference_client",
    "tfjs": "targets.browser",
    "torchserve": "targets.torchserve_client",
    "onnxruntime": "targets.open_inference_client",
}
LIBRARIES = {"tensorflow": ("tensorflow-cpu", "tensorflow"), "pytorch": ("torch",)}


def measured(settings: Settings, model: Model, version: int) -> list[Framework]:
    """Return the records of a published version's run, without a framework whose run is not among the artifacts."""
    folders = [
        repository.version_dir(settings.repository, name, model.spec.name, version) for name in targets.NAMES
    ]
    manifests = dict(zip(targets.NAMES, map(repository.read_manifest, folders), strict=True))
    first, found = manifests[targets.NAMES[0]], []
    for framework in FRAMEWORKS:
        folder = training_folder(settings, first, framework)
        if folder is None:
            continue
        history = History.read(folder / "history.json")
        own = {name: manifest for name, manifest in manifests.items() if manifest.source == framework}
        library = next((name for name in LIBRARIES[framework] if name in first.libraries), "")
        found.append(
            Framework(
                framework,
                f"{library} {first.libraries.get(library, '')}".strip(),
                [dataclasses.asdict(epoch) for epoch in history.epochs],
                history.seconds,
                first.metrics.get(f"{framework}/{model.spec.task.score}"),
                history.peak_bytes,
                {name: manifest.export_seconds for name, manifest in own.items() if manifest.export_seconds},
                lines(model, framework, list(own)),
            )
        )
    return found


def lines(model: Model, framework: str, names: list[str]) -> dict[str, int]:
    """Return the lines of code of a framework's network, training, export and clients for these targets."""
    exports = [GRAPHS[framework], *(targets.load(name).exporter for name in names)]
    clients = {f"serving.{CLIENTS[name]}" for name in names if name in CLIENTS}
    return {
        "network": _code(model.folder / f"{NETWORKS[framework]}.py"),
        "training": _code(_source(FITS[framework])),
        "export": sum(_code(_source(f"pipelines.exporting.{module}")) for module in exports),
        "clients": sum(_code(_source(module)) for module in clients),
    }


def _source(module: str) -> Path:
    return Path(exporting.__file__).parents[2] / f"{module.replace('.', '/')}.py"


def _code(path: Path) -> int:
    """Return the number of lines that are neither empty nor a comment; 0 if there is no such file."""
    kept = (line.strip() for line in path.read_text().splitlines()) if path.exists() else ()
    return sum(bool(line) and not line.startswith("#") for line in kept)
