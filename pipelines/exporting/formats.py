"""Imported files, opened in their own runtimes: their signatures and their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from models.artifact import Artifact, ArtifactError
from models.signature import Arrays
from pipelines.exporting import imported, onnx
from pipelines.exporting.base import one_line

TensorInFile: TypeAlias = "tuple[str, str, Sequence[int | str | None]]"
"""A tensor in a file: its name, its dtype by our names, and its sizes; anything but a number above 0 is free."""

ADVICE = {
    r"IR version|opset": "Convert it to a version that is supported: onnx.version_converter, or export it anew",
    r"external|data file|No such file": "Its weights lie in files beside it: put them back",
    r"not a registered function|Fatal error.*is not": "It has operators that ONNX Runtime does not come with",
    "": "Expected an .onnx file",
}
"""The remedy by ONNX Runtime's message."""
UNSAFE = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles"})
"""TensorFlow's operations that run Python or touch files."""


@dataclass(frozen=True)
class Opened:
    """A file's inputs, outputs and function, all by the names in the file."""

    inputs: Sequence[TensorInFile]
    outputs: Sequence[TensorInFile]
    run: Callable[[Arrays], Arrays]
    key: str = "serving_default"
    """The name of a SavedModel's signature."""
    note: str = ""


def opened(artifact: Artifact) -> Opened:
    """Open a file. Raises `ArtifactError` with what was expected, what came, and what to do."""
    return FORMATS[artifact.format](artifact)


def _onnx(artifact: Artifact) -> Opened:
    import onnxruntime

    from serving.server.backends.onnxruntime import DTYPES

    path = artifact.file()
    try:
        session = onnx.session(path)
    except Exception as error:
        # Without the places in its code.
        told = re.sub(
            r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S*/onnxruntime/\S+:\d+ ", "", one_line(error, 5_000)
        )
        told = re.sub(r"\b[\w:]+::\w+\(.*\) ", "", told)[:300].rstrip(". ")
        advice = next(advice for words, advice in ADVICE.items() if re.search(words, told, re.IGNORECASE))
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {artifact.path}: {told}. {advice}"
        ) from error
    arguments = session.get_inputs(), session.get_outputs()
    wrong, others = ([f"{a.name} ({a.type})" for a in part if a.type not in DTYPES] for part in arguments)
    if wrong:
        raise ArtifactError(f"{artifact.path}: expected inputs that are tensors, got {', '.join(wrong)}")
    inputs, outputs = (
        [(a.name, DTYPES[a.type], a.shape) for a in part if a.type in DTYPES] for part in arguments
    )
    note = f"left out, for they are no tensors: {', '.join(others)}" if others else ""
    return Opened(inputs, outputs, partial(onnx.run, session, [name for name, *_ in outputs]), note=note)


def _served(artifact: Artifact) -> Opened:
    """Open a SavedModel or a .tflite file as our servers do."""
    from serving.server.backends.base import loader
    from serving.server.errors import ServerError

    path, key = artifact.file(), artifact.signature_key
    if artifact.format == "saved_model":
        _require_safe(artifact)
    backend = "litert" if artifact.format == "tflite" else "tensorflow"
    folder, file = (path, "") if path.is_dir() else (path.parent, path.name)
    try:
        servable = loader(backend)(folder, file, 1)
    except ServerError as error:
        raise ArtifactError(str(error)) from error
    known = list(servable.signatures)
    key = key or ("serving_default" if "serving_default" in known else known[0] if len(known) == 1 else "")
    if key not in known:
        there = f"it has {', '.join(known)}: name one by --signature" if known else "it has none"
        raise ArtifactError(f"{path}: expected a signature to call, {there}")
    signature = servable.signatures[key]
    both = signature.inputs, signature.outputs
    if unknown := [spec.name for part in both for spec in part if spec.shape is None]:
        raise ArtifactError(f"{path}: expected a rank of every tensor, {', '.join(unknown)} can be anything")
    inputs, outputs = ([(spec.name, spec.dtype, spec.shape or ()) for spec in part] for part in both)
    return Opened(inputs, outputs, lambda given: servable.run(key, dict(given), signature.output_names), key)


def _require_safe(artifact: Artifact) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((Path(artifact.path) / "saved_model.pb").read_bytes())
    graphs = [meta.graph_def for meta in model.meta_graphs]
    functions = [function for graph in graphs for function in graph.library.function]
    operations = {node.op for graph in graphs for node in graph.node}
    operations |= {node.op for function in functions for node in function.node_def}
    if (unsafe := sorted(operations & UNSAFE)) and not artifact.trusted:
        raise ArtifactError(
            f"{artifact.path} runs Python or touches files ({', '.join(unsafe)}): {imported.UNTRUSTED}"
        )


def _keras(artifact: Artifact) -> Opened:
    network = imported.keras_network(artifact)
    if not getattr(network, "inputs", None):
        raise ArtifactError(
            f"{artifact.path}: expected a network with known inputs, as Sequential and functional have"
        )

    def named(outputs: Any) -> dict[str, Any]:  # noqa: ANN401
        if isinstance(outputs, dict):
            return outputs
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return dict(zip(network.output_names, outputs, strict=True))

    def run(given: Arrays) -> Arrays:
        values = [given[tensor.name] for tensor in network.inputs]
        outputs = named(network(values if len(values) > 1 else values[0], training=False))
        return {name: output.numpy() for name, output in outputs.items()}

    inputs = [(tensor.name, str(tensor.dtype), tensor.shape) for tensor in network.inputs]
    outputs = [(name, str(tensor.dtype), tensor.shape) for name, tensor in named(network.output).items()]
    return Opened(inputs, outputs, run)


def _pt2(artifact: Artifact) -> Opened:
    import torch

    program = imported.exported_program(artifact)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}

    def tensors(names: Sequence[Any]) -> list[TensorInFile]:
        if wrong := [
            f"{name} is {values.get(name)!r}" for name in names if not torch.is_tensor(values.get(name))
        ]:
            raise ArtifactError(f"{artifact.path}: expected tensors to go in and out, {', '.join(wrong)}")
        return [
            (
                str(name),
                str(values[name].dtype).removeprefix("torch."),
                [size if isinstance(size, int) else str(size) for size in values[name].shape],
            )
            for name in names
        ]

    inputs = tensors(program.graph_signature.user_inputs)
    outputs = [
        (f"output_{place}", dtype, sizes)
        for place, (_, dtype, sizes) in enumerate(tensors(program.graph_signature.user_outputs))
    ]
    network = program.module()

    def run(given: Arrays) -> Arrays:
        with torch.inference_mode():
            answer = network(*(torch.from_numpy(np.array(given[name])) for name, *_ in inputs))
        answers = answer if isinstance(answer, list | tuple) else [answer]
        return {name: value.numpy() for (name, *_), value in zip(outputs, answers, strict=True)}

    return Opened(inputs, outputs, run)


FORMATS: dict[str, Callable[[Artifact], Opened]] = {
    "onnx": _onnx,
    "saved_model": _served,
    "tflite": _served,
    "keras": _keras,
    "pt2": _pt2,
}


def answers(artifact: Artifact, outputs: Sequence[str], calls: Sequence[Arrays]) -> list[Arrays]:
    """Return the file's answers, by the spec's names, which its conversions are compared with."""
    run = opened(artifact).run
    answered = [run({artifact.own(name): array for name, array in call.items()}) for call in calls]
    return [{name: np.asarray(own[artifact.own(name)]) for name in outputs} for own in answered]
