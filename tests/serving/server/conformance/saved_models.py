"""The SavedModels that the suite serves: those of the original's own tests, rebuilt, and one signature per question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DTYPES = (
    *("bool", "string", "float16", "bfloat16", "float32", "float64", "complex64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def write_half_plus_two(folder: Path, version: int) -> Path:
    """y = x / 2 + 2 with the original's signatures, by the builder of TensorFlow 1, as saved_model_half_plus_two.py.

    The tf.Example has the features x and x2 (default 0), both float [1]; `classify_labels` has labels as well.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    export = folder / str(version)
    with tf.Graph().as_default(), v1.Session() as session:
        half, two, three = (
            v1.get_variable(name, initializer=value) for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0))
        )
        serialized = v1.placeholder(tf.string, name="tf_example")
        features = v1.parse_example(
            serialized,
            {
                "x": v1.FixedLenFeature([1], tf.float32),
                "x2": v1.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        for feature in features.values():
            feature.set_shape([None, 1])
        x = tf.identity(features["x"], name="x")
        x2 = tf.identity(features["x2"], name="x2")
        y = tf.add(half * x, two, name="y")
        y2 = tf.add(half * x, three, name="y2")
        y3 = tf.add(half * x2, three, name="y3")
        labels = tf.concat([tf.as_string(x, precision=1), tf.fill(tf.shape(x), "other")], 1)
        session.run(v1.global_variables_initializer())

        def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
            infos = [
                {k: v1.saved_model.build_tensor_info(t) for k, t in named.items()}
                for named in (inputs, outputs)
            ]
            return v1.saved_model.build_signature_def(*infos, f"tensorflow/serving/{method}")

        examples = {"inputs": serialized}
        builder = v1.saved_model.Builder(str(export))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature({"x": x}, {"y": y}, "predict"),
                "regress_x_to_y": signature(examples, {"outputs": y}, "regress"),
                "regress_x_to_y2": signature(examples, {"outputs": y2}, "regress"),
                "regress_x2_to_y3": signature({"inputs": x2}, {"outputs": y3}, "regress"),
                "classify_x_to_y": signature(examples, {"scores": y}, "classify"),
                "classify_labels": signature(
                    examples, {"classes": labels, "scores": tf.concat([y, y2], 1)}, "classify"
                ),
                "classify_names": signature(examples, {"classes": labels}, "classify"),
            },
        )
        builder.save()
    return export


def spec(name: str, *shape: int | None, dtype: Any = "float32") -> Any:
    """The input of a signature."""
    import tensorflow as tf

    return tf.TensorSpec(shape, dtype, name=name)


def save(directory: Path, signatures: dict[str, tuple[Any, list[Any]]], variable: Any = None) -> Path:
    """Write a SavedModel whose signatures are functions with their inputs; returns the directory.

    `variable` is what they may keep or change.
    """
    import tensorflow as tf

    module = tf.Module()
    module.variable = variable
    functions = {name: tf.function(f, input_signature=specs) for name, (f, specs) in signatures.items()}
    for name, function in functions.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(directory), functions)
    return directory


def write_half_plus(folder: Path, version: int) -> Path:
    """y = x / 2 + version, so that an answer shows which version gave it; x float [None]."""
    half_plus = (lambda x: {"y": x * 0.5 + float(version)}, [spec("x", None)])
    return save(folder / str(version), {"serving_default": half_plus})


def write_types(folder: Path) -> Path:
    """A signature for each name of DTYPES: x [None] -> y = x, and those of strings whose names end in _bytes."""
    import tensorflow as tf

    def echo(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.identity(x)}

    texts = [spec("x", None, dtype="string")]
    raw = [spec("x_bytes", None, dtype="string")]
    signatures: dict[str, tuple[Any, list[Any]]] = {
        **{dtype: (echo, [spec("x", None, dtype=dtype)]) for dtype in DTYPES},
        "bytes_out": (lambda x: {"y_bytes": tf.identity(x)}, texts),
        "bytes_in": (lambda x_bytes: {"y": tf.identity(x_bytes)}, raw),
        "bytes_and_text": (lambda x: {"image_bytes": tf.identity(x), "text": tf.strings.upper(x)}, texts),
    }
    return save(folder / "1", signatures)


def write_shapes(folder: Path) -> Path:
    """Signatures of many shapes and numbers of tensors; one fails, one is slow, one counts its runs."""
    import tensorflow as tf

    def fails(x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="too large")]):
            return {"y": tf.identity(x)}

    def slow(rounds: tf.Tensor) -> dict[str, tf.Tensor]:
        square = tf.fill([256, 256], 1e-3)
        _, last = tf.while_loop(
            lambda i, _: i < tf.reduce_max(rounds),
            lambda i, value: (i + 1, tf.tanh(value @ value)),
            (0, square),
            parallel_iterations=1,
        )
        return {"y": tf.cast(rounds, tf.float32) + 0.0 * last[0, 0]}

    ten = tf.constant(10.0)
    runs = tf.Variable(0, dtype=tf.int64)
    x = spec("x", None)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "serving_default": (
            lambda a, b: {"sum": a + b[:, tf.newaxis], "first": a[:, 0]},
            [spec("a", None, 2), spec("b", None)],
        ),
        "two_in": (lambda a, b: {"sum": a + b}, [spec("a", None), spec("b", None)]),
        "two_out": (lambda x: {"double": 2 * x, "half": x / 2}, [x]),
        "matrix": (lambda x: {"y": 2 * x}, [spec("x", None, 2, 3)]),
        "scalar": (lambda x: {"y": 2 * x}, [spec("x")]),
        "to_scalar": (lambda x: {"y": tf.reduce_sum(x)}, [x]),
        "uneven": (lambda x: {"one": x, "two": tf.concat([x, x], 0)}, [x]),
        "columns_only": (lambda x: {"mean": tf.reduce_mean(x), "y": 2 * x}, [x]),
        "runs": (lambda x: {"runs": tf.fill(tf.shape(x), runs.assign_add(1))}, [x]),
        "fails": (fails, [x]),
        "slow": (slow, [spec("rounds", None, dtype=tf.int32)]),
        "scaled": (lambda x, by=ten: {"y": x * by}, [x, spec("by")]),
        "classify_native": (
            lambda inputs: {"scores": tf.fill([tf.shape(inputs)[0], 1], 7.0)},
            [spec("inputs", None, dtype=tf.string)],
        ),
    }
    return save(folder / "1", signatures, runs)


def write_broken(folder: Path, version: int) -> Path:
    """A version whose saved_model.pb is no protobuf."""
    export = folder / str(version)
    export.mkdir(parents=True)
    (export / "saved_model.pb").write_bytes(b"this is no SavedModel")
    return export


def model_config(**models: str) -> str:
    """A ModelServerConfig in text form: name -> base path, or name -> base path and more fields behind it."""
    entries = []
    for name, rest in models.items():
        path, _, more = rest.partition(" ")
        entries.append(
            f'  config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'
        )
    return "model_config_list {\n" + "\n".join(entries) + "\n}\n"
