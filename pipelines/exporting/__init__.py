"""From trained weights to one artifact a target; one file each."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.base import Model
from models.data import Dataset
from pipelines.exporting import reference, roads, samples
from pipelines.exporting.base import Exporter, ExportError, one_line
from pipelines.exporting.onnx2tf import ConverterMissingError
from pipelines.exporting.roads import Roads
from pipelines.training.record import Trained
from serving import golden, repository, targets
from serving.errors import TandemError
from serving.golden import Golden
from serving.targets.base import SAMPLES

CALIBRATION_ROWS = 500
"""Validation rows that calibrate int8 quantization."""
GOLDEN_ROWS = 2
"""Validation rows in the golden sample of each artifact, which its server checks."""
DISK_FULL = "No space left"
"""In the error of a conversion that may succeed another time."""


def load(target: str, form: str = "") -> Exporter:
    """Return the exporter of a target, or of `executorch`: that of a form if it has it, else the published one."""
    name = targets.load(target).exporter if target in targets.NAMES else target
    module = importlib.import_module(f"pipelines.exporting.{name}")
    exporter: Exporter = getattr(module, "FORMS", {}).get(form, module.EXPORTER)
    return exporter


@dataclass(frozen=True)
class Candidate:
    """An artifact for every open target in `folder / target`, waiting for the gates; tfjs always has the samples."""

    folder: Path
    roads: Roads

    def exporter(self, target: str) -> Exporter:
        """Return the exporter of a target's artifact."""
        return load(target, self.roads.form)

    def seconds(self, target: str) -> float:
        """Return the seconds of its export."""
        path = _seconds(self.folder, target)
        return float(path.read_text()) if path.exists() else 0.0

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The digests in each target's seal, by file."""
        return {target: repository.read_seal(self.folder / target) for target in targets.NAMES}

    def without(self, failed: Mapping[str, str]) -> Candidate:
        """Return the candidate without the artifacts of these targets, and with their reasons."""
        for target in failed:
            with _sealed(self.folder / target) as beside:
                if (samples := self.folder / target / SAMPLES).exists():
                    shutil.copytree(samples, beside / SAMPLES)
        return Candidate(self.folder, self.roads.without(failed))


def export_all(
    model: Model,
    trained: Mapping[str, Trained],
    found: Roads,
    folder: Path,
    dataset: Dataset,
    report: Callable[[str], None],
) -> Candidate:
    """Write the artifact of every open target to `folder / target`, unless it is there already.

    Each has its source's golden sample, and appears complete and sealed; that of tfjs has the version's samples beside
    it. An optional target whose converter fails is closed. Raises `ExportError` if another's fails.
    """
    signature = model.spec.signature
    calibration = dataset.validation.take(slice(CALIBRATION_ROWS)).served(signature)
    sample = signature.calls(calibration, GOLDEN_ROWS)[0]
    weights = {name: trained[name].weights if name in trained else {} for name in set(found.origins.values())}
    goldens = {
        name: Golden(sample, reference.answers(model, name, own, [sample])[0], model.spec.tolerances.outputs)
        for name, own in weights.items()
    }
    for target in targets.NAMES:
        if (folder / target / repository.GOLDEN).exists():
            continue
        with _sealed(folder / target) as beside:
            if road := found.open.get(target):
                report(f"{target} by {road.converter}" if road.converter else target)
                started = time.monotonic()
                try:
                    load(target, found.form).write(model, weights[road.origin], beside, calibration)
                    golden.write(beside, goldens[road.origin])
                except Exception as error:
                    passing = isinstance(error, ConverterMissingError) or DISK_FULL in str(error)
                    if passing or not roads.optional(model, target):
                        if isinstance(error, TandemError | OSError):
                            raise
                        raise ExportError(f"{target}: {one_line(error, 2_000)}") from error
                    report(f"{target} is not reached: {one_line(error)}")
                    found = found.without({target: one_line(error)})
                    shutil.rmtree(beside)
                    beside.mkdir()
                repository.write_atomically(_seconds(folder, target), f"{time.monotonic() - started:.2f}")
            if target == "tfjs":
                samples.write(model.spec, dataset.test, beside / SAMPLES)
    if not found.open:
        reasons = "\n  ".join(f"{target}: {why}" for target, why in found.closed.items())
        raise ExportError(f"no target is reached:\n  {reasons}")
    return Candidate(folder, found)


@contextmanager
def _sealed(done: Path) -> Iterator[Path]:
    """Yield an empty folder that is sealed and replaces `done` at the end of the block."""
    beside = done.with_name(f".incoming-{done.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    yield beside
    shutil.rmtree(done, ignore_errors=True)
    repository.write_seal(beside, done)
    beside.replace(done)


def _seconds(folder: Path, target: str) -> Path:
    return folder / f"{target}.seconds"
