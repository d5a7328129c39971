"""Imported files as networks or graphs, for the converters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.artifact import Artifact, ArtifactError
from pipelines.exporting.base import one_line

if TYPE_CHECKING:
    import keras
    import onnx
    from torch.export import ExportedProgram

UNTRUSTED = "code in it would run as you; where you trust whoever made it, import it with --trust"


def keras_network(artifact: Artifact) -> keras.Model:
    """Load the network of a .keras file. Raises `ArtifactError`."""
    import keras

    path = artifact.file()
    try:
        network: keras.Model = keras.saving.load_model(path, compile=False, safe_mode=not artifact.trusted)
    except Exception as error:
        told = one_line(error)
        if "safe_mode" in told or "unsafe" in told.lower():
            told = f"it holds Python code (a Lambda layer): {UNTRUSTED}"
        raise ArtifactError(f"Keras cannot load {artifact.path}: {told}") from error
    network.trainable = False
    return network


def exported_program(artifact: Artifact) -> ExportedProgram:
    """Load the program of a .pt2 file. Raises `ArtifactError`."""
    if not artifact.trusted:
        raise ArtifactError(f"{artifact.path} is a pickle among others: {UNTRUSTED}")
    import torch

    path = artifact.file()
    try:
        return torch.export.load(path)
    except Exception as error:
        raise ArtifactError(f"PyTorch cannot load {artifact.path}: {one_line(error)}") from error


def onnx_graph(artifact: Artifact) -> onnx.ModelProto:
    """The graph of an .onnx file with all its weights, its inputs and outputs named as in the spec. Raises
    `ArtifactError`."""
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
        raise ArtifactError(f"{path} cannot be read as ONNX: {one_line(error)}") from error
    if not artifact.names:
        return graph
    model = onnx_ir.from_proto(graph)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.name = artifact.names.get(value.name or "", value.name)
    return onnx_ir.to_proto(model)


def tflite(artifact: Artifact) -> bytes:
    """Return a .tflite file's content with the spec's names of inputs and outputs. Raises `ArtifactError`."""
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
    """Return the names in a .tflite file's signature, by the names of their tensors."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(artifact.file()))
    if not interpreter.get_signature_list():
        return {}
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details() | runner.get_output_details()
    return {detail["name"]: name for name, detail in details.items()}
