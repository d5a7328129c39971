"""ONNX models that others made, as clients of a server meet them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from .artifacts import node, save_onnx
from .processes import Answer, ServerProcess, assert_matches, assert_refused, infer_body, running


def write_scale(folder: Path, by: float) -> None:
    """y = by * x, with `by` in the file `weights.bin`: enough of it to be read in the middle of a change."""
    (folder / "1" / "weights.bin").unlink(missing_ok=True)
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    given, made = ("FLOAT", [1]), ("FLOAT", [1 << 20])
    column = {"by": np.full(1 << 20, by, np.float32)}
    save_onnx(folder / "1", [node("Mul", "x by", "y")], {"x": given}, {"y": made}, column, **external)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("others")

    def write(name: str, nodes: Any, given: Any, made: Any, **constants: Any) -> None:
        save_onnx(root / "repository" / name / "1", nodes, given, made, constants)

    n, m = ("FLOAT", ["N"]), ("FLOAT", ["M"])
    picture, plane = ("FLOAT", ["N", 1, "H", "W"]), ("FLOAT", ["N", 1, "A", "B"])
    write("conv", [node("Conv", "x w", "y")], {"x": picture}, {"y": plane}, w=np.ones((1, 1, 5, 5)))
    write("add", [node("Add", "a b", "y")], {"a": n, "b": n}, {"y": n}, unused=[1.0])
    write("gather", [node("Gather", "a b", "y")], {"a": n, "b": ("INT64", ["M"])}, {"y": m})
    write("any", [node("Abs", "x", "y")], {"x": ("FLOAT", None)}, {"y": ("FLOAT", None)})
    write("scale", [node("Mul", "x by", "y")], {"x": n, "by": ("FLOAT", [1])}, {"y": n}, by=[10.0])
    classes = node("ZipMap", "x", "z", domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    rows = ("FLOAT", ["N", 2])
    write("zipmap", [classes, node("Abs", "x", "y")], {"x": rows}, {"y": rows, "z": ("", None)})
    with running("onnxruntime", root, "--max-rows=64") as server:
        yield server


def ask(server: ServerProcess, model: str, **inputs: Any) -> Answer:
    return server.call("POST", f"/v2/models/{model}/infer", infer_body(**inputs))


def values(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    (output,) = answer.json()["outputs"]
    return output["data"]


def test_sizes_that_zeros_of_size_1_do_not_fit_are_served(server: ServerProcess) -> None:
    assert_matches("conv/1, signature serving_default: zeros do not warm it up", server.log)
    assert values(ask(server, "conv", x=np.ones((1, 1, 5, 6)))) == [25, 25]


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("conv", {"x": np.ones((1, 1, 2, 3))}, r"refused its input: .*; shapes sent: x \[1, 1, 2, 3\]"),
        ("add", {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}, r"2 by 3; shapes sent: a \[2\], b \[3\]"),
        ("gather", {"a": [1.0, 2.0], "b": [7]}, "refused its input: .*out of data bounds"),
        # More rows than are allowed, were these rows.
        ("conv", {"x": np.ones((65, 8, 8))}, r"expected shape \[-1, 1, -1, -1\] .*got \[65, 8, 8\]"),
    ],
)
def test_what_the_graph_refuses_is_the_client_s_fault(
    server: ServerProcess, model: str, inputs: dict[str, Any], message: str
) -> None:
    answer = ask(server, model, **inputs)
    assert_refused(answer, 400, message)


def test_empty_tensors_and_tensors_of_any_rank_are_the_model_s_business(server: ServerProcess) -> None:
    (empty,) = ask(server, "conv", x=np.ones((0, 1, 8, 8))).json()["outputs"]
    assert (empty["shape"], empty["data"]) == ([0, 1, 4, 4], [])
    for shape in ((2, 3), (4,), ()):
        (output,) = ask(server, "any", x=np.full(shape, -2.0)).json()["outputs"]
        assert (output["shape"], set(output["data"])) == (list(shape), {2})


def test_an_input_with_an_initializer_may_be_left_out(server: ServerProcess) -> None:
    assert values(ask(server, "scale", x=[1.0, 2.0])) == [10, 20]
    assert values(ask(server, "scale", x=[1.0, 2.0], by=[3.0])) == [3, 6]
    refused = ask(server, "scale", by=[3.0])
    assert (refused.status, "expected inputs x, by" in refused.error) == (400, True)


def test_an_output_that_is_no_tensor_is_left_out_and_named(server: ServerProcess) -> None:
    assert values(ask(server, "zipmap", x=[[1.0, -2.0]])) == [1, 2]
    metadata = server.call("GET", "/v2/models/zipmap").json()
    assert [output["name"] for output in metadata["outputs"]] == ["y"]
    assert metadata["properties"] == {"left_out": "z (seq(map(int64,tensor(float))))"}
    assert_matches(r"model zipmap, version 1: left out.*z \(seq\(map", server.log)


def test_what_onnx_runtime_says_is_logged_once_with_the_model_s_name(server: ServerProcess) -> None:
    ask(server, "add", a=[1.0, 2.0], b=[1.0, 2.0, 3.0])
    assert server.log.count("model add, version 1: ONNX Runtime: Removing initializer 'unused'") == 1
    # Its own lines are in colours; what a client's shapes provoke is the client's to know.
    assert "\x1b[" not in server.log
    assert "2 by 3" not in server.log


def test_weights_are_those_of_the_load_until_a_load_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "scale"
    weights = folder / "1" / "weights.bin"
    write_scale(folder, 2)
    with running("onnxruntime", tmp_path, "--repository-control") as server:

        def factors() -> set[float]:
            return set(values(ask(server, "scale", x=[1.0])))

        def load() -> Answer:
            return server.call("POST", "/v2/repository/models/scale/load", {})

        with weights.open("r+b") as file:
            file.write(np.full(1 << 19, 3, np.float32).tobytes())
        assert factors() == {2}
        os.truncate(weights, 1000)
        assert factors() == {2}
        refused = load()
        assert_refused(refused, 400, "is not loaded: .*weights|is not loaded: .*by.*out of bounds")
        assert factors() == {2}
        write_scale(folder, 5)
        assert load().status == 200
        assert factors() == {5}
        assert load().status == 200
        assert server.log.count("is loaded anew") == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shapes_that_came(tmp_path: Path) -> None:
    """500 pictures of ever other sizes, after one as large as they get."""
    rng = np.random.default_rng(0)
    nodes, weights, before = [], {}, "x"
    for layer, (channels, kernels) in enumerate([(1, 16), (16, 32), (32, 64)]):
        weights[f"w{layer}"] = rng.random((kernels, channels, 3, 3))
        nodes.append(node("Conv", f"{before} w{layer}", f"c{layer}", pads=[1] * 4))
        nodes.append(node("MaxPool", f"c{layer}", f"p{layer}", kernel_shape=[2, 2], strides=[2, 2]))
        before = f"p{layer}"
    nodes.append(node("GlobalAveragePool", before, "y"))
    given, made = ("FLOAT", ["N", 1, "H", "W"]), ("FLOAT", ["N", 64, 1, 1])
    save_onnx(tmp_path / "repository" / "net" / "1", nodes, {"x": given}, {"y": made}, weights)
    with running("onnxruntime", tmp_path) as server:
        memory = psutil.Process(server.process.pid).memory_info

        def run(height: int, width: int) -> None:
            raw = bytes(height * width * 4)
            assert server.infer_binary("net", "x", "FP32", [1, 1, height, width], raw).status == 200

        run(1024, 1024)
        first = memory().rss
        for height, width in rng.integers(32, 1024, (500, 2)).tolist():
            run(height, width)
        print(first, after := memory().rss)
        assert after < 1.5 * first
