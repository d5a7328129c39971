"""A file of another's making: opened in its own framework, and answering in its own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.artifact import Artifact, ArtifactError
from models.base import Model
from models.signature import Arrays

if TYPE_CHECKING:
    import keras
    import onnx
    from numpy.typing import NDArray
    from torch import nn

UNTRUSTED = "code in it would run as you; where you trust whoever made it, import it with --trust"


def keras_network(artifact: Artifact) -> keras.Model:
    """The network of a .keras file. Raises `ArtifactError`."""
    import keras

    try:
        network: keras.Model = keras.saving.load_model(
            artifact.file(), compile=False, safe_mode=not artifact.trusted
        )
    except Exception as error:
        told = " ".join(str(error).split())[:500]
        if "safe_mode" in told or "unsafe" in told.lower():
            told = f"it holds Python code (a Lambda layer): {UNTRUSTED}"
        raise ArtifactError(f"Keras cannot load {artifact.path}: {told}") from error
    network.trainable = False
    return network


def torch_program(artifact: Artifact) -> nn.Module:
    """The exported program in a .pt2 file, as a module. Raises `ArtifactError`."""
    if not artifact.trusted:
        raise ArtifactError(f"{artifact.path} is a pickle among others: {UNTRUSTED}")
    import torch

    try:
        return torch.export.load(artifact.file()).module()
    except Exception as error:
        told = " ".join(str(error).split())[:500]
        raise ArtifactError(f"PyTorch cannot load {artifact.path}: {told}") from error


def onnx_graph(artifact: Artifact) -> onnx.ModelProto:
    """The graph of an .onnx file with all its weights, its inputs and outputs named as in the spec.

    Raises `ArtifactError`.
    """
    import onnx
    import onnx_ir

    path = artifact.file()
    try:
        graph = onnx.load(path)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} keeps weights in files beside it, and one is missing: {error}; put it back"
        ) from error
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())[:300]}") from error
    if not artifact.names:
        return graph
    model = onnx_ir.from_proto(graph)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.name = artifact.names.get(value.name or "", value.name)
    return onnx_ir.to_proto(model)


def tflite(artifact: Artifact) -> bytes:
    """A .tflite file whose inputs and outputs are named as in the spec. Raises `ArtifactError`."""
    content = artifact.file().read_bytes()
    if not artifact.names:
        return content
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    named: list[Any] = [graph.tensors[place] for place in (*graph.inputs, *graph.outputs)]
    for signature in model.signatureDefs or ():
        named += [*signature.inputs, *signature.outputs]
    for one in named:
        one.name = artifact.names.get(one.name.decode(), one.name)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite_names(artifact: Artifact) -> dict[str, str]:
    """The names of the tensors that a .tflite file's signature gives other names -> those."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(artifact.file()))
    if not interpreter.get_signature_list():
        return {}
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details() | runner.get_output_details()
    return {detail["name"]: name for name, detail in details.items()}


def answer(model: Model, calls: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
    """The artifact's own answers, from its own runtime: what everything that is made of it is compared with."""
    artifact = model.spec.artifact
    assert artifact is not None
    outputs = [tensor.name for tensor in model.spec.signature.outputs]
    run = RUNS[artifact.format](artifact, model)
    found = []
    for call in calls:
        answered = run({artifact.own(name): array for name, array in call.items()})
        found.append({name: np.asarray(answered[artifact.own(name)]) for name in outputs})
    return found


def _run_onnx(artifact: Artifact, _model: Model) -> Any:  # noqa: ANN401
    import onnxruntime

    from pipelines.exporting.onnx import fed

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(artifact.file(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, fed(inputs)), strict=True))


def _run_server(artifact: Artifact, _model: Model) -> Any:  # noqa: ANN401
    """TensorFlow or LiteRT, as our server opens them."""
    from serving.server.backends.base import loader

    path = artifact.file()
    folder, file = (path, "") if path.is_dir() else (path.parent, path.name)
    servable = loader("litert" if artifact.format == "tflite" else "tensorflow")(Path(folder), file, 1)
    key = artifact.signature_key
    return lambda inputs: servable.run(key, inputs, servable.signatures[key].output_names)


def _run_keras(artifact: Artifact, model: Model) -> Any:  # noqa: ANN401
    network = keras_network(artifact)
    order = [tensor.name for tensor in network.inputs]

    def run(inputs: Arrays) -> Arrays:
        values = [inputs[name] for name in order]
        outputs = model.spec.task.keras_outputs(
            network(values if len(values) > 1 else values[0], training=False)
        )
        return {artifact.own(name): output.numpy() for name, output in outputs.items()}

    return run


def _run_torch(artifact: Artifact, model: Model) -> Any:  # noqa: ANN401
    import torch

    program, signature = torch_program(artifact), model.spec.signature

    def run(inputs: Arrays) -> Arrays:
        values = [torch.from_numpy(np.array(inputs[artifact.own(t.name)])) for t in signature.inputs]
        with torch.inference_mode():
            outputs = model.spec.task.torch_outputs(program(*values))
        named = zip(signature.outputs, outputs, strict=True)
        return {artifact.own(tensor.name): output.numpy() for tensor, output in named}

    return run


RUNS = {
    "onnx": _run_onnx,
    "saved_model": _run_server,
    "tflite": _run_server,
    "keras": _run_keras,
    "pt2": _run_torch,
}
