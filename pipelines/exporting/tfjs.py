"""A TensorFlow.js graph model, for the browser."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Model, Weights
from models.signature import Arrays, Signature, batch_size, joined, rows
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter, ExportError, process
from serving.settings import Settings
from serving.web.install import install, node

MODEL_FILE = "model.json"
CONVERT_SECONDS = 300
RUN_SECONDS = 120
RUN_SCRIPT = Path(__file__).parents[2] / "serving" / "web" / "run.mjs"


def write(model: Model, weights: Weights, folder: Path, _calibration: Arrays) -> None:
    """Write model.json and its weight files. Raises `ExportError` with the end of the converter's output."""
    with tempfile.TemporaryDirectory() as saved_model:
        keras_graph.write_saved_model(model, weights, Path(saved_model), served=False)
        convert(saved_model, folder)
    path = folder / MODEL_FILE
    path.write_text(json.dumps(name_outputs(model.spec.signature, json.loads(path.read_text()))) + "\n")


def convert(saved_model: str, folder: Path) -> None:
    """Write the graph model of a SavedModel. Raises `ExportError`."""
    command = [sys.executable, "-m", "pipelines.exporting.tfjs_converter", saved_model, str(folder)]
    process("TensorFlow.js's converter", command, CONVERT_SECONDS)


def name_outputs(signature: Signature, graph_model: dict[str, Any]) -> dict[str, Any]:
    """Put names on the outputs of a converted model.json, in the signature's order.

    The converter cannot tell two outputs of equal shape apart: it drops their names and writes them in an order that
    changes from one conversion to the next, by which `predict` then maps them. The tensors' own names are stable:
    TensorFlow numbers the outputs of a signature in the order of their names, as Identity, Identity_1, and so on.
    Raises `ExportError` where the graph has others.
    """
    written = {output["name"]: output for output in graph_model["signature"]["outputs"].values()}
    numbered = {
        name: f"Identity_{number}:0" if number else "Identity:0"
        for number, name in enumerate(sorted(tensor.name for tensor in signature.outputs))
    }
    if written.keys() != set(numbered.values()):
        raise ExportError(
            f"tfjs: expected the outputs {sorted(numbered.values())}, the converter wrote {sorted(written)}"
        )
    named = {tensor.name: written[numbered[tensor.name]] for tensor in signature.outputs}
    # Makes `predict` answer with a map of these names; it pairs them with the outputs by position.
    metadata = {**graph_model.get("userDefinedMetadata", {}), "structuredOutputKeys": list(named)}
    return {
        **graph_model,
        "signature": {**graph_model["signature"], "outputs": named},
        "userDefinedMetadata": metadata,
    }


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Run a model.json in Node with TensorFlow.js's wasm backend and the files that the page loads. Raises
    `TargetError` where these cannot be had, and `ExportError` where the model does not run."""
    scripts = install(Settings.from_environment().artifacts.resolve() / "web") / "tensorflowjs"
    signature, counts = model.spec.signature, [batch_size(inputs) for inputs in batches]
    with tempfile.TemporaryDirectory() as folder:
        request, values, answers = (Path(folder) / name for name in ("request.json", "values", "answers"))
        request.write_text(json.dumps({"signature": signature.to_json(), "counts": counts}))
        inputs = joined(list(batches))
        # Every dtype of the signature has four bytes.
        values.write_bytes(
            b"".join(inputs[t.name].astype(f"<{t.dtype[0]}4").tobytes() for t in signature.inputs)
        )
        process("TensorFlow.js", [node(), RUN_SCRIPT, scripts, path, request, values, answers], RUN_SECONDS)
        content, total = answers.read_bytes(), sum(counts)
    outputs, start = {}, 0
    for tensor in signature.outputs:
        size = total * math.prod(tensor.row)
        array = np.frombuffer(content, f"<{tensor.dtype[0]}4", size, start)
        outputs[tensor.name], start = array.reshape(total, *tensor.row), start + array.nbytes
    ends = np.cumsum(counts)
    return [rows(outputs, slice(end - count, end)) for count, end in zip(counts, ends, strict=True)]


EXPORTER = Exporter(
    files={"float32": MODEL_FILE},
    write=write,
    answer=answer,
    runtime="TensorFlow.js (wasm)",
)
