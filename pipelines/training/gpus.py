"""GPUs: TensorFlow's build for them, and the reason for which a framework sees none."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
DRIVERS = {"12": 525, "13": 580}
"""The first driver that each CUDA runs on: docs.nvidia.com/deploy/cuda-compatibility."""
TENSORFLOW = Path(sys.prefix) / "tensorflow-cuda"
"""TensorFlow with libraries of CUDA 12, which would lie in the same folders as those of PyTorch's CUDA 13."""


def prefer_cuda() -> None:
    """Have TensorFlow's build for GPUs, where `make setup DEVICE=gpu` brought it, in a process without TensorFlow."""
    if (TENSORFLOW / "installed.txt").exists():
        sys.path.insert(0, str(TENSORFLOW))


def why_none(cuda: str | None) -> str:
    """Tell why a build for this version of CUDA, or for CPUs (None), sees no GPU, or too few."""
    found = re.search(r"Kernel Module.*?\s(\d+)\.\d", DRIVER.read_text()) if DRIVER.exists() else None
    if found is None:
        return "there is no NVIDIA driver"
    if not cuda:
        return "it is a build for CPUs (`make setup DEVICE=gpu` installs that for CUDA)"
    least = DRIVERS.get(cuda.split(".")[0], 0)
    if int(found[1]) < least:
        return f"the NVIDIA driver {found[1]} is too old (CUDA {cuda} needs {least} or newer)"
    return f"the NVIDIA driver {found[1]} lets it see no more (`nvidia-smi` and CUDA_VISIBLE_DEVICES tell)"
