"""The reason for which a framework sees no GPU."""

from __future__ import annotations

import re
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
DRIVERS = {"12": 525, "13": 580}
"""The first driver that each CUDA runs on: docs.nvidia.com/deploy/cuda-compatibility."""


def why_none(cuda: str | None) -> str:
    """Tell why a build for this version of CUDA, or for CPUs (None), sees no GPU, or too few."""
    found = re.search(r"Kernel Module.*?\s(\d+)\.\d", DRIVER.read_text()) if DRIVER.exists() else None
    if found is None:
        return "there is no NVIDIA driver"
    if not cuda:
        installs = "`make setup DEVICE=gpu` installs PyTorch's for CUDA"
        return f"it is a build for CPUs; {installs}, and DEVICE=auto trains TensorFlow on CPUs beside it"
    least = DRIVERS.get(cuda.split(".")[0], 0)
    if int(found[1]) < least:
        return f"the NVIDIA driver {found[1]} is too old: CUDA {cuda} needs {least} or newer"
    return f"the NVIDIA driver {found[1]} lets it see no more: `nvidia-smi` and CUDA_VISIBLE_DEVICES tell"
