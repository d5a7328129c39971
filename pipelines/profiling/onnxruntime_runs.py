"""Runs of an ONNX artifact, by ONNX Runtime's own op profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from models.signature import Arrays
from pipelines.profiling.record import WARM, Clock, Profiled, dearest

NODE = "_kernel_time"


def profile(artifact: Path, batches: Sequence[Arrays], folder: Path) -> Profiled:
    """Time, then trace, a run of each batch."""
    timed, _ = _run(artifact, batches, ort.SessionOptions())
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "runs")
    _, session = _run(artifact, batches, options)
    path = Path(session.end_profiling()).rename(folder / "trace.json")
    nodes = [event for event in json.loads(path.read_text()) if event["name"].endswith(NODE)]
    nodes = nodes[len(nodes) * WARM // (WARM + len(batches)) :]
    ops = (
        (f"{node['args']['op_name']} {node['name'].removesuffix(NODE)}", node["dur"] / 1e6) for node in nodes
    )
    runs_on = f"onnxruntime {ort.__version__}, 1 thread"
    return Profiled("onnxruntime", runs_on, timed.each(len(batches)), dearest(ops, len(batches)))


def _run(
    artifact: Path, batches: Sequence[Arrays], options: ort.SessionOptions
) -> tuple[Clock, ort.InferenceSession]:
    """On one thread, as our server does."""
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    for _ in range(WARM):
        session.run(None, batches[0])
    clock = Clock()
    for batch in batches:
        with clock("forward"):
            session.run(None, batch)
    return clock, session
