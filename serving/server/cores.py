"""How many cores this process may use: by its affinity, and by the quota of its cgroup.

https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), .../scheduler/sched-bwc.html (cpu.cfs_quota_us)
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
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, read = mount, _quota_of_v2
        elif "cpu" in controllers.split(","):
            root, read = mount / "cpu", _quota_of_v1
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path is the host's, while the mount shows the container's own group at its root.
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota = read(group)
                if 0 < quota < math.inf:
                    yield quota
            if group == root:
                break


def _quota_of_v2(group: Path) -> float:
    limit, period = (group / "cpu.max").read_text().split()
    return math.inf if limit == "max" else int(limit) / int(period)


def _quota_of_v1(group: Path) -> float:
    limit = int((group / "cpu.cfs_quota_us").read_text())
    return limit / int((group / "cpu.cfs_period_us").read_text())
