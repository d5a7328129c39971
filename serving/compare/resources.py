"""The resources of a server: CPU time of its process tree, and the machine."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    "tensorflow-cpu", "tensorflow", "torch", "onnxruntime", "ai-edge-litert", "torchserve", "tensorflowjs",
)  # fmt: skip
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "sve")
"""Instructions with an effect on runtimes, as Linux names them."""


def processes(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; empty if there is none, as for 0."""
    if not pid:
        return []
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process tree since its start, with ended children that were waited for; None if
    unknown."""
    times = []
    for process in processes(pid):
        with suppress(psutil.Error):
            times.append(process.cpu_times())
    names = ("user", "system", "children_user", "children_system")
    return sum(getattr(own, name, 0.0) for own in times for name in names) if times else None


def busy(seconds: float = 1.0) -> float:
    """Return the share of CPU time of other processes, 0 to 1."""
    return psutil.cpu_percent(seconds) / 100


def machine() -> dict[str, Any]:
    """Return the machine: processor, instructions, cores, frequency governor, system, versions."""
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    fields = [line.partition(":")[::2] for line in reversed(_read("/proc/cpuinfo").splitlines())]
    cpu = {name.strip(): value.strip() for name, value in fields}
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    return {
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "versions": versions,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
