"""A machine whose GPU cannot be used is told why, in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
import torch

from models.base import FRAMEWORKS, Model
from models.data import Dataset, Rows
from pipelines import training
from pipelines.training import gpus, keras_fit, lightning_fit
from pipelines.training.record import TrainingError

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}.65.06  Release Build  (dvs-builder)\n"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_why_no_gpu_is_seen(
    framework: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for driver, cuda, told in (
        ("", "13.0", "there is no NVIDIA driver"),
        (CLOSED.format(535), None, "it is a build for CPUs; `make setup DEVICE=gpu` installs PyTorch's"),
        (CLOSED.format(535), "13.0", "the NVIDIA driver 535 is too old: CUDA 13.0 needs 580 or newer"),
        (OPEN.format(470), "12.9", "the NVIDIA driver 470 is too old: CUDA 12.9 needs 525 or newer"),
        (OPEN.format(580), "13.0", "the NVIDIA driver 580 lets it see no more: `nvidia-smi` and"),
    ):
        if driver:
            gpus.DRIVER.write_text(f"{driver}GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
        monkeypatch.setattr(lightning_fit if framework == "pytorch" else keras_fit, "CUDA", cuda)
        with pytest.raises(TrainingError, match=f"device gpu needs 1 GPU: {framework} sees 0: {told}"):
            training.require(replace(model.spec.profile("quick"), device="gpu"), [framework])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_too_little_memory_is_told_with_what_to_do(
    framework: str, model: Model, sample: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        if framework == "pytorch":
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2 GiB")
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory: tried to allocate 2 GiB")

    monkeypatch.setattr(lightning_fit if framework == "pytorch" else keras_fit, "fit", fit)
    told = f"{framework}: the memory is too little .*lower batch_size.*tried to allocate 2 GiB"
    dataset = Dataset(sample, sample, sample, "")
    with pytest.raises(TrainingError, match=told):
        training.train(framework, model, model.spec.profile("quick"), 1, dataset, tmp_path)
