"""What a training leaves behind: weights, and the figures of how they came about."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from models.base import Weights
from pipelines.gates import Check
from pipelines.training.batches import BatchPlan
from serving import progress
from serving.errors import TandemError
from serving.repository import write_atomically

PARITY_STEPS = 50
"""How many first steps of the two frameworks are compared loss by loss."""


@dataclass(frozen=True)
class Epoch:
    """Means over an epoch's training batches, and figures on the validation rows after it; the metric is the one that
    the task watches."""

    loss: float
    metric: float
    validation_loss: float
    validation_metric: float


class TrainingError(TandemError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class Progress:
    """Tells the user how far a training is that began, or went on, with epoch `first`, counted from 0.

    `tell` and `note` raise `TrainingError` once a loss is not finite: its checkpoints stay, up to the epoch before.
    """

    plan: BatchPlan
    first: int
    watched: str
    """What the task calls the metric of an epoch."""

    def is_due(self, step: int) -> bool:
        """Whether this step of an epoch is worth telling: its loss costs a little to read."""
        return step % 10 == 0 or step + 1 == self.plan.steps_per_epoch

    def tell(self, epoch: int, step: int, loss: float) -> None:
        epochs, steps = self.plan.profile.epochs, self.plan.steps_per_epoch
        self._require_finite("loss", loss, epoch, step)
        text = f"epoch {epoch + 1} of {epochs}, step {step + 1} of {steps}, loss {loss:.3f}"
        if step + 1 == steps:
            text = f"validation after epoch {epoch + 1} of {epochs}"
        progress.advance(text, (epoch - self.first) * steps + step + 1, (epochs - self.first) * steps)

    def note(self, epoch: int, figures: Epoch) -> None:
        """An epoch has ended with these figures."""
        for name in ("loss", "validation_loss"):
            self._require_finite(name, getattr(figures, name), epoch, self.plan.steps_per_epoch - 1)
        told = ", ".join(
            f"{name.replace('metric', self.watched).replace('_', ' ')} {value:.4f}"
            for name, value in asdict(figures).items()
        )
        progress.note(f"Epoch {epoch + 1}/{self.plan.profile.epochs}: {told}")

    def _require_finite(self, name: str, loss: float, epoch: int, step: int) -> None:
        if math.isfinite(loss):
            return
        rate = self.plan.learning_rates()[epoch * self.plan.steps_per_epoch + step]
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint before it"
        raise TrainingError(
            f"the {name.replace('_', ' ')} is {loss} in epoch {epoch + 1}, step {step + 1}, at a learning rate of "
            f"{rate:.2g}; {kept}, and nothing is exported. A lower peak_learning_rate in the profile may help"
        )


@dataclass(frozen=True)
class History:
    """`step_losses` are the losses of the first `PARITY_STEPS` batches; `seconds` is the time spent training."""

    step_losses: list[float]
    epochs: list[Epoch]
    seconds: float
    weights_digest: str = ""
    """Of the weights that the training ended with."""
    peak_bytes: int = 0
    """What the process grew by at most while it trained; 0: not recorded."""

    @classmethod
    def empty(cls) -> History:
        return cls([], [], 0.0)

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
    """Whether it was there already."""
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
