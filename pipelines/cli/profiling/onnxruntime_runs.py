"""Runs of an ONNX artifact, by ONNX Runtime's own op profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from models.signature import Arrays
from pipelines.cli.profiling.record import Op, dearest

NOTE = ""
NODE = "_kernel_time"


def trace(artifact: Path, batches: Sequence[Arrays], outputs: Arrays, folder: Path) -> list[Op]:
    """Trace a run of each batch on one thread; `outputs` are those of one batch. Returns the ops."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "runs")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    for batch in (batches[0], *batches):
        session.run(list(outputs), batch)
    path = Path(session.end_profiling()).rename(folder / "trace.json")
    nodes = [event for event in json.loads(path.read_text()) if event["name"].endswith(NODE)]
    # The first run only warms up.
    del nodes[: len(nodes) // (1 + len(batches))]
    names = (f"{node['args']['op_name']} {node['name'].removesuffix(NODE)}" for node in nodes)
    return dearest(zip(names, (node["dur"] / 1e6 for node in nodes), strict=True), len(batches))
