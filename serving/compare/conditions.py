"""What must be equal for two rows to be compared: threads, processes, batching, instruction set."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import psutil

from serving.compare.report import VARIANT, Report
from serving.compare.resources import processes
from serving.repository import Manifest

FLAG = re.compile(r"--(?:threads|tensorflow_intra_op_parallelism)=(\d+)")
VARIABLE = "OMP_NUM_THREADS"
UNTOLD = "unknown"
WARNED = ("threads", "batched", "instruction set")


def of(target: str, manifest: Manifest, pid: int, batched: bool | None = None) -> dict[str, Any]:
    """The conditions of a server whose first process is `pid`; 0 where there is none to look at.

    `batched` is what its configuration says; None where requests share runs as the manifest allows.
    """
    if batched is None:
        # TorchServe's is configured for single requests. A browser has one user, and shares nothing.
        batched = manifest.batched and target != "torchserve"
    tree = processes(pid)
    return {
        "threads": _threads(tree) if tree else UNTOLD,
        "processes": len(tree) or UNTOLD,
        "batched": UNTOLD if target == "tfjs" else "yes" if batched else "no",
        "instruction set": manifest.instruction_set.get("march", "chosen at run time"),
    }


def differences(report: Report) -> list[str]:
    """What is not equal between the rows that answer, by the value and who has it; a variant differs by its name."""
    found = []
    for name in WARNED:
        values: dict[str, list[str]] = {}
        for row in report.working:
            if row.kind != VARIANT and (value := row.conditions.get(name, UNTOLD)) != UNTOLD:
                values.setdefault(str(value), []).append(row.name)
        if len(values) > 1:
            told = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
            found.append(f"Not equal between rows: {name} ({told}).")
    return found


def _threads(tree: list[psutil.Process]) -> int:
    """Threads in a run, as the processes were told: by a flag or a variable; our servers take one untold."""
    for process in tree:
        with suppress(psutil.Error):
            if found := FLAG.search(" ".join(process.cmdline())):
                return int(found[1])
            if value := process.environ().get(VARIABLE):
                return int(value)
    return 1
