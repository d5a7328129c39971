"""The network in Keras; torch_model.py beside it is the same, line by line."""

import keras
import numpy as np
from keras import layers, ops

from models.base import ModelSpec

from .spec import BLOCKS, BYTES, HEADS, HIDDEN, LENGTH, MASKED, NORM_EPSILON, WIDTH


def build(spec: ModelSpec) -> keras.Model:
    """text int32 [N, L], UTF-8 bytes and zeros -> logits float32 [N, classes]."""
    (text,) = (keras.Input(tensor.row, name=tensor.name, dtype=tensor.dtype) for tensor in spec.inputs)
    byte = ops.minimum(ops.maximum(text, 0), BYTES - 1)
    mask = ops.expand_dims(ops.cast(ops.minimum(byte, 1), "float32"), -1)
    # A product: Keras would add a constant row as a bias, which TensorFlow Lite knows of floats only.
    index = ops.ones_like(byte) * np.arange(LENGTH, dtype=np.int32)
    x = layers.Embedding(BYTES, WIDTH, name="bytes")(byte)
    x = x + layers.Embedding(LENGTH, WIDTH, name="positions")(index)
    ignored = ops.reshape((1.0 - mask) * MASKED, (-1, 1, 1, LENGTH))
    for number in range(BLOCKS):
        x = block(f"blocks_{number}", x, ignored)
    x = norm("norm", x)
    x = ops.sum(x * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)
    logits = layers.Dense(spec.task.outputs[0].row[0], name="classifier")(x)
    return keras.Model(text, logits, name=spec.name)


def block(name: str, x: keras.KerasTensor, ignored: keras.KerasTensor) -> keras.KerasTensor:
    x = x + attention(f"{name}_attention", norm(f"{name}_first_norm", x), ignored)
    hidden = layers.Dense(HIDDEN, name=f"{name}_widen")(norm(f"{name}_second_norm", x))
    # The exact GELU by erf: Keras's own is an Erfc in TensorFlow, which TensorFlow.js does not know.
    hidden = 0.5 * hidden * (1 + ops.erf(hidden * 0.5**0.5))
    return x + layers.Dense(WIDTH, name=f"{name}_narrow")(hidden)


def attention(name: str, x: keras.KerasTensor, ignored: keras.KerasTensor) -> keras.KerasTensor:
    query, key, value = (
        heads(layers.Dense(WIDTH, name=f"{name}_{part}")(x)) for part in ("query", "key", "value")
    )
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * (WIDTH // HEADS) ** -0.5
    weights = ops.softmax(scores + ignored, axis=-1)
    mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    mixed = ops.reshape(mixed, (-1, LENGTH, WIDTH))
    return layers.Dense(WIDTH, name=f"{name}_output")(mixed)


def heads(x: keras.KerasTensor) -> keras.KerasTensor:
    """[N, L, WIDTH] -> [N, HEADS, L, WIDTH / HEADS]."""
    return ops.transpose(ops.reshape(x, (-1, LENGTH, HEADS, WIDTH // HEADS)), (0, 2, 1, 3))


def norm(name: str, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.LayerNormalization(epsilon=NORM_EPSILON, name=name)(x)
