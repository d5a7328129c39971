"""A file of another's making becomes a model's folder, or is refused by name with nothing written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from models.artifact import ArtifactError
from models.base import Model, load
from models.data import Dataset, Rows
from pipelines import cli, data, exporting
from pipelines.cli import importing
from pipelines.data.source import DataError
from pipelines.exporting import reference, roads
from pipelines.exporting.base import ExportError
from pipelines.gates import GateError, artifacts

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/ with a folder of the test's own before it."""
    own = tmp_path / "models"
    own.mkdir()
    monkeypatch.setattr(models, "__path__", [str(own), *models.__path__])
    return own


def value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def write(
    path: Path, nodes: list[onnx.NodeProto], inputs: list, outputs: list, **weights: np.ndarray
) -> Path:
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, stored),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    nodes = [helper.make_node("MatMul", ["input.1", "w"], ["y"])]
    ins, outs = [value("input.1", TensorProto.FLOAT, ["N", 4])], [value("y", TensorProto.FLOAT, ["N", 3])]
    return write(tmp_path / "dense.onnx", nodes, ins, outs, w=WEIGHTS)


def take(path: Path, samples: Path | None = None, key: str = "", trusted: bool = False) -> list[str]:
    said: list[str] = []
    importing.take(path, "mine", samples, key, trusted, said.append)
    return said


def gated(model: Model, target: str, folder: Path) -> artifacts.Gated:
    dataset = data.load(model, folder, 1)
    found = roads.find(model, wanted=(target,))
    made = exporting.export_all(model, {}, found, folder, dataset, print)
    return artifacts.gate(model, {}, made, artifacts.parity_rows(dataset.test, 1))


def test_an_onnx_file_is_shipped_as_it_is_under_names_that_all_can_use(dense: Path, tmp_path: Path) -> None:
    said = take(dense)
    model = load("mine")
    assert [(t.name, t.dtype, t.shape) for t in model.spec.inputs] == [("input_1", "float32", ("batch", 4))]
    assert "input.1 in the file is input_1 here" in said
    assert any("drawn from the signature" in line for line in said)
    found = gated(model, "onnxruntime", tmp_path / "made")
    assert found.batched == {"onnxruntime": True}
    assert [check.otherwise for check in found.checks if not check.passed] == [artifacts.DRAWN]


def test_scalars_branches_and_free_sizes_go_through(tmp_path: Path) -> None:
    x, y = [value(n, TensorProto.FLOAT, ["length", 2]) for n in "xy"]
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["t"])],
        "then",
        [],
        [value("t", TensorProto.FLOAT, ["length", 2])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "else", [], [value("e", TensorProto.FLOAT, ["length", 2])]
    )
    nodes = [
        helper.make_node("Greater", ["k", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    ins = [x, value("k", TensorProto.INT64, [])]
    said = take(write(tmp_path / "branch.onnx", nodes, ins, [y], zero=np.array(0, np.int64)))
    model = load("mine")
    assert [tensor.shape for tensor in model.spec.inputs] == [("length", 2), ()]
    assert not model.spec.batched
    assert any("tfjs: not reached" in line and "k is int64" in line for line in said)
    found = gated(model, "onnxruntime", tmp_path / "made")
    assert found.batched == {"onnxruntime": False}
    assert all(check.passed or check.otherwise for check in found.checks)


def test_a_file_that_was_changed_since_is_found(dense: Path, tmp_path: Path) -> None:
    take(dense)
    graph = onnx.load(dense)
    graph.producer_name = "another"
    onnx.save(graph, dense)
    with pytest.raises(ArtifactError, match="was changed since it was imported: sha256"):
        gated(load("mine"), "onnxruntime", tmp_path / "made")


def test_weights_beside_a_file_that_were_changed_since_are_found(dense: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(dense), dense, save_as_external_data=True, location="w.data", size_threshold=0)
    take(dense)
    weights = dense.parent / "w.data"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(ArtifactError, match="was changed since it was imported: sha256"):
        gated(load("mine"), "onnxruntime", tmp_path / "made")


def test_a_conversion_that_answers_otherwise_is_refused_or_left_out(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(dense)
    model = load("mine")
    right = exporting.load("onnxruntime")
    rows = Rows({"input_1": np.ones((64, 4), np.float32)}, np.zeros(64, np.float32))

    def wrong(path: Path, model: Model, batches: list) -> list:
        return [{"y": own["y"] + 1} for own in right.answer(path, model, batches)]

    found = roads.find(model, wanted=("onnxruntime", "torchserve"))
    made = exporting.export_all(model, {}, found, tmp_path / "made", Dataset(rows, rows, rows, ""), print)
    load_exporter = exporting.load
    for broken, raises in (("torchserve", False), ("onnxruntime", True)):

        def replaced(target: str, form: str = "", broken: str = broken) -> exporting.Exporter:
            own = load_exporter(target, form)
            return replace(own, answer=wrong) if target == broken else own

        monkeypatch.setattr(exporting, "load", replaced)
        if raises:
            with pytest.raises(GateError, match="largest difference of y"):
                artifacts.gate(model, {}, made, rows)
        else:
            assert "its artifact is refused" in artifacts.gate(model, {}, made, rows).closed["torchserve"]


def test_a_converter_that_fails_half_way_takes_its_target_out_and_leaves_nothing(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(dense)
    model = load("mine")
    dataset, found = data.load(model, tmp_path, 1), roads.find(model, wanted=("onnxruntime", "torchserve"))
    load_exporter, broken = exporting.load, ["torchserve"]

    def write(_model: Model, _weights: object, folder: Path, _calibration: object) -> None:
        (folder / "half").touch()
        raise ValueError("no such\noperation")

    def replaced(target: str, form: str = "") -> exporting.Exporter:
        own = load_exporter(target, form)
        return replace(own, write=write) if target in broken else own

    monkeypatch.setattr(exporting, "load", replaced)
    made = exporting.export_all(model, {}, found, tmp_path / "made", dataset, print)
    assert (set(made.roads.open), made.roads.closed["torchserve"]) == ({"onnxruntime"}, "no such operation")
    assert list((made.folder / "torchserve").iterdir()) == []
    broken[0] = "onnxruntime"
    with pytest.raises(ExportError, match="onnxruntime: no such operation"):
        exporting.export_all(model, {}, found, tmp_path / "again", dataset, print)


@pytest.mark.parametrize("name", ["fashion", "classification"])
def test_a_name_that_is_taken_is_refused(dense: Path, folder: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=f"models/{name} is there already"):
        importing.take(dense, name, None, "", False, print)
    assert list(folder.iterdir()) == []


def test_a_full_disk_leaves_no_target_out(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(dense)
    model = load("mine")
    found = roads.find(model, wanted=("onnxruntime", "torchserve"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exporters = {name: exporting.load(name) for name in found.open}
    exporters["torchserve"] = replace(exporters["torchserve"], write=full)
    monkeypatch.setattr(exporting, "load", lambda target, _form: exporters[target])
    with pytest.raises(OSError, match="No space left"):
        exporting.export_all(model, {}, found, tmp_path / "made", data.load(model, tmp_path, 1), print)


def future(path: Path) -> None:
    model = onnx.load(path)
    model.ir_version = 99
    onnx.save(model, path)


def opset(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)


def without_its_weights(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    (path.parent / "w.data").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (future, "Unsupported model IR version: 99.* Convert it to a version"),
        (opset, "Opset 99 .*Convert it to a version"),
        (without_its_weights, "Its weights lie in files beside it: put them back"),
        (lambda path: path.write_bytes(b"no model"), "ONNX Runtime .* cannot load .*dense.onnx"),
        (Path.unlink, r"dense.onnx does not exist: expected .onnx, .keras"),
        (lambda path: path.rename(path.with_suffix(".pkl")), r"is a pickle, which would run code: convert"),
    ],
)
def test_a_file_that_cannot_be_taken_in_leaves_nothing(dense: Path, folder: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    harm(dense)
    path = next(iter(dense.parent.glob("dense.*")), dense)
    with pytest.raises(ArtifactError, match=message):
        take(path)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.ones((2, 4), np.float32)}, "expected the inputs input_1, it has image"),
        ({"input_1": np.ones((2, 4))}, r"input_1: expected float32 rows of \[4\], they are float64 \[2, 4\]"),
        (
            {"input_1": np.ones((2, 5), np.float32)},
            r"input_1: expected float32 rows of \[4\], they are float32 \[2, 5\]",
        ),
    ],
)
def test_samples_of_another_model_are_refused(
    dense: Path, folder: Path, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        take(dense, tmp_path / "samples.npz")
    assert list(folder.iterdir()) == []


def write_tensorflow(folder: Path, kind: str) -> Path:
    import keras
    import tensorflow as tf

    x = keras.Input((4,), name="x")
    network = keras.Model(x, keras.layers.Dense(3, use_bias=False, name="y")(x))
    network.set_weights([WEIGHTS])
    path = folder / f"model.{kind}"
    if kind == "keras":
        network.save(path)
        return path
    network.export(folder / "saved", verbose=False)
    if kind == "saved_model":
        return folder / "saved"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
    return path


def write_pt2(folder: Path, _kind: str) -> Path:
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(WEIGHTS.T.copy()))
    shapes = {"input": {0: torch.export.Dim("rows")}}
    program = torch.export.export(network, (torch.ones(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "writer"),
    [
        ("keras", write_tensorflow),
        ("saved_model", write_tensorflow),
        ("tflite", write_tensorflow),
        ("pt2", write_pt2),
    ],
)
def test_each_format_is_opened_by_what_runs_it(
    tmp_path: Path, kind: str, writer: Callable[[Path, str], Path]
) -> None:
    take(writer(tmp_path, kind), trusted=True)
    model = load("mine")
    ((taken,), (given,)) = model.spec.inputs, model.spec.signature.outputs
    assert (taken.dtype, taken.shape, given.dtype, given.shape) == (
        "float32",
        ("batch", 4),
        "float32",
        ("batch", 3),
    )
    rows = np.random.default_rng(1).random((5, 4), np.float32)
    found = reference.outputs(model, kind, {}, {taken.name: rows})
    np.testing.assert_allclose(found[given.name], rows @ WEIGHTS, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_saved_model_whose_input_and_output_have_one_name_reaches_onnx(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(lambda x: {"x": x @ WEIGHTS}, input_signature=[tf.TensorSpec([None, 4], name="x")])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.f})
    take(tmp_path / "saved")
    model, rows = load("mine"), {"x": np.ones((3, 4), np.float32)}
    exporter = exporting.load("onnxruntime")
    exporter.write(model, {}, tmp_path, {})
    found = exporter.run(tmp_path / exporter.serve, model, rows)["x_out"]
    np.testing.assert_allclose(found, rows["x"] @ WEIGHTS, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_saved_model_needs_a_signature_and_no_state(folder: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    class Counting(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 2])])  # type: ignore[untyped-decorator]
        def add(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + self.count.assign_add(1.0)}

    module = Counting()
    tf.saved_model.save(tf.Module(), str(tmp_path / "without"))
    with pytest.raises(ArtifactError, match="expected a signature to call, it has none"):
        take(tmp_path / "without")
    tf.saved_model.save(module, str(tmp_path / "counting"), signatures={"add": module.add})
    with pytest.raises(
        ArtifactError, match=r"answers a call otherwise the second time \(y by 1\): it keeps state"
    ):
        take(tmp_path / "counting")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_code_in_a_keras_file_does_not_run_unasked(folder: Path, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((2,), name="x")
    network = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2, name="twice")(inputs))
    network.save(tmp_path / "lambda.keras")
    with pytest.raises(ArtifactError, match=r"holds Python code .* import it with --trust"):
        take(tmp_path / "lambda.keras")
    assert list(folder.iterdir()) == []
    take(tmp_path / "lambda.keras", trusted=True)
    assert load("mine").spec.signature.outputs[0].name == "twice"


@pytest.mark.slow
def test_a_converter_that_cannot_be_installed_ends_the_run_and_leaves_nothing(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take(dense)
    monkeypatch.setenv("PYTHON", str(tmp_path / "no-python"))
    monkeypatch.setenv("TANDEM_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert cli.main(["publish", "--model", "mine"]) == 1
    said = capsys.readouterr().err
    assert "the environment of onnx2tf could not be made: " in said
    assert "no Python that runs; expected 3.11" in said
    assert (
        "Mend that and run this again, or TANDEM_TARGETS=onnxruntime,torchserve leaves the targets out"
        in said
    )
    assert not list((tmp_path / "artifacts" / "repository").rglob("manifest.json"))
    assert not (tmp_path / "venv-onnx2tf").exists()
    assert cli.main(["publish", "--model", "mine", "--targets", "onnxruntime"]) == 0
    assert "published version 1" in capsys.readouterr().out
