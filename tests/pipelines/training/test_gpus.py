"""A machine whose GPU cannot be used is told why, in one sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
import torch

from models.base import Model
from pipelines import training
from pipelines.training import gpus, keras_fit, lightning_fit, workers
from pipelines.training.record import TrainingError

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}.65.06  Release Build  (dvs-builder)\n"


def test_why_no_gpu_is_seen(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    for driver, cuda, told in (
        ("", "13.0", "there is no NVIDIA driver"),
        (CLOSED.format(535), None, r"it is a build for CPUs \(`make setup DEVICE=gpu` installs"),
        (CLOSED.format(535), "13.0", r"the NVIDIA driver 535 is too old \(CUDA 13.0 needs 580 or newer\)"),
        (OPEN.format(470), "12.9", r"the NVIDIA driver 470 is too old \(CUDA 12.9 needs 525 or newer\)"),
        (OPEN.format(580), "13.0", r"the NVIDIA driver 580 lets it see no more \(`nvidia-smi` and"),
    ):
        if driver:
            gpus.DRIVER.write_text(f"{driver}GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
        monkeypatch.setattr(workers, "run", lambda *_, cuda=cuda: [(0, cuda)])
        with pytest.raises(TrainingError, match=f"DEVICE=gpu: pytorch sees 0 GPUs, as {told}"):
            training.require(replace(model.spec.profile("quick"), device="gpu"), ["pytorch"])


@pytest.mark.parametrize(
    ("framework", "error"),
    [
        ("tensorflow", tf.errors.ResourceExhaustedError(None, None, "tried to allocate 2 GiB")),
        ("pytorch", torch.OutOfMemoryError("tried to allocate 2 GiB")),
    ],
)
def test_too_little_memory_is_told_with_what_to_do(
    framework: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> None:
        raise error

    monkeypatch.setattr({"tensorflow": keras_fit, "pytorch": lightning_fit}[framework], "fit", fit)
    with pytest.raises(TrainingError, match=r"memory is too little .*lower batch_size.*allocate 2 GiB"):
        training._fit(framework)


def test_tensorflow_is_the_build_for_gpus_once_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "TENSORFLOW", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    gpus.prefer_cuda()
    assert str(tmp_path) not in sys.path
    (tmp_path / "installed.txt").touch()
    gpus.prefer_cuda()
    assert sys.path[0] == str(tmp_path)
