"""Training in PyTorch: Lightning's `Trainer.fit`, resumed from its last epoch."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from models.base import Model
from models.data import Rows
from pipelines.training.batches import BatchPlan
from pipelines.training.record import PARITY_STEPS, Epoch, History, Progress, Trained

VALIDATION_BATCH = 500
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed"}


def fit(model: Model, plan: BatchPlan, validation: Rows, checkpoints: Path, logs: Path) -> Trained:
    """Train, or go on from the last checkpoint; ends with the same weights either way."""
    quieten()
    lightning.seed_everything(plan.seed, verbose=False)
    torch.use_deterministic_algorithms(True)
    network = model.build_torch()
    model.to_torch(model.initial_weights(plan.seed), network)
    done = sorted(checkpoints.glob("epoch-*.ckpt"))
    history = History.read(done[-1].with_suffix(".json")) if done else History.empty()
    record = Record(checkpoints, history, plan, model.spec.task.watched)
    trainer = lightning.Trainer(
        max_epochs=plan.profile.epochs,
        accelerator="cpu",
        precision=PRECISIONS[plan.profile.precision],
        deterministic=True,
        logger=TensorBoardLogger(logs.parent, name="", version=logs.name),
        callbacks=[record],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(
        Trainee(network, plan),
        datamodule=PlannedBatches(plan, validation),
        ckpt_path=done[-1] if done else None,
        weights_only=True,
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    return Trained("pytorch", model.from_torch(network), record.history)


class Trainee(lightning.LightningModule):
    """The network with its task's loss, its optimizer and schedule."""

    def __init__(self, network: nn.Module, plan: BatchPlan) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan = plan

    def step(self, batch: Batch, prefix: str, **options: Any) -> Tensor:  # noqa: ANN401
        """The batch's mean loss; it and the watched metric are logged."""
        inputs, targets = batch
        task = self.plan.model.spec.task
        output = self.network(**inputs)
        loss = task.torch_loss(output, targets)
        figures = {f"{prefix}loss": loss, f"{prefix}{task.watched}": task.torch_metric(output, targets)}
        self.log_dict(figures, prog_bar=True, batch_size=len(targets), **options)
        return loss

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.step(batch, "", on_step=False, on_epoch=True)

    def validation_step(self, batch: Batch, index: int) -> None:
        self.step(batch, "val_")

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        profile, rates = self.plan.profile, self.plan.learning_rates()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), profile.peak_learning_rate, eps=1e-8, weight_decay=profile.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: float(rates[min(step, len(rates) - 1)]) / profile.peak_learning_rate
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


Batch = tuple[dict[str, Tensor], Tensor]


class EpochBatches(IterableDataset[Batch]):
    """The batches of one epoch of the plan."""

    def __init__(self, plan: BatchPlan, epoch: int) -> None:
        self.plan, self.epoch = plan, epoch

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.plan.epoch(self.epoch):
            yield _tensors(inputs), torch.from_numpy(targets)

    def __len__(self) -> int:
        return self.plan.steps_per_epoch


class ValidationBatches(IterableDataset[Batch]):
    """The validation rows in their order."""

    def __init__(self, model: Model, rows: Rows) -> None:
        self.model, self.rows = model, rows

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), VALIDATION_BATCH):
            part = self.rows.take(slice(start, start + VALIDATION_BATCH))
            yield _tensors(part.served(self.model.spec.signature)), torch.from_numpy(part.targets)

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / VALIDATION_BATCH)


def _tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}


class PlannedBatches(lightning.LightningDataModule):
    """Gives the trainer each epoch's own batches, and the validation rows."""

    def __init__(self, plan: BatchPlan, validation: Rows) -> None:
        super().__init__()
        self.plan, self.validation = plan, validation

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        return DataLoader(EpochBatches(self.plan, self.trainer.current_epoch), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(ValidationBatches(self.plan.model, self.validation), batch_size=None)


class Record(lightning.Callback):
    """Keeps the history, and a checkpoint of every epoch beside the history up to it."""

    def __init__(self, checkpoints: Path, history: History, plan: BatchPlan, watched: str) -> None:
        self.checkpoints, self.history, self.watched = checkpoints, history, watched
        self.progress = Progress(plan, len(history.epochs), watched)
        self.started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        if trainer.current_epoch == 0 and batch_idx < PARITY_STEPS:
            self.history.step_losses.append(float(outputs["loss"]))
        if self.progress.is_due(batch_idx):
            self.progress.tell(trainer.current_epoch, batch_idx, float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        now, figures = time.monotonic(), trainer.callback_metrics
        names = ("loss", self.watched, "val_loss", f"val_{self.watched}")
        epoch = Epoch(*(float(figures[name]) for name in names))
        self.history = replace(
            self.history,
            epochs=[*self.history.epochs, epoch],
            seconds=self.history.seconds + now - self.started,
        )
        self.started = now
        self.progress.note(trainer.current_epoch, epoch)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        path = self.checkpoints / f"epoch-{trainer.current_epoch:03d}.ckpt"
        self.history.write(path.with_suffix(".json"))
        beside = self.checkpoints / "incoming.ckpt"
        trainer.save_checkpoint(beside)
        beside.replace(path)


def quieten() -> None:
    """Lightning's tips and its advice on data loader workers are noise here: the plan makes batches in line."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*`IterableDataset` has `__len__` defined.*")
