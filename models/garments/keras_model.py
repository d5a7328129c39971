"""The network in Keras; torch_model.py beside it is the same, line by line."""

import keras
from keras import layers, ops

from models.base import ModelSpec

from .spec import BLOCKS, NORM_EPSILON, NORM_MOMENTUM, OFFSET, SCALE, SIZE, STEM, TOP


def build(spec: ModelSpec) -> keras.Model:
    """image float32 [N, H, W, 1], values 0..1 -> logits float32 [N, classes]."""
    (image,) = (keras.Input(tensor.row, name=tensor.name) for tensor in spec.inputs)
    x = layers.Resizing(SIZE, SIZE, name="enlarge")(ops.clip(image, 0.0, 1.0))
    x = layers.Rescaling(SCALE, OFFSET, name="normalize")(x)
    x = layers.Concatenate(name="colours")([x, x, x])
    x = normalized("stem", layers.Conv2D(STEM, 3, 2, "same", use_bias=False, name="stem_conv")(x))
    x = layers.ReLU(6, name="stem_relu")(x)
    for number, (factor, kernel, stride, width) in enumerate(BLOCKS):
        x = block(f"block_{number}", x, width, factor, kernel, stride)
    x = normalized("top", layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(x))
    x = layers.ReLU(6, name="top_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(spec.task.outputs[0].row[0], name="classifier")(x)
    return keras.Model(image, logits, name=spec.name)


def normalized(name: str, x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, name=f"{name}_norm")(x)


def block(
    name: str, x: keras.KerasTensor, width: int, factor: int, kernel: int, stride: int
) -> keras.KerasTensor:
    y, before = x, x.shape[-1]
    if factor > 1:
        y = layers.Conv2D(before * factor, 1, use_bias=False, name=f"{name}_expand_conv")(y)
        y = layers.ReLU(6, name=f"{name}_expand_relu")(normalized(f"{name}_expand", y))
    y = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise_conv")(y)
    y = layers.ReLU(6, name=f"{name}_depthwise_relu")(normalized(f"{name}_depthwise", y))
    y = normalized(f"{name}_project", layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project_conv")(y))
    skips = stride == 1 and before == width
    return layers.Add(name=name)([x, y]) if skips else layers.Identity(name=name)(y)
