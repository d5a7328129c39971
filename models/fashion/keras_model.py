"""The network in Keras; torch_model.py beside it is the same, line by line."""

import keras
from keras import layers

from models.base import ModelSpec

from .spec import MEAN, NORM_EPSILON, NORM_MOMENTUM, STD, WIDTHS


def build(spec: ModelSpec) -> keras.Model:
    """image float32 [N, H, W, C], values 0..1 -> logits float32 [N, classes]."""
    (image,) = (keras.Input(tensor.row, name=tensor.name) for tensor in spec.inputs)
    x = layers.Rescaling(1 / STD, -MEAN / STD, name="normalize")(image)
    x = convolution("stem", x, WIDTHS[0], stride=2)
    x = layers.ReLU(name="stem_relu")(x)
    for number, width in enumerate(WIDTHS):
        x = residual(f"blocks_{number}", x, width, stride=1 if number == 0 else 2)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(spec.task.outputs[0].row[0], name="classifier")(x)
    return keras.Model(image, logits, name=spec.name)


def convolution(
    name: str, x: keras.KerasTensor, width: int, size: int = 3, stride: int = 1
) -> keras.KerasTensor:
    # Explicit padding: "same" pads a strided convolution on one side only, where PyTorch pads both.
    x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x) if size > 1 else x
    x = layers.Conv2D(width, size, stride, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, name=f"{name}_norm")(x)


def residual(name: str, x: keras.KerasTensor, width: int, stride: int) -> keras.KerasTensor:
    shortcut = x if stride == 1 else convolution(f"{name}_shortcut", x, width, size=1, stride=stride)
    x = convolution(f"{name}_first", x, width, stride=stride)
    x = layers.ReLU(name=f"{name}_first_relu")(x)
    x = convolution(f"{name}_second", x, width)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)
