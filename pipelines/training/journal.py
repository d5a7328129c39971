"""The journal of a training that both frameworks' callbacks write and show."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from models.base import Weights
from pipelines.training.batches import BatchPlan
from pipelines.training.curves import Curves
from pipelines.training.record import PARITY_STEPS, Epoch, History, TrainingError
from serving import progress


class Journal:
    """The history of a training, a checkpoint of every epoch beside the history up to it, curves for TensorBoard, and
    lines for the user.

    `device` is `cpu` or `gpu`, `suffix` that of a checkpoint. Of several processes one `writes`. Raises `TrainingError`
    where checkpoints are there that another precision, or other devices, made; `step` and `epoch` raise it once a loss
    is not finite: the checkpoints stay, up to the epoch before.
    """

    def __init__(
        self, plan: BatchPlan, checkpoints: Path, logs: Path, suffix: str, device: str, writes: bool = True
    ) -> None:
        self.plan, self.checkpoints, self.suffix = plan, checkpoints, suffix
        self.rates, self.watched = plan.learning_rates(), plan.model.spec.task.watched
        profile = plan.profile
        self.history = History(
            [], [], 0.0, precision=profile.precision, devices=profile.devices, device=device
        )
        done = sorted(checkpoints.glob(f"epoch-*{suffix}"))
        self.checkpoint = done[-1] if done else None
        """The last one, to go on from."""
        if self.checkpoint is not None:
            begun = History.read(self.checkpoint.with_suffix(".json"))
            if begun.arithmetic != self.history.arithmetic:
                raise TrainingError(
                    f"the training in {checkpoints.parent} began with {begun.arithmetic} and would go on with "
                    f"{self.history.arithmetic}: go on as it began, or remove that folder"
                )
            self.history = begun
        self.first = len(self.history.epochs)
        self.started, self.last, self.paces = time.monotonic(), (0, 0.0), [0.0]
        self.began, self.asked, self.waited, self.warm = 0.0, 0.0, 0.0, False
        self.curves = Curves(logs, self.first * plan.steps_per_epoch) if writes else None

    def asks(self) -> None:
        """A step waits for its batch from now on."""
        self.asked = time.monotonic()
        self.began = self.began or self.asked

    def gets(self, when: float) -> None:
        """Its batch was at hand by the monotonic clock then, maybe before it was asked for.

        The first step is not counted: TensorFlow compiles before it takes its batch.
        """
        if self.warm:
            self.waited += max(0.0, when - self.asked)
        else:
            self.warm, self.began = True, 0.0

    def wants(self, step: int) -> bool:
        """Return True if the loss of this step of an epoch, counted from 0, is needed: reading it costs a little."""
        return self._is_due(step) or (not self.history.epochs and step < PARITY_STEPS)

    def step(self, step: int, loss: float) -> None:
        """A step of the epoch has ended with the mean loss of its batch."""
        epoch, epochs, steps = len(self.history.epochs), self.plan.profile.epochs, self.plan.steps_per_epoch
        if not epoch and step < PARITY_STEPS:
            self.history.step_losses.append(loss)
        if not self._is_due(step):
            return
        self._require_finite("loss", loss, step)
        now, rate = time.monotonic(), float(self.rates[epoch * steps + step])
        figures = {"loss": loss, "learning_rate": rate}
        if step:
            self.paces.append((now - self.last[1]) / (step - self.last[0]))
            figures["step_time"] = self.paces[-1]
        self.last = step, now
        text = f"epoch {epoch + 1} of {epochs}, step {step + 1} of {steps}, loss {loss:.3f}"
        if step + 1 == steps:
            text = f"validation after epoch {epoch + 1} of {epochs}"
        if self.curves is not None:
            self.curves.scalars(epoch * steps + step, figures)
            progress.advance(text, (epoch - self.first) * steps + step + 1, (epochs - self.first) * steps)

    def epoch(self, figures: Epoch, save: Callable[[Path], None], weights: Callable[[], Weights]) -> None:
        """An epoch has ended with these figures; `save` writes a checkpoint, `weights` reads the network's."""
        epoch, now, steps = len(self.history.epochs), time.monotonic(), self.plan.steps_per_epoch
        for name in ("loss", "validation_loss"):
            self._require_finite(name, getattr(figures, name), steps - 1)
        figures = replace(figures, waiting=self.waited / max(1e-9, self.last[1] - self.began))
        self.began = self.waited = 0.0
        self.history = replace(
            self.history,
            epochs=[*self.history.epochs, figures],
            seconds=self.history.seconds + now - self.started,
            step_seconds=statistics.median(self.paces[1:] or self.paces),
        )
        self.started = now
        named = {name.replace("metric", self.watched): own for name, own in asdict(figures).items()}
        path, last = self.checkpoints / f"epoch-{epoch:03d}{self.suffix}", (epoch + 1) * steps - 1
        if self.curves is not None:
            # Of the loss, the steps are there.
            self.curves.scalars(last, {name: own for name, own in named.items() if name != "loss"})
            self.curves.histograms(last, {f"weights/{name}": own for name, own in weights().items()})
            told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in named.items())
            progress.note(f"Epoch {epoch + 1}/{self.plan.profile.epochs}: {told}")
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.history.write(path.with_suffix(".json"))
        beside = self.checkpoints / f"incoming{self.suffix}"
        save(beside)
        if self.curves is not None:
            beside.replace(path)

    def _is_due(self, step: int) -> bool:
        return step % 10 == 0 or step + 1 == self.plan.steps_per_epoch

    def _require_finite(self, name: str, loss: float, step: int) -> None:
        if math.isfinite(loss):
            return
        epoch = len(self.history.epochs)
        rate = self.rates[epoch * self.plan.steps_per_epoch + step]
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint before it"
        raise TrainingError(
            f"the {name.replace('_', ' ')} is {loss} in epoch {epoch + 1}, step {step + 1}, at a learning rate of "
            f"{rate:.2g}; {kept}, and nothing is exported. A lower peak_learning_rate in the profile may help"
        )
