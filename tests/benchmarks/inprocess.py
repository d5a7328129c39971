"""The model alone: what a run costs in a process that does nothing else, on the same settings as in the servers.

Each runtime is measured in a process of its own, in a tight loop, in turns with the servers.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .encodings import Answers, Floats
from .peers.onnx_model import OnnxModel

Run = Callable[[Floats], Answers]
WARM_CALLS = 10


@cache
def load(runtime: str, path: Path) -> tuple[str, tuple[int, ...], Run]:
    """The name of a model's input, the shape of one picture, and how to run pictures [N, H, W, C]."""
    return {"onnxruntime": _onnxruntime, "litert": _litert, "tensorflow": _tensorflow}[runtime](path)


def describe(runtime: str, path: Path) -> tuple[str, tuple[int, ...]]:
    """The name of a model's input, and the shape of one picture."""
    return load(runtime, path)[:2]


def expected(runtime: str, path: Path, pictures: Floats) -> Answers:
    """Every output of pictures that are run one by one, as the servers are asked."""
    run = load(runtime, path)[2]
    single = [run(pictures[index : index + 1]) for index in range(len(pictures))]
    return {name: np.concatenate([answer[name] for answer in single]) for name in single[0]}


def measure(runtime: str, path: Path, pictures: Floats, calls: int) -> float:
    """CPU seconds of one run of one picture."""
    run = load(runtime, path)[2]
    images = [pictures[index : index + 1] for index in range(len(pictures))]
    for call in range(WARM_CALLS):
        run(images[call % len(images)])
    start = time.process_time()
    for call in range(calls):
        run(images[call % len(images)])
    return (time.process_time() - start) / calls


ADDITIONS = """
import time, timeit
def add():
    total = 0
    for number in range(1000):
        total += number
print(min(timeit.repeat(add, timer=time.process_time, number=100, repeat=5)) / 100)
"""


def python_speed(python: Path) -> float:
    """CPU seconds of 1,000 additions in Python, now: what a server's overhead goes up and down with."""
    return float(subprocess.run([python, "-c", ADDITIONS], capture_output=True, check=True).stdout)


def _onnxruntime(path: Path) -> tuple[str, tuple[int, ...], Run]:
    model = OnnxModel(str(path / "model.onnx"))
    return model.input, tuple(model.shape), model


def _litert(path: Path) -> tuple[str, tuple[int, ...], Run]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    ((name, image),) = runner.get_input_details().items()
    tensors = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    outputs = {key: tensors[detail["name"]] for key, detail in runner.get_output_details().items()}
    (index,) = (detail["index"] for detail in interpreter.get_input_details())

    def run(images: Floats) -> Answers:
        interpreter.set_tensor(index, images)
        interpreter.invoke()
        return {output: interpreter.get_tensor(tensor) for output, tensor in outputs.items()}

    return name, tuple(image["shape"][1:]), run


def _tensorflow(path: Path) -> tuple[str, tuple[int, ...], Run]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.saved_model.load(str(path))
    signature = model.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()

    def run(images: Floats) -> Answers:
        # The closure holds the model: a signature alone would lose its variables.
        assert model is not None
        return {key: tensor.numpy() for key, tensor in signature(**{name: tf.constant(images)}).items()}

    return name, tuple(spec.shape[1:]), run
