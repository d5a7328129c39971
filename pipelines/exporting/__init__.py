"""From trained weights to one artifact a target; one file each."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from models.base import Model, Weights
from pipelines.exporting.base import Exporter
from serving import golden, repository
from serving.golden import Golden
from serving.targets.base import Images

MODULES = {
    "tf-serving": "savedmodel",
    "litert": "litert",
    "tfjs": "tfjs",
    "torchserve": "torchserve",
    "onnxruntime": "onnx",
}


def load(target: str, torchserve_form: str = "") -> Exporter:
    """The exporter of a target; TorchServe's writes one of several forms."""
    module = importlib.import_module(f"pipelines.exporting.{MODULES[target]}")
    exporter: Exporter = (
        module.FORMS[torchserve_form] if target == "torchserve" and torchserve_form else module.EXPORTER
    )
    return exporter


def export_all(
    model: Model,
    weights: Mapping[str, Weights],
    folder: Path,
    calibration: Images,
    samples: Mapping[str, Golden],
    torchserve_form: str,
    report: Callable[[str], None],
) -> None:
    """Write every target's artifact to `folder / target`; what is there already is left alone.

    `weights` and golden `samples` give each target its own. Each artifact appears by a rename, complete, and
    sealed: what was changed since is told by `repository.broken_seal`.
    """
    for target, own in weights.items():
        done = folder / target
        if done.exists():
            continue
        report(target)
        beside = folder / f".incoming-{target}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        load(target, torchserve_form).write(model, own, beside, calibration)
        golden.write(beside, samples[target])
        repository.write_seal(beside, done)
        beside.replace(done)
