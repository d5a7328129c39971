"""The result of a training: weights, and the figures of its course."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from models.base import Weights
from pipelines.gates import Check
from serving.errors import TandemError
from serving.repository import write_atomically

PARITY_STEPS = 50
"""The first steps, whose losses are compared between the frameworks."""


@dataclass(frozen=True)
class Epoch:
    """Means over an epoch's training batches, and figures on the validation rows after it; the metric is the one that
    the task watches."""

    loss: float
    metric: float
    validation_loss: float
    validation_metric: float
    waiting: float | None = field(default=None, compare=False)
    """The share of the steps' time until their batches were at hand; None: not recorded."""


class TrainingError(TandemError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class History:
    """`step_losses` are the losses of the first `PARITY_STEPS` batches; `seconds` is the time spent training."""

    step_losses: list[float]
    epochs: list[Epoch]
    seconds: float
    weights_digest: str = ""
    """Of the weights that the training ended with."""
    peak_bytes: int = 0
    """The peak of resident memory, of all processes together; 0: not recorded."""
    step_seconds: float = 0.0
    """The median, with its input, without validation and checkpoints; 0: not recorded."""
    precision: str = "float32"
    devices: int = 1
    device: str = "cpu"

    @property
    def arithmetic(self) -> str:
        """The precision and devices, which decide how sums are rounded: a resumed training must have the same."""
        return f"{self.precision} on {self.devices} {self.device}{'s' if self.devices > 1 else ''}"

    @property
    def waiting(self) -> float | None:
        """The largest of the epochs'; None: not recorded."""
        return max((epoch.waiting for epoch in self.epochs if epoch.waiting is not None), default=None)

    @classmethod
    def read(cls, path: Path) -> History:
        fields = json.loads(path.read_text())
        return cls(**fields | {"epochs": [Epoch(**epoch) for epoch in fields["epochs"]]})

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Trained:
    """One framework's finished training."""

    framework: str
    weights: Weights
    history: History
    cached: bool = False
    """True if it was there already."""
    checks: tuple[Check, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of the weights' names, shapes and values."""
        digest = hashlib.sha256()
        for name, array in sorted(self.weights.items()):
            digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write both, the weights last: a folder that has weights is a finished training.

        The history has their digest.
        """
        folder.mkdir(parents=True, exist_ok=True)
        replace(self.history, weights_digest=self.digest).write(folder / "history.json")
        beside = folder / ".weights.npz"
        np.savez(beside, **self.weights)  # type: ignore[arg-type]
        beside.replace(folder / "weights.npz")

    @classmethod
    def read(cls, framework: str, folder: Path) -> Trained | None:
        """None where the training is not finished."""
        if not (folder / "weights.npz").exists():
            return None
        with np.load(folder / "weights.npz") as file:
            weights = {name: file[name] for name in file.files}
        return cls(framework, weights, History.read(folder / "history.json"))


def intact(folder: Path) -> bool:
    """A finished training has the weights that it ended with."""
    try:
        trained = Trained.read("", folder)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return False
    return trained is None or trained.digest == trained.history.weights_digest


def loss_difference(left: History, right: History) -> float:
    """Largest relative difference of the two frameworks' losses in the first steps."""
    steps = min(len(left.step_losses), len(right.step_losses))
    if steps == 0:
        return float("inf")
    a, b = np.array(left.step_losses[:steps]), np.array(right.step_losses[:steps])
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))))
