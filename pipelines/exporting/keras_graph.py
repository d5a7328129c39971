"""TensorFlow graphs for the exporters: of the Keras network, an imported file, or a conversion."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from models.base import Model, Weights
from models.signature import STRING, Signature, Tensor
from pipelines.exporting import imported, onnx, onnx2tf
from pipelines.exporting.base import ExportError
from serving.repository import file_digest

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Answer: TypeAlias = "Callable[..., Mapping[str, tf.Tensor]]"
"""A function from the inputs, in the signature's order, to the outputs by name."""

FLOAT_SIGNATURE = "serving_default"
_converted: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""The output folders of onnx2tf, by the digest of the ONNX file; empty if the conversion failed."""
ENCODED_SIGNATURE = "encoded"
ENCODED_INPUT = "image_bytes"
EXAMPLES_SIGNATURE = "serving_examples"
EXAMPLES_INPUT = "examples"

# ITU-R BT.601 luma in 16 bit fixed point, rounded as Pillow does it, so that a coloured picture gives the
# same grey levels on every server. The weights add up to one: a grey picture comes through unchanged.
LUMA = (19595, 38470, 7471)
LUMA_BITS = 16


def network(model: Model, weights: Weights) -> keras.Model:
    """Build the Keras network of `model` and set `weights`, without touching their source. Raises `ModelError`
    where names or shapes do not fit."""
    # Read at TensorFlow's first import; its notices about the CPU would hide our progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if model.spec.artifact is not None:
        return imported.keras_network(model.spec.artifact)
    result = model.build_keras()
    model.to_keras(weights, result)
    result.trainable = False
    return result


def answering(model: Model, network: keras.Model) -> Answer:
    """Return a Keras network as a function from the inputs, in the signature's order, to the outputs by name."""
    spec = model.spec
    # A model that is not batched is a network of batches all the same, unless it came as a file.
    alone = not spec.batched and spec.artifact is None
    own = spec.artifact.own if spec.artifact else str
    places = {own(tensor.name): place for place, tensor in enumerate(spec.inputs)}

    def answer(*values: tf.Tensor) -> Mapping[str, tf.Tensor]:
        ordered = [values[places[tensor.name]] for tensor in network.inputs]
        if alone:
            ordered = [value[None] for value in ordered]
        outputs = spec.task.keras_outputs(
            network(ordered if len(ordered) > 1 else ordered[0], training=False)
        )
        return {name: output[0] if alone else output for name, output in outputs.items()}

    return answer


def finite(model: Model, answer: Answer) -> Answer:
    """Return the function with a check that raises InvalidArgumentError for NaN and infinity: TensorFlow Serving passes
    them on, and only the graph can refuse them."""
    import tensorflow as tf

    def check(tensor: Tensor, value: tf.Tensor) -> tf.Tensor:
        message = f"{tensor.name}: expected finite numbers, got NaN or infinity"
        return tf.debugging.check_numerics(value, message) if tensor.dtype.startswith("float") else value

    return lambda *values: answer(*map(check, model.spec.inputs, values))


def graph(model: Model, weights: Weights) -> tuple[Any, Answer]:
    """Return the model in TensorFlow: the holder of its variables, and the function from inputs to outputs by name.
    onnx2tf converts a model that is PyTorch's or ONNX only. Raises `ExportError`."""
    artifact = model.spec.artifact
    if "tensorflow" in model.origins or "keras" in model.origins:
        layers = network(model, weights)
        return layers, answering(model, layers)
    if artifact is not None and artifact.format == "saved_model":
        return _saved(model, artifact.file(), artifact.signature_key, artifact.own)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.export(model, weights, path)
        key = file_digest(path)
        if key not in _converted:
            # Kept for the three targets that need it.
            _converted[key] = tempfile.TemporaryDirectory()
            onnx2tf.convert(path, model, Path(_converted[key].name))
        converted = Path(_converted[key].name)
        if not (converted / "saved_model.pb").exists():
            raise ExportError("onnx2tf cannot convert this graph, as it was said above")
        outputs = {t.name: f"output_{place}" for place, t in enumerate(model.spec.signature.outputs)}
        return _saved(model, converted, FLOAT_SIGNATURE, lambda name: outputs.get(name, name))


def _saved(model: Model, path: Path, key: str, own: Callable[[str], str]) -> tuple[Any, Answer]:
    """Return a SavedModel and its signature's function; `own` gives the file's name for one of the spec."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function, signature = loaded.signatures[key], model.spec.signature

    def answer(*values: tf.Tensor) -> Mapping[str, tf.Tensor]:
        named = {own(t.name): value for t, value in zip(signature.inputs, values, strict=True)}
        for name, spec in function.structured_input_signature[1].items():
            if named[name].shape.rank == 0 and spec.shape.rank == 1:
                # A converter makes lists of scalars.
                named[name] = named[name][None]
        answered = function(**named)
        outputs = {t.name: tf.identity(answered[own(t.name)]) for t in signature.outputs}
        for tensor in signature.outputs:
            # A converter may have lost it. TensorFlow.js has no operation that ensures it.
            outputs[tensor.name].set_shape(sizes(tensor))
        return outputs

    return loaded, answer


def sizes(tensor: Tensor) -> list[int | None]:
    """Return a tensor's shape with None for free sizes."""
    return [size if isinstance(size, int) else None for size in tensor.shape]


def tensor_specs(signature: Signature) -> list[tf.TensorSpec]:
    """Return the specs of the inputs, in order."""
    import tensorflow as tf

    dtypes = [tf.string if tensor.dtype == STRING else tensor.dtype for tensor in signature.inputs]
    return [tf.TensorSpec(sizes(t), dtype, t.name) for t, dtype in zip(signature.inputs, dtypes, strict=True)]


def write_saved_model(
    model: Model, weights: Weights, folder: Path, served: bool = True, examples: bool = False
) -> None:
    """Write a SavedModel whose `serving_default` has the model's signature.

    If it is to be `served`, not converted, it refuses NaN and infinity with an InvalidArgumentError, and a model of
    pictures also has the signature `encoded`: input `image_bytes`, string [N], PNG or JPEG. With `examples` it has
    `serving_examples` for TFX's components: serialized tf.Examples, string [N], with a feature for each input.
    """
    import keras
    import tensorflow as tf

    signature = model.spec.signature
    held, unchecked = graph(model, weights)
    answer = finite(model, unchecked) if served and model.spec.artifact is None else unchecked
    archive = keras.export.ExportArchive()
    archive.track(held)
    # Keras would save each variable twice: as its own, and as the one of TensorFlow that the endpoints use.
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        setattr(archive._tf_trackable, name, [])
    # A plain tf.Module would serve as well, but TFLite converts one into a file without weights.
    archive.add_endpoint(FLOAT_SIGNATURE, answer, tensor_specs(signature))
    if served and (picture := signature.picture):
        archive.add_endpoint(
            ENCODED_SIGNATURE,
            lambda image_bytes: unchecked(decode(picture, image_bytes)),
            [tf.TensorSpec((None,), tf.string, name=ENCODED_INPUT)],
        )
    if examples:
        # A record holds integers as int64.
        dtypes = {"float32": tf.float32, "int32": tf.int64}
        features = {t.name: tf.io.FixedLenFeature(t.row, dtypes[t.dtype]) for t in signature.inputs}

        def answer_examples(examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, features)
            return answer(*(tf.cast(parsed[tensor.name], tensor.dtype) for tensor in signature.inputs))

        archive.add_endpoint(
            EXAMPLES_SIGNATURE, answer_examples, [tf.TensorSpec((None,), tf.string, name=EXAMPLES_INPUT)]
        )
    archive.write_out(str(folder), verbose=False)


def decode(tensor: Tensor, image_bytes: tf.Tensor) -> tf.Tensor:
    """PNG or JPEG bytes, string [N] -> float32 [N, H, W, C], values 0..1.

    Colours become grey where the input has one channel; another size is resampled (bilinear, antialiased).
    An input that is no picture fails with an InvalidArgumentError.
    """
    import tensorflow as tf

    height, width, channels = tensor.row

    def one(contents: tf.Tensor) -> tf.Tensor:
        # This op reads PNG too. It is asked for RGB always, because the decoders' own ways to grey differ
        # between the formats, and for the transform that Pillow uses, so that JPEGs give the same levels.
        colours = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
        if channels == 1:
            weighted = tf.cast(colours, tf.int32) * tf.constant(LUMA)
            grey = tf.reduce_sum(weighted, axis=-1, keepdims=True) + (1 << (LUMA_BITS - 1))
            picture = tf.bitwise.right_shift(grey, LUMA_BITS)
        else:
            picture = tf.cast(colours, tf.int32)
        picture = tf.cast(picture, tf.float32)
        fits = tf.reduce_all(tf.shape(picture)[:2] == (height, width))
        resized = tf.cond(
            fits,
            lambda: picture,
            lambda: tf.round(tf.image.resize(picture, (height, width), antialias=True)),
        )
        return tf.ensure_shape(resized / 255, tensor.row)

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec(tensor.row, tf.float32))
