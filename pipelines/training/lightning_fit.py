"""Training in PyTorch: Lightning's `Trainer.fit`, resumed from its last epoch."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from models.base import Model
from models.data import Rows
from pipelines.training.batches import BatchPlan
from pipelines.training.journal import Journal
from pipelines.training.nodes import interface, store
from pipelines.training.record import Epoch, Trained

CUDA = torch.version.cuda
OUT_OF_MEMORY = torch.OutOfMemoryError
VALIDATION_BATCH = 500
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def gpus() -> int:
    """Return the number of GPUs that PyTorch sees."""
    return torch.cuda.device_count()


def fit(model: Model, plan: BatchPlan, validation: Rows, checkpoints: Path, logs: Path) -> Trained:
    """Train, or go on from the last checkpoint; ends with the same weights either way.

    With several devices this is one of as many processes, and torchrun's variables in the environment say which.
    """
    # Lightning's tips, and its advice on workers: the plan makes batches in line.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    lightning.seed_everything(plan.seed, verbose=False)
    torch.use_deterministic_algorithms(True)
    # The default of convolutions, whose products have 10 bits instead of 23 then.
    torch.backends.cudnn.allow_tf32 = False
    profile = plan.profile
    rank, devices = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = profile.devices // devices
    device = profile.placed(gpus() * nodes)
    if profile.devices > 1:
        _meet(checkpoints.parent / "rendezvous", rank, devices, nodes, "nccl" if device == "gpu" else "gloo")
    if nodes > 1:
        _share(checkpoints, torch.device(f"cuda:{rank % devices}" if device == "gpu" else "cpu"))
    journal = Journal(plan, checkpoints, logs, ".ckpt", device, writes=rank == 0)
    network = model.build_torch()
    model.to_torch(model.initial_weights(plan.seed), network)
    trainer = lightning.Trainer(
        max_epochs=profile.epochs,
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        # Buffers are those of batch normalization: `Trainee` makes them equal.
        strategy=DDPStrategy(forward_sync_buffers=False) if profile.devices > 1 else "auto",
        sync_batchnorm=device == "gpu",
        precision=PRECISIONS[profile.precision],
        deterministic=True,
        logger=False,
        callbacks=[Record(journal)],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(
        Trainee(network, plan),
        datamodule=PlannedBatches(plan, validation),
        ckpt_path=journal.checkpoint,
        weights_only=True,
    )
    return Trained("pytorch", model.from_torch(network), journal.history)


def _meet(file: Path, rank: int, devices: int, nodes: int, backend: str) -> None:
    """Let the processes of this machine find each other by a file, and not by a port that others could reach; those of
    several machines by the store of the first."""
    torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    place = "127.0.0.1", 9
    if nodes > 1:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    name = interface(*place)
    os.environ |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    how: dict[str, Any] = {"store": store(*place)} if nodes > 1 else {"init_method": f"file://{file}"}
    torch.distributed.init_process_group(backend, rank=rank, world_size=devices * nodes, **how)


def _share(checkpoints: Path, device: torch.device) -> None:
    """Give every machine the first one's last checkpoint, or none."""
    last = sorted(checkpoints.glob("epoch-*.ckpt"))[-1:]
    files = [{path.name: path.read_bytes() for own in last for path in (own, own.with_suffix(".json"))}]
    torch.distributed.broadcast_object_list(files, device=device)
    if os.environ["NODE_RANK"] != "0" == os.environ["LOCAL_RANK"]:
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        for name, content in files[0].items():
            (checkpoints / name).write_bytes(content)
    torch.distributed.barrier()


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
        self.log_dict(figures, prog_bar=True, batch_size=len(targets), sync_dist=True, **options)
        return loss

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.step(batch, "", on_step=False, on_epoch=True)

    def on_validation_start(self) -> None:
        """Batch normalization's running statistics are those of each process's rows until here."""
        for buffer in self.network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

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
    """The batches of one epoch of the plan; of each the part of one of several `ranks`."""

    def __init__(self, plan: BatchPlan, epoch: int, rank: int, ranks: int) -> None:
        self.plan, self.epoch, self.rank, self.ranks = plan, epoch, rank, ranks

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.plan.epoch(self.epoch, self.rank, self.ranks):
            yield _tensors(inputs), torch.from_numpy(targets)

    def __len__(self) -> int:
        return self.plan.steps_per_epoch


def _tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}


class PlannedBatches(lightning.LightningDataModule):
    """Gives the trainer each epoch's own batches, and the validation rows."""

    def __init__(self, plan: BatchPlan, validation: Rows) -> None:
        super().__init__()
        self.plan, self.validation = plan, validation

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        own = self.trainer.current_epoch, self.trainer.global_rank, self.trainer.world_size
        return DataLoader(EpochBatches(self.plan, *own), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        rows = self.validation.take(slice(self.trainer.global_rank, None, self.trainer.world_size))
        parts = [slice(start, start + VALIDATION_BATCH) for start in range(0, len(rows), VALIDATION_BATCH)]

        def batch(part: slice) -> Batch:
            own = rows.take(part)
            return _tensors(own.served(self.plan.model.spec.signature)), torch.from_numpy(own.targets)

        return DataLoader(parts, batch_size=None, collate_fn=batch)  # type: ignore[arg-type]


class Record(lightning.Callback):
    """Tells the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_train_epoch_start(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        self.journal.asks()

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        self.journal.gets(time.monotonic())

    def on_train_batch_end(self, trainer: lightning.Trainer, *others: Any, **_: Any) -> None:  # noqa: ANN401
        _module, outputs, _batch, step = others
        if self.journal.wants(step):
            loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
            self.journal.step(step, float(loss))
        self.journal.asks()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        watched = self.journal.watched
        names = ("loss", watched, "val_loss", f"val_{watched}")
        figures = Epoch(*(float(trainer.callback_metrics[name]) for name in names))
        model, network = self.journal.plan.model, pl_module.network
        assert isinstance(network, nn.Module)
        self.journal.epoch(figures, trainer.save_checkpoint, lambda: model.from_torch(network))
