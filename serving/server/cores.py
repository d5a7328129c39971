"""How many cores this process may use: by its affinity, and by the quota of its cgroup (version 2).

https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max)
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def available(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """At least 1; a quota of 1.5 cores counts as 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *(math.ceil(quota) for quota in _quotas(proc, mount))])


def _quotas(proc: Path, mount: Path) -> Iterator[float]:
    """In cores, of every cgroup above the process that sets one."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if not line.startswith("0::"):
            continue
        # In a container the path is the host's, while the mount shows the container's own group at its root.
        folder = mount / line.removeprefix("0::").lstrip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # Not there, or "max": no limit.
                limit, period = (group / "cpu.max").read_text().split()
                yield int(limit) / int(period)
            if group == mount:
                break
