"""The Keras network with bridged weights, and the graphs that the TensorFlow exporters are made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.base import Model, Weights
from models.signature import Signature, Tensor

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

FLOAT_SIGNATURE = "serving_default"
ENCODED_SIGNATURE = "encoded"
ENCODED_INPUT = "image_bytes"
EXAMPLES_SIGNATURE = "serving_examples"
EXAMPLES_INPUT = "examples"

# ITU-R BT.601 luma in 16 bit fixed point, rounded as Pillow does it, so that a coloured picture gives the
# same grey levels on every server. The weights add up to one: a grey picture comes through unchanged.
LUMA = (19595, 38470, 7471)
LUMA_BITS = 16


def network(model: Model, weights: Weights) -> keras.Model:
    """Build the Keras network of `model` and set `weights`, without touching their source.

    Raises `ModelError` where names or shapes do not fit.
    """
    # Read when TensorFlow is first imported; its notices about CPU features would drown our progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    result = model.build_keras()
    model.to_keras(weights, result)
    result.trainable = False
    return result


def answering(
    model: Model, network: keras.Model, finite: bool = False
) -> Callable[..., Mapping[str, tf.Tensor]]:
    """A function from the inputs, in the signature's order, to the outputs by name.

    Where inputs must be `finite`, it fails with an InvalidArgumentError at NaN and infinity: TensorFlow Serving passes
    everything on, and only the graph itself can refuse.
    """
    import tensorflow as tf

    inputs, task = model.spec.inputs, model.spec.task

    def answer(*values: tf.Tensor) -> Mapping[str, tf.Tensor]:
        by_name = dict(zip((tensor.name for tensor in inputs), values, strict=True))
        for tensor in inputs if finite else ():
            if tensor.dtype.startswith("float"):
                expected = f"{tensor.name}: expected finite numbers, got NaN or infinity"
                by_name[tensor.name] = tf.debugging.check_numerics(by_name[tensor.name], expected)
        ordered = [by_name[tensor.name] for tensor in network.inputs]
        return task.keras_outputs(network(ordered if len(ordered) > 1 else ordered[0], training=False))

    return answer


def tensor_specs(signature: Signature) -> list[tf.TensorSpec]:
    """The inputs, in order, with any batch."""
    import tensorflow as tf

    return [tf.TensorSpec((None, *tensor.row), tensor.dtype, name=tensor.name) for tensor in signature.inputs]


def write_saved_model(
    model: Model, weights: Weights, folder: Path, served: bool = True, examples: bool = False
) -> None:
    """Write a SavedModel whose `serving_default` has the model's signature.

    Where it is to be `served`, not converted, it refuses NaN and infinity with an InvalidArgumentError, and a model of
    pictures has the signature `encoded`, too: input `image_bytes`, string [N], PNG or JPEG. With `examples` it also has
    `serving_examples`, which takes serialized tf.Examples, string [N], with a feature for each input: TFX's components
    ask in this way.
    """
    import keras
    import tensorflow as tf

    signature = model.spec.signature
    layers = network(model, weights)
    answer = answering(model, layers, finite=served)
    archive = keras.export.ExportArchive()
    archive.track(layers)
    # A plain tf.Module would serve as well, but TFLite converts one into a file without weights.
    archive.add_endpoint(FLOAT_SIGNATURE, answer, tensor_specs(signature))
    if served and (picture := signature.picture):
        unchecked = answering(model, layers)
        archive.add_endpoint(
            ENCODED_SIGNATURE,
            lambda image_bytes: unchecked(decode(picture, image_bytes)),
            [tf.TensorSpec((None,), tf.string, name=ENCODED_INPUT)],
        )
    if examples:
        # A record holds integers as int64.
        features = {
            tensor.name: tf.io.FixedLenFeature(
                tensor.row, tf.float32 if tensor.dtype == "float32" else tf.int64
            )
            for tensor in signature.inputs
        }

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
