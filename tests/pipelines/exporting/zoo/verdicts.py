"""The verdict on a network: between the frameworks, and in every target that its framework reaches."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models import twins
from models.base import Model, ModelError, ModelSpec, Weights
from models.data import NpzFolder, Rows
from models.inference import Inference
from models.signature import BATCH, Arrays, Tensor
from pipelines import exporting
from pipelines.exporting import conformance, onnx, tfjs, tfjs_converter
from pipelines.exporting.base import Exporter, ExportError
from serving.errors import TandemError
from tests.pipelines.exporting.zoo.networks import NETWORKS, Network

ROWS = 6
TOLERANCE = 1e-4
"""Relative to a row's largest output where that is above 1."""
TF2ONNX = replace(
    onnx.EXPORTER,
    write=lambda model, weights, folder, _calibration: onnx.write_by_tf2onnx(
        model, weights, folder / "model.onnx"
    ),
)
TARGETS = {
    "tensorflow": {
        "SavedModel": exporting.load("tf-serving"),
        "LiteRT": exporting.load("litert"),
        "TF.js": exporting.load("tfjs"),
        "tf2onnx": TF2ONNX,
    },
    "pytorch": {".mar": exporting.load("torchserve"), ".onnx": exporting.load("onnxruntime")},
}
SLOW = ("TF.js", "tf2onnx")
"""They take as long as all others together."""
BRIDGE = "bridge"
COLUMNS = (BRIDGE, *(name for own in TARGETS.values() for name in own))
SAME = "same"


@dataclass(frozen=True)
class Specimen(Model):
    """A network as a folder of models/ would have it."""

    network: Network = NETWORKS[0]

    rules = ()

    @property
    def frameworks(self) -> tuple[str, ...]:
        own = {"tensorflow": self.network.keras, "pytorch": self.network.torch}
        return tuple(name for name, network in own.items() if network is not None)

    def build_keras(self) -> Any:
        import keras

        assert self.network.keras
        x = keras.Input(self.network.row, name="x", dtype=self.network.dtype)
        return keras.Model(x, self.network.keras(keras, x))

    def build_torch(self) -> Any:
        import torch

        assert self.network.torch
        return self.network.torch(torch)

    def source(self, framework: str) -> tuple[Specimen, Weights, Any]:
        """The specimen with the outputs that a framework's network has, drawn weights, and the network with them."""
        own = "keras" if framework == "tensorflow" else "torch"
        built = getattr(self, f"build_{own}")()
        weights = twins.drawn(getattr(self, f"from_{own}")(built))
        weights = {
            name: self.network.weights(name, array).astype(np.float32) for name, array in weights.items()
        }
        getattr(self, f"to_{own}")(weights, built)
        answer = answers(framework, built, inputs(self.network)[0])
        outputs = tuple(Tensor(n, str(a.dtype), (BATCH, *a.shape[1:])) for n, a in answer.items())
        return replace(self, spec=replace(self.spec, task=Inference(outputs))), weights, built


def specimen(network: Network) -> Specimen:
    tensor = Tensor("x", network.dtype, (BATCH, *network.row))
    precisions = tuple(dict.fromkeys(("float32", network.precision)))
    spec = ModelSpec("zoo", (tensor,), Inference(()), NpzFolder("zoo"), {}, precisions=precisions)
    return Specimen(spec, "models.fashion", network=network)


def inputs(network: Network) -> tuple[Arrays, Arrays]:
    """Ordinary ones, and those that show the trap."""
    generator = np.random.default_rng(4)
    shape = (ROWS, *network.row)
    integer = network.dtype == "int32"
    drawn = generator.integers(0, 5, shape) if integer else generator.normal(size=shape)
    ordinary = drawn.astype(network.dtype)
    return {"x": ordinary}, {"x": network.values(ordinary).astype(network.dtype)}


def answers(framework: str, network: Any, inputs: Arrays) -> Arrays:
    """The network's own outputs, by name."""
    if framework == "tensorflow":
        output = network(inputs["x"], training=False)
    else:
        import torch

        with torch.inference_mode():
            output = network.eval()(torch.from_numpy(inputs["x"]))
    outputs = output if isinstance(output, list | tuple) else [output]
    return {name: np.asarray(value) for name, value in zip("yz", outputs, strict=False)}


@functools.cache
def converter() -> concurrent.futures.Executor:
    """A process that has imported TensorFlow.js's converter once, which takes ten seconds."""
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def convert(saved_model: str, folder: Path) -> None:
    """As the exporter does in a process of its own."""
    try:
        converter().submit(tfjs_converter.convert, saved_model, str(folder)).result(tfjs.CONVERT_SECONDS)
    except Exception as error:
        raise ExportError(str(error)) from None


tfjs.convert = convert


def reached(network: Network, column: str) -> bool:
    """Return True if the network has what the column compares."""
    if column == BRIDGE:
        return bool(network.keras and network.torch)
    return bool(network.keras if column in TARGETS["tensorflow"] else network.torch)


def row(network: Network, columns: tuple[str, ...] = COLUMNS) -> dict[str, str]:
    """The verdicts by column; "" where the network has no such framework."""
    model, found = specimen(network), dict.fromkeys(columns, "")
    if BRIDGE in columns and reached(network, BRIDGE):
        found[BRIDGE] = bridged(model)
    for framework, targets in TARGETS.items():
        own = [name for name in targets if name in columns and reached(network, name)]
        if not own:
            continue
        try:
            made, weights, built = model.source(framework)
        except ModelError:
            found |= dict.fromkeys(own, "refused")
            continue
        reference = partial(answers, framework, built)
        found |= {name: target(targets[name], made, weights, reference) for name in own}
    return found


def bridged(model: Specimen) -> str:
    """Compare the frameworks' networks with equal weights."""
    _, trap = inputs(model.network)
    try:
        made, weights, built = model.source("tensorflow")
        if len(made.spec.task.outputs) > 1:
            return "not compared"
        twins.check(made, Rows(trap, np.zeros(ROWS, np.int64)))
    except ModelError:
        return "refused"
    return SAME if not model.network.trained or trained_alike(made, weights, built, trap) else "differs"


def trained_alike(model: Specimen, weights: Weights, network: Any, batch: Arrays) -> bool:
    """Return True if both keep the same statistics of a batch that they train on."""
    import torch

    twin = model.build_torch()
    model.to_torch(weights, twin)
    network(batch["x"], training=True)
    twin.train()(torch.from_numpy(batch["x"]))
    kept = model.from_torch(twin)
    return all(np.allclose(array, kept[name], rtol=1e-3) for name, array in model.from_keras(network).items())


def target(exporter: Exporter, model: Specimen, weights: Weights, reference: Any) -> str:
    """`same`; `refused` by the exporter; `gate`: by the check of its artifact; `differs`: published, and wrong here."""
    ordinary, trap = inputs(model.network)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            exporter.write(model, weights, folder, ordinary)
        except TandemError:
            return "refused"
        path = folder / exporter.files.get(model.network.precision, exporter.serve)
        answer = partial(exporter.answer, path, model)
        runs = [ordinary, *conformance.batches(ordinary)]
        if model.network.precision in exporter.files and model.network.precision != "float32":
            return SAME if alike(answer([ordinary])[0], reference(ordinary)) else "gate"
        try:
            passed = conformance.difference(answer(runs), [reference(run) for run in runs]) <= TOLERANCE
        except Exception:
            passed = False
        if not passed:
            return "gate"
        try:
            expected = reference(trap)
        except Exception:
            expected = None
        try:
            outputs = answer([trap])
        except Exception:
            return SAME if expected is None else "fails"
        if expected is None:
            return "differs"
        return SAME if conformance.difference(outputs, [expected]) <= TOLERANCE else "differs"


def alike(outputs: Arrays, expected: Arrays) -> bool:
    """Return True if a quantized artifact chooses as its source does; with NaN it chooses nothing."""
    found = outputs["y"]
    return bool(np.isfinite(found).all() and (found.argmax(1) == expected["y"].argmax(1)).all())
