"""Tiny real models: logits = image @ WEIGHTS * version, so that an answer shows which version gave it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.repository import MANIFEST, Manifest, Pointer, file_digests, write_atomically, write_pointer

from .conformance.saved_models import save, spec

WEIGHTS: NDArray[np.float32] = (np.arange(7840, dtype=np.float32).reshape(784, 10) % 7 - 3) / np.float32(784)


def logits(images: NDArray[np.float32], version: int = 1) -> NDArray[np.float32]:
    """What version `version` answers for float32 [N, 28, 28, 1]."""
    answer: NDArray[np.float32] = images.reshape(-1, 784) @ (WEIGHTS * np.float32(version))
    return answer


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 [count, 28, 28, 1], 0..1, each value of those that 8 bits can hold."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1))
    return (pixels / 255).astype(np.float32)


def encode(image: NDArray[np.float32], form: str = "PNG") -> bytes:
    """A picture of [H, W, 1], 0..1, as a PNG or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray((image[..., 0] * 255).round().astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


Specs = dict[str, tuple[str, Sequence[int | str] | None]]
"""ONNX's datatype ("": none is declared) and the shape of tensors by name."""


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    """A node of an ONNX graph, of inputs with spaces between their names."""
    from onnx.helper import make_node

    return make_node(operator, inputs.split(), [output], **attributes)


def save_onnx(
    directory: Path, nodes: list[Any], given: Specs, made: Specs, constants: dict[str, Any], **how: Any
) -> Path:
    """Write `directory/model.onnx`; returns the directory. Numbers of 64 bits with fractions become float32."""
    import onnx
    from onnx import helper

    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, "tiny", _infos(given), _infos(made), _tensors(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, directory / "model.onnx", **how)
    return directory


def _infos(specs: Specs) -> list[Any]:
    from onnx import TensorProto, ValueInfoProto
    from onnx.helper import make_tensor_value_info

    return [
        make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape)
        if kind
        else ValueInfoProto(name=name)
        for name, (kind, shape) in specs.items()
    ]


def _tensors(constants: dict[str, Any]) -> list[Any]:
    from onnx.numpy_helper import from_array

    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return [
        from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
        for name, array in arrays.items()
    ]


def write_onnx(folder: Path, version: int) -> Path:
    """Write `folder/<version>/model.onnx`."""
    nodes = [
        node("Flatten", "image", "flat", axis=1),
        node("MatMul", "flat weights", "logits"),
        node("Softmax", "logits", "probabilities", axis=1),
    ]
    made: Specs = {"logits": ("FLOAT", ["N", 10]), "probabilities": ("FLOAT", ["N", 10])}
    given: Specs = {"image": ("FLOAT", ["N", 28, 28, 1])}
    return save_onnx(folder / str(version), nodes, given, made, {"weights": WEIGHTS * version})


def write_slow_onnx(folder: Path) -> Path:
    """Write version 1 of a model y = f(x), x int64 [N], that runs 0.3 to 1 ms for each 1 in x[0]."""
    from onnx.helper import make_graph, make_node

    square = ("FLOAT", [256, 256])
    body = make_graph(
        [node("MatMul", "v weights", "w"), node("Identity", "going", "on")],
        "body",
        _infos({"turn": ("INT64", []), "going": ("BOOL", []), "v": square}),
        _infos({"on": ("BOOL", []), "w": square}),
    )
    nodes = [
        node("Gather", "x zero", "turns"),
        make_node("Loop", ["turns", "", "weights"], ["last"], body=body),
        node("ReduceMean", "last", "y", keepdims=0),
    ]
    constants = {"weights": np.eye(256), "zero": 0}
    return save_onnx(folder / "1", nodes, {"x": ("INT64", ["N"])}, {"y": ("FLOAT", [])}, constants)


def write_identity(folder: Path, datatype: str) -> Path:
    """Write version 1 of y = x of [-1, 3] and a datatype of ONNX's (FLOAT, STRING, BFLOAT16)."""
    of = (datatype, ["N", 3])
    return save_onnx(folder / "1", [node("Identity", "x", "y")], {"x": of}, {"y": of}, {})


def write_company(folder: Path, kind: str) -> Path:
    """Write version 1 of a model whose answers for x, float32 [N, 2], depend on the other rows of its run.

    `nonzero`: the indices [?, 2] of the positive elements. `positive`: the rows whose first element is positive.
    """
    nodes = {
        "nonzero": [
            node("Greater", "x zero", "found"),
            node("NonZero", "found", "indices"),
            node("Transpose", "indices", "y"),
        ],
        "positive": [
            node("Gather", "x first", "column", axis=1),
            node("Greater", "column zero", "wanted"),
            node("Compress", "x wanted", "y", axis=0),
        ],
    }[kind]
    made: Specs = {"y": ("INT64" if kind == "nonzero" else "FLOAT", ["found", 2])}
    constants = {"zero": 0.0, "first": 0}
    return save_onnx(folder / "1", nodes, {"x": ("FLOAT", ["batch", 2])}, made, constants)


IDENTITIES = {
    **{"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"},
    **{"BOOL": "BOOL", "BYTES": "STRING"},
    **{name: name for bits in (8, 16, 32, 64) for name in (f"INT{bits}", f"UINT{bits}")},
}
"""ONNX's name for each datatype of the Open Inference Protocol."""


def write_manifest(directory: Path, serve: str = "", *, batched: bool = False, finite: bool = False) -> None:
    """Write the manifest of a version's folder as it is now."""
    manifest = Manifest(
        model=directory.parent.name,
        version=int(directory.name),
        target="onnxruntime",
        source="pytorch",
        files=file_digests(directory),
        serve=serve,
        signature={},
        metrics={},
        data_digest="",
        seed=1,
        fingerprint="",
        created="",
        batched=batched,
        finite=finite,
    )
    write_atomically(directory / MANIFEST, json.dumps(asdict(manifest)))


def point(folder: Path, version: int) -> None:
    """Publish a version: what the server of `folder` is to serve."""
    write_pointer(folder / "current.json", Pointer(version))


def write_saved_model(directory: Path) -> None:
    """Write version 1 of `fashion` as a SavedModel."""
    import tensorflow as tf

    weights = tf.Variable(WEIGHTS)

    def answer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.reshape(image, [-1, 784]) @ weights
        return {"logits": values, "probabilities": tf.nn.softmax(values)}

    save(directory, {"serving_default": (answer, [spec("image", None, 28, 28, 1)])}, weights)


def write_tflite(folder: Path, saved_model: Path) -> None:
    """Convert a SavedModel's `serving_default` to `folder/1/model.tflite`."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["serving_default"])
    directory = folder / "1"
    directory.mkdir(parents=True)
    (directory / "model.tflite").write_bytes(converter.convert())
