"""From trained weights to one artifact a target; one file each."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.base import Model
from models.data import Dataset
from pipelines.exporting import reference, roads, samples
from pipelines.exporting.base import Exporter, ExportError, one_line
from pipelines.exporting.onnx2tf import ConverterMissingError
from pipelines.exporting.roads import Roads
from pipelines.training.record import Trained
from serving import golden, repository, targets
from serving.golden import Golden
from serving.targets.base import SAMPLES

CALIBRATION_ROWS = 500
"""Validation rows that calibrate int8 quantization."""
GOLDEN_ROWS = 2
"""Validation rows in the golden sample of each artifact, which its server checks."""


def load(target: str, form: str = "") -> Exporter:
    """Return the exporter of a target: that of a form if the target has it, else the published one."""
    module = importlib.import_module(f"pipelines.exporting.{targets.load(target).exporter}")
    exporter: Exporter = getattr(module, "FORMS", {}).get(form, module.EXPORTER)
    return exporter


@dataclass(frozen=True)
class Candidate:
    """An artifact for every target that is reached in `folder / target`, waiting for the gates."""

    folder: Path
    sources: Mapping[str, str]
    """By target: the framework whose weights it has, or the format of the file that it is made from."""
    torchserve_form: str = ""
    closed: Mapping[str, str] = field(default_factory=dict)
    """The reasons of the targets without an artifact; the folder of tfjs has the samples all the same."""

    def exporter(self, target: str) -> Exporter:
        """Return the exporter of a target's artifact."""
        return load(target, self.torchserve_form)

    def seconds(self, target: str) -> float:
        """Return the seconds of its export."""
        path = _seconds(self.folder, target)
        return float(path.read_text()) if path.exists() else 0.0

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The digests in each target's seal, by file."""
        return {
            target: repository.read_seal(self.folder / target) for target in (*self.sources, *self.closed)
        }

    def without(self, failed: Mapping[str, str]) -> Candidate:
        """Return the candidate without the artifacts of these targets, and with their reasons."""
        for target in failed:
            with _sealed(self.folder / target) as beside:
                if (samples := self.folder / target / SAMPLES).exists():
                    shutil.copytree(samples, beside / SAMPLES)
        sources = {target: origin for target, origin in self.sources.items() if target not in failed}
        return replace(self, sources=sources, closed={**self.closed, **failed})


def export_all(
    model: Model,
    trained: Mapping[str, Trained],
    found: Roads,
    folder: Path,
    dataset: Dataset,
    torchserve_form: str,
    report: Callable[[str], None],
) -> Candidate:
    """Write the artifact of every open target to `folder / target`, unless it is there already.

    Each has its source's golden sample, and appears complete and sealed, by a rename; `repository.broken_seal` finds
    later changes. That of tfjs has the version's samples beside it. An optional target whose converter fails is closed.
    Raises `ExportError` if another's fails.
    """
    signature = model.spec.signature
    calibration = dataset.validation.take(slice(CALIBRATION_ROWS)).served(signature)
    sample = signature.calls(calibration, GOLDEN_ROWS)[0]
    weights = {name: trained[name].weights if name in trained else {} for name in set(found.sources.values())}
    goldens = {
        name: Golden(sample, reference.answers(model, name, own, [sample])[0], model.spec.tolerances.outputs)
        for name, own in weights.items()
    }
    closed = dict(found.closed)
    for target in targets.NAMES:
        if (folder / target / repository.GOLDEN).exists():
            continue
        with _sealed(folder / target) as beside:
            if road := found.open.get(target):
                report(f"{target} by {road.converter}" if road.converter else target)
                started = time.monotonic()
                try:
                    load(target, torchserve_form).write(model, weights[road.origin], beside, calibration)
                    golden.write(beside, goldens[road.origin])
                except Exception as error:
                    if isinstance(error, ConverterMissingError) or not roads.optional(model, target):
                        raise
                    closed[target] = one_line(error)
                    report(f"{target} is not reached: {closed[target]}")
                    shutil.rmtree(beside)
                    beside.mkdir()
                repository.write_atomically(_seconds(folder, target), f"{time.monotonic() - started:.2f}")
            if target == "tfjs":
                samples.write(model.spec, dataset.test, beside / SAMPLES)
    if len(closed) == len(targets.NAMES):
        reasons = "\n  ".join(f"{target}: {why}" for target, why in closed.items())
        raise ExportError(f"no target is reached:\n  {reasons}")
    sources = {target: origin for target, origin in found.sources.items() if target not in closed}
    return Candidate(folder, sources, torchserve_form, closed)


@contextmanager
def _sealed(done: Path) -> Iterator[Path]:
    """Yield an empty folder that is sealed and replaces `done` at the end of the block."""
    beside = done.with_name(f".incoming-{done.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    yield beside
    repository.write_seal(beside, done)
    shutil.rmtree(done, ignore_errors=True)
    beside.replace(done)


def _seconds(folder: Path, target: str) -> Path:
    return folder / f"{target}.seconds"
