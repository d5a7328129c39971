"""The Keras network with bridged weights, and the graphs that the TensorFlow exporters are made from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.base import Model, ModelSpec, Weights

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
    """Build the Keras network of `model` (image -> logits) and set `weights`, without touching their source.

    Raises `ModelError` where names or shapes do not fit.
    """
    # Read when TensorFlow is first imported; its notices about CPU features would drown our progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    result = model.build_keras()
    model.to_keras(weights, result)
    result.trainable = False
    return result


def write_saved_model(
    model: Model, weights: Weights, folder: Path, served: bool = True, examples: bool = False
) -> None:
    """Write a SavedModel whose `serving_default` takes pictures as the spec states them.

    Where it is to be `served`, not converted, it refuses NaN and infinity with an InvalidArgumentError, and has
    the signature `encoded`, too: input `image_bytes`, string [N], PNG or JPEG. With `examples` it also has
    `serving_examples`, which takes serialized tf.Examples, string [N], whose feature of the input's name is the
    picture: TFX's components ask in this way. All answer `logits` and `probabilities`, float32 [N, classes].
    """
    import keras
    import tensorflow as tf

    spec = model.spec
    logits_name, probabilities_name = spec.output_names
    layers = network(model, weights)

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = layers(image, training=False)
        return {logits_name: logits, probabilities_name: tf.nn.softmax(logits)}

    def classify_finite(image: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow Serving passes everything on: only the graph itself can refuse what is no picture.
        expected = f"{spec.input_name}: expected finite numbers, got NaN or infinity"
        return classify(tf.debugging.check_numerics(image, expected))

    def classify_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(decode(spec, image_bytes))

    archive = keras.export.ExportArchive()
    archive.track(layers)
    # A plain tf.Module would serve as well, but TFLite converts one into a file without weights.
    archive.add_endpoint(
        FLOAT_SIGNATURE,
        classify_finite if served else classify,
        [tf.TensorSpec((None, *spec.image_shape), tf.float32, name=spec.input_name)],
    )
    if served:
        archive.add_endpoint(
            ENCODED_SIGNATURE, classify_encoded, [tf.TensorSpec((None,), tf.string, name=ENCODED_INPUT)]
        )
    if examples:
        feature = {spec.input_name: tf.io.FixedLenFeature(spec.image_shape, tf.float32)}
        archive.add_endpoint(
            EXAMPLES_SIGNATURE,
            lambda examples: classify_finite(tf.io.parse_example(examples, feature)[spec.input_name]),
            [tf.TensorSpec((None,), tf.string, name=EXAMPLES_INPUT)],
        )
    archive.write_out(str(folder), verbose=False)


def decode(spec: ModelSpec, image_bytes: tf.Tensor) -> tf.Tensor:
    """PNG or JPEG bytes, string [N] -> float32 [N, H, W, C], values 0..1.

    Colours become grey where the spec has one channel; another size is resampled (bilinear, antialiased).
    An input that is no picture fails with an InvalidArgumentError.
    """
    import tensorflow as tf

    height, width, channels = spec.image_shape

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
        return tf.ensure_shape(resized / 255, spec.image_shape)

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec(spec.image_shape, tf.float32))
