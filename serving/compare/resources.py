"""What a server takes from its machine: CPU time and memory of its whole process tree, and the machine itself."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    "tensorflow-cpu",
    "tensorflow",
    "torch",
    "onnxruntime",
    "ai-edge-litert",
    "torchserve",
    "tensorflowjs",
)
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "sve")
"""Those that change what a runtime does, as Linux names them."""


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process and its descendants since their start; None where it cannot be read.

    The time of children that have ended counts where their parent has waited for them.
    """
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, its instructions, cores, frequency governor, system, versions."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "instructions": [name for name in INSTRUCTIONS if name in _flags()],
        "versions": versions,
    }


def busy(seconds: float = 1.0) -> float:
    """The share of all processors' time that is used while this process waits, 0 to 1."""
    return psutil.cpu_percent(seconds) / 100


def load_average() -> float:
    """Processes that have run or waited for a core, on average over the last minute."""
    return os.getloadavg()[0]


def _flags() -> list[str]:
    lines = _read("/proc/cpuinfo").splitlines()
    return next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
