"""The conditions that must be equal for two rows: threads, processes, batching, instruction set."""

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
    """Return the conditions of a server with the first process `pid`; 0 if unknown.

    `batched` is its configuration; None if the manifest decides.
    """
    if batched is None:
        # TorchServe is configured for single requests.
        batched = manifest.batched and target != "torchserve"
    tree = processes(pid)
    return {
        "threads": _threads(tree) if tree else UNTOLD,
        "processes": len(tree) or UNTOLD,
        "batched": UNTOLD if target == "tfjs" else "yes" if batched else "no",
        "instruction set": manifest.instruction_set.get("march", "chosen at run time"),
    }


def differences(report: Report) -> list[str]:
    """Return a sentence for each condition that differs between working rows, without variants."""
    found = []
    for name in WARNED:
        values: dict[str, dict[str, None]] = {}
        for row in report.working:
            if row.kind != VARIANT and (value := row.conditions.get(name, UNTOLD)) != UNTOLD:
                values.setdefault(str(value), {})[row.target] = None
        if len(values) > 1:
            told = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
            found.append(f"Not equal between rows: {name} ({told}).")
    return found


def _threads(tree: list[psutil.Process]) -> int:
    """Return the threads of a run, by a flag or a variable of the processes; our servers' default is 1."""
    for process in tree:
        with suppress(psutil.Error):
            if found := FLAG.search(" ".join(process.cmdline())):
                return int(found[1])
            if value := process.environ().get(VARIABLE):
                return int(value)
    return 1
