"""From trained weights to one artifact a target; one file each."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.base import Model
from models.data import Dataset
from models.signature import rows
from pipelines.exporting import reference, samples
from pipelines.exporting.base import Exporter
from pipelines.training.record import Trained
from serving import golden, repository, targets
from serving.golden import Golden
from serving.targets.base import SAMPLES

CALIBRATION_ROWS = 500
"""How many validation rows int8 quantization is calibrated on."""
GOLDEN_ROWS = 2
"""How many validation rows travel with each artifact, to be asked where it is served."""


def load(target: str, torchserve_form: str = "") -> Exporter:
    """The exporter of a target; TorchServe's writes one of several forms."""
    module = importlib.import_module(f"pipelines.exporting.{targets.load(target).exporter}")
    exporter: Exporter = (
        module.FORMS[torchserve_form] if target == "torchserve" and torchserve_form else module.EXPORTER
    )
    return exporter


@dataclass(frozen=True)
class Candidate:
    """An artifact for every target in `folder / target`, waiting for the gates."""

    folder: Path
    sources: Mapping[str, str]
    """By target: the framework whose weights it has."""
    torchserve_form: str = ""

    def exporter(self, target: str) -> Exporter:
        """What wrote the artifact of a target."""
        return load(target, self.torchserve_form)

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """By target: the digests that its files were sealed with."""
        return {target: repository.read_seal(self.folder / target) for target in self.sources}


def export_all(
    model: Model,
    trained: Mapping[str, Trained],
    sources: Mapping[str, str],
    folder: Path,
    dataset: Dataset,
    torchserve_form: str,
    report: Callable[[str], None],
) -> Candidate:
    """Write every target's artifact to `folder / target`; what is there already is left alone.

    Each has the weights of the framework that `sources` names, and that framework's golden sample. Each appears by a
    rename, complete, and sealed: what was changed since is told by `repository.broken_seal`. The browser's has the
    samples of the version beside it.
    """
    calibration = dataset.validation.take(slice(CALIBRATION_ROWS)).served(model.spec.signature)
    sample = rows(calibration, slice(GOLDEN_ROWS))
    goldens = {
        name: Golden(
            sample,
            reference.outputs(model, name, trained[name].weights, sample),
            model.spec.tolerances.outputs,
        )
        for name in set(sources.values())
    }
    for target, source in sources.items():
        done = folder / target
        if done.exists():
            continue
        report(target)
        beside = folder / f".incoming-{target}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        load(target, torchserve_form).write(model, trained[source].weights, beside, calibration)
        golden.write(beside, goldens[source])
        if target == "tfjs":
            samples.write(model.spec, dataset.test, beside / SAMPLES)
        repository.write_seal(beside, done)
        beside.replace(done)
    return Candidate(folder, sources, torchserve_form)
