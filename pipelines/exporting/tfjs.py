"""A TensorFlow.js graph model, for the browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Model, ModelSpec, Weights
from pipelines.exporting import keras_graph
from pipelines.exporting.base import Exporter, ExportError
from serving.settings import Settings
from serving.targets.base import Images, Outputs
from serving.web.install import install, node

MODEL_FILE = "model.json"
CONVERT_SECONDS = 300
RUN_SECONDS = 120
RUN_SCRIPT = Path(__file__).parents[2] / "serving" / "web" / "run.mjs"


def write(model: Model, weights: Weights, folder: Path, calibration: Images) -> None:  # noqa: ARG001
    """Write model.json and its weight files. Raises `ExportError` with the end of what the converter said."""
    with tempfile.TemporaryDirectory() as saved_model:
        keras_graph.write_saved_model(model, weights, Path(saved_model), served=False)
        _process(
            "the converter",
            [sys.executable, "-m", "pipelines.exporting.tfjs_converter", saved_model, str(folder)],
            CONVERT_SECONDS,
        )
    path = folder / MODEL_FILE
    path.write_text(json.dumps(name_outputs(model.spec, json.loads(path.read_text()))) + "\n")


def name_outputs(spec: ModelSpec, graph_model: dict[str, Any]) -> dict[str, Any]:
    """Put names on the outputs of a converted model.json: `logits` first, then `probabilities`.

    The converter cannot tell two outputs of equal shape apart: it drops their names and writes them in an
    order that changes from one conversion to the next, by which `predict` then maps them. So which is which
    is read off the graph itself: the probabilities come out of its softmax. Raises `ExportError` where the
    graph does not have exactly one output that does and one that does not.
    """
    nodes = {node["name"]: node for node in graph_model["modelTopology"]["node"]}
    found = graph_model["signature"]["outputs"].values()
    softmax = [output for output in found if _producer(nodes, output["name"]) == "Softmax"]
    others = [output for output in found if output not in softmax]
    if len(softmax) != 1 or len(others) != 1:
        raise ExportError(
            f"tfjs: expected one output from a softmax and one other, the converter wrote {len(softmax)} and "
            f"{len(others)}"
        )
    named = dict(zip(spec.output_names, (others[0], softmax[0]), strict=True))
    signature = {**graph_model["signature"], "outputs": named}
    # Makes `predict` answer with a map of these names; it pairs them with the outputs by position.
    metadata = {**graph_model.get("userDefinedMetadata", {}), "structuredOutputKeys": list(named)}
    return {**graph_model, "signature": signature, "userDefinedMetadata": metadata}


def answer(path: Path, batches: Sequence[Images]) -> list[Outputs]:
    """Run a model.json in Node with TensorFlow.js's wasm backend and the files that the page loads.

    Raises `TargetError` where these cannot be had, and `ExportError` where the model does not run.
    """
    scripts = install(Settings.from_environment().artifacts.resolve() / "web")
    with tempfile.TemporaryDirectory() as name:
        pictures, answers = Path(name) / "pictures", Path(name) / "answers"
        pictures.write_bytes(np.concatenate(batches).astype("<f4").tobytes())
        shape, counts = (",".join(map(str, one)) for one in (batches[0].shape[1:], map(len, batches)))
        _process(
            "TensorFlow.js",
            [
                str(node()),
                str(RUN_SCRIPT),
                str(scripts),
                str(path),
                str(pictures),
                shape,
                counts,
                str(answers),
            ],
            RUN_SECONDS,
        )
        logits, probabilities = np.fromfile(answers, "<f4").reshape(2, sum(map(len, batches)), -1)
    ends = np.cumsum([len(images) for images in batches])[:-1]
    return [Outputs(*one) for one in zip(np.split(logits, ends), np.split(probabilities, ends), strict=True)]


def _producer(nodes: dict[str, dict[str, Any]], tensor: str) -> str:
    """The operation behind a tensor, seen through the identities that name outputs."""
    node = nodes[tensor.partition(":")[0]]
    while node["op"] == "Identity":
        node = nodes[node["input"][0].partition(":")[0]]
    return str(node["op"])


def _process(what: str, command: list[str], seconds: int) -> None:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    try:
        subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"tfjs: {what} did not end within {seconds} s") from None
    except subprocess.CalledProcessError as error:
        raise ExportError(f"tfjs: {what} failed: …{error.stderr[-1000:].strip()}") from None


EXPORTER = Exporter(
    target="tfjs",
    variants={"float32": MODEL_FILE},
    write=write,
    answer=answer,
    runtime="TensorFlow.js (wasm)",
)
