"""LiteRT models that others made, as clients of a server meet them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from serving.server.backends.litert import load
from serving.server.errors import ArtifactError

from .conformance.saved_models import save, spec
from .processes import Answer, ServerProcess, assert_matches, assert_refused, infer_body, running


@dataclass
class Tensor:
    """A tensor of a graph of one operator; `values`: what a constant holds."""

    name: str
    shape: Sequence[int]
    values: NDArray[np.float32] | None = None
    variable: bool = False


def write(folder: Path, operator: str, options: str, tensors: list[Tensor], **fields: Any) -> None:
    """Write `folder/1/model.tflite`: an operator whose first tensor is the input, and whose last is the output."""
    code, operation = schema.OperatorCodeT(), schema.OperatorT()
    graph, model = schema.SubGraphT(), schema.ModelT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    operation.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    operation.builtinOptions = getattr(schema, f"{options}T")()
    for name, value in fields.items():
        setattr(operation.builtinOptions, name, value)
    operation.inputs = list(range(len(tensors) - 1))
    operation.outputs = [len(tensors) - 1]
    model.version, model.operatorCodes, model.buffers, graph.tensors = 3, [code], [schema.BufferT()], []
    for tensor in tensors:
        made = schema.TensorT()
        made.name, made.hasRank, made.isVariable = tensor.name, True, tensor.variable
        made.shape, made.shapeSignature = [abs(size) for size in tensor.shape], list(tensor.shape)
        if tensor.values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(tensor.values.tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
    graph.inputs, graph.outputs, graph.operators = [0], operation.outputs, [operation]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.tflite").write_bytes(builder.Output())


def write_conv(folder: Path) -> None:
    """Sums of 5 by 5 values, over pictures of free sizes."""
    kernel, bias = np.ones((1, 5, 5, 1), np.float32), np.zeros(1, np.float32)
    given, made = Tensor("x", [-1, -1, -1, 1]), Tensor("y", [-1, -1, -1, 1])
    constants = [Tensor("w", [1, 5, 5, 1], kernel), Tensor("b", [1], bias)]
    sizes = {"strideH": 1, "strideW": 1, "padding": schema.Padding.VALID}
    write(folder, "CONV_2D", "Conv2DOptions", [given, *constants, made], **sizes)


def write_recurrent(folder: Path) -> None:
    """h = x + h, with h in a variable tensor, as recurrent layers have it."""
    one, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    weights = [Tensor("w", [2, 2], one), Tensor("r", [2, 2], one), Tensor("b", [2], zero)]
    state = Tensor("h", [1, 2], variable=True)
    write(folder, "RNN", "RNNOptions", [Tensor("x", [1, 2]), *weights, state, Tensor("y", [1, 2])])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("others")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServerProcess]:
    write_conv(root / "repository" / "conv")
    write_recurrent(root / "repository" / "recurrent")
    with running("litert", root, "--repository-control") as server:
        yield server


def ask(server: ServerProcess, model: str, x: NDArray[Any]) -> Answer:
    return server.call("POST", f"/v2/models/{model}/infer", infer_body(x=x))


def values(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.json()["outputs"][0]["data"]


def test_memory_is_allotted_at_the_first_shape_that_fits(server: ServerProcess) -> None:
    assert_matches("conv/1, signature serving_default: zeros do not warm it up", server.log)
    assert values(ask(server, "conv", np.ones((1, 5, 6, 1)))) == [25, 25]
    refused = ask(server, "conv", np.ones((1, 4, 6, 1)))
    assert_refused(refused, 400, r"refused its input: .*; shapes sent: x \[1, 4, 6, 1\]")
    assert values(ask(server, "conv", np.ones((1, 5, 6, 1)))) == [25, 25]


def test_what_one_client_leaves_in_a_variable_tensor_no_other_finds(server: ServerProcess) -> None:
    for client in (np.full((1, 2), 1.0), np.full((1, 2), 7.0), np.full((1, 2), 1.0)):
        assert values(ask(server, "recurrent", client)) == client[0].tolist()


def test_a_file_is_read_once(server: ServerProcess, root: Path) -> None:
    file = root / "repository" / "conv" / "1" / "model.tflite"
    content = file.read_bytes()
    os.truncate(file, 100)
    assert values(ask(server, "conv", np.ones((1, 5, 5, 1)))) == [25]
    refused = server.call("POST", "/v2/repository/models/conv/load", {})
    assert_refused(refused, 400, "is not loaded: LiteRT cannot load .*not a valid Flatbuffer")
    assert values(ask(server, "conv", np.ones((1, 5, 5, 1)))) == [25]
    file.write_bytes(content)


@pytest.mark.slow
def test_a_file_with_several_signatures_is_refused_by_their_names(tmp_path: Path) -> None:
    import tensorflow as tf

    given = [spec("x", None, 2)]
    save(
        tmp_path / "saved",
        {"double": (lambda x: {"y": 2 * x}, given), "next": (lambda x: {"y": x + 1}, given)},
    )
    keys = ["double", "next"]
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"), signature_keys=keys)
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    with pytest.raises(ArtifactError, match="expected one signature, got double, next: make a file"):
        load(tmp_path, "", 1)


@pytest.mark.slow
def test_a_file_with_variables_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    count = tf.Variable(0.0)
    counting = (lambda x: {"y": x + count.assign_add(1.0)}, [spec("x", 1)])
    save(tmp_path / "saved", {"serving_default": counting}, count)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.experimental_enable_resource_variables = True
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    with pytest.raises(ArtifactError, match=r"expected a model without state, got one with variables"):
        load(tmp_path, "", 1)
