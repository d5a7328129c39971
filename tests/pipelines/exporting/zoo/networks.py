"""The networks: a trap each, written once for each framework that it concerns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Network:
    """`keras(k, x)` gives the output of a functional model, with `k` for keras; `torch(t)` a module.

    `row` is the input's shape without the batch; `values`, where they are given, are inputs that show the trap.
    """

    name: str
    row: tuple[int, ...]
    note: str
    """The fault elsewhere or here, and the way out."""
    keras: Callable[[Any, Any], Any] | None = None
    torch: Callable[[Any], Any] | None = None
    values: Callable[[np.ndarray], np.ndarray] = lambda x: x
    """From standard normal numbers, or from 0 to 4 where the input is int32."""
    dtype: str = "float32"
    precision: str = "float32"
    """The precision of LiteRT's file that is compared with the source."""
    weights: Callable[[str, np.ndarray], np.ndarray] = lambda _name, array: array
    """Changes a drawn weight, by its name."""
    trained: bool = False
    """True if the trap is in training: both train on one batch, and their weights are compared."""


def module(forward: Callable[..., Any], **layers: Any) -> Any:
    """A PyTorch module of these layers; its input has the name `x`."""
    from torch import nn

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    return Module()


def last(x: Any) -> Any:
    return x.movedim(1, -1)


def picture(forward: Callable[[Any, Any], Any], **layers: Any) -> Any:
    """A PyTorch module that takes and gives channels last, as Keras does."""
    return module(lambda m, x: last(forward(m, x.movedim(-1, 1))), **layers)


def unique(k: Any, x: Any) -> Any:
    import tensorflow as tf

    class Unique(k.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x + tf.cast(tf.size(tf.unique(tf.reshape(x, [-1]))[0]), x.dtype)

    return Unique()(x)


def tied(t: Any) -> Any:
    layers = {"table": t.nn.Embedding(7, 3), "output": t.nn.Linear(3, 7, bias=False)}
    net = module(lambda m, x: m.output(m.table(x).mean(1)), **layers)
    net.output.weight = net.table.weight
    return net


OUTLIER = np.array([1, 1, 1, 1000])

NETWORKS = (
    Network(
        "strided `same` padding",
        (7, 6, 2),
        "pad before, by `ZeroPadding2D` or `nn.ZeroPad2d`",
        lambda k, x: k.layers.Conv2D(3, 3, 2, "same", name="conv")(x),
        lambda t: picture(lambda m, x: m.conv(x), conv=t.nn.Conv2d(2, 3, 3, 2, 1)),
    ),
    Network(
        "strided convolution, padded before",
        (7, 6, 2),
        "",
        lambda k, x: k.layers.Conv2D(3, 3, 2, name="conv")(k.layers.ZeroPadding2D(((0, 1), (1, 2)))(x)),
        lambda t: picture(
            lambda m, x: m.conv(t.nn.functional.pad(x, (1, 2, 0, 1))), conv=t.nn.Conv2d(2, 3, 3, 2)
        ),
    ),
    Network(
        "batch norm's defaults",
        (3,),
        "write epsilon and momentum (PyTorch's is 1 - Keras's)",
        lambda k, x: k.layers.BatchNormalization(name="norm")(x),
        lambda t: module(lambda m, x: m.norm(x), norm=t.nn.BatchNorm1d(3)),
    ),
    Network(
        "depthwise convolution",
        (6, 6, 2),
        "",
        lambda k, x: k.layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv")(x),
        lambda t: picture(lambda m, x: m.conv(x), conv=t.nn.Conv2d(2, 4, 3, groups=2)),
    ),
    Network(
        "dilated convolution",
        (9, 8, 2),
        "",
        lambda k, x: k.layers.Conv2D(3, 3, dilation_rate=2, name="conv")(x),
        lambda t: picture(lambda m, x: m.conv(x), conv=t.nn.Conv2d(2, 3, 3, dilation=2)),
    ),
    Network(
        "grouped convolution",
        (6, 6, 4),
        "one convolution a group, and `Concatenate`",
        lambda k, x: k.layers.Conv2D(6, 3, groups=2, name="conv")(x),
        lambda t: picture(lambda m, x: m.conv(x), conv=t.nn.Conv2d(4, 6, 3, groups=2)),
    ),
    Network(
        "transposed convolution",
        (4, 5, 2),
        "",
        lambda k, x: k.layers.Conv2DTranspose(3, 3, 2, name="up")(x),
        lambda t: picture(lambda m, x: m.up(x), up=t.nn.ConvTranspose2d(2, 3, 3, 2)),
    ),
    Network(
        "transposed convolution, output padding",
        (4, 5, 2),
        "no padding, and crop by a layer",
        lambda k, x: k.layers.Conv2DTranspose(3, 3, 2, "same", output_padding=1, name="up")(x),
        lambda t: picture(lambda m, x: m.up(x), up=t.nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1)),
    ),
    Network(
        "padded max pooling",
        (5, 5, 2),
        "",
        lambda k, x: k.layers.MaxPooling2D(3, 2, "same")(x),
        lambda t: picture(lambda m, x: t.nn.functional.max_pool2d(x, 3, 2, 1)),
        lambda x: -np.abs(x) - 1,
    ),
    Network(
        "average pooling, rounded up",
        (7, 5, 2),
        "",
        lambda k, x: k.layers.AveragePooling2D(2, 2, "same")(x),
        lambda t: picture(lambda m, x: t.nn.functional.avg_pool2d(x, 2, 2, ceil_mode=True)),
    ),
    Network(
        "bilinear resize",
        (7, 5, 2),
        "",
        lambda k, x: k.layers.Resizing(13, 3)(x),
        lambda t: picture(lambda m, x: t.nn.functional.interpolate(x, (13, 3), mode="bilinear")),
    ),
    Network(
        "bilinear resize to 1 x 1",
        (7, 4, 2),
        "",
        lambda k, x: k.layers.Resizing(1, 1)(x),
        lambda t: picture(lambda m, x: t.nn.functional.interpolate(x, (1, 1), mode="bilinear")),
    ),
    Network(
        "resize, corners aligned",
        (7, 5, 2),
        "`align_corners=False`",
        lambda k, x: k.layers.Resizing(13, 3)(x),
        lambda t: picture(
            lambda m, x: t.nn.functional.interpolate(x, (13, 3), mode="bilinear", align_corners=True)
        ),
    ),
    Network(
        "GELU by erf",
        (5,),
        "`0.5 * x * (1 + ops.erf(x * 0.5**0.5))`",
        lambda k, x: k.activations.gelu(x, approximate=False),
        lambda t: module(lambda m, x: t.nn.functional.gelu(x)),
    ),
    Network(
        "GELU by tanh",
        (5,),
        "",
        lambda k, x: k.activations.gelu(x, approximate=True),
        lambda t: module(lambda m, x: t.nn.functional.gelu(x, approximate="tanh")),
    ),
    Network(
        "leaky ReLU's default",
        (5,),
        "write the slope: 0.3 in Keras, 0.01 in PyTorch",
        lambda k, x: k.layers.Dense(3, name="head")(k.layers.LeakyReLU()(k.layers.Dense(4, name="body")(x))),
        lambda t: module(
            lambda m, x: m.head(t.nn.functional.leaky_relu(m.body(x))),
            body=t.nn.Linear(5, 4),
            head=t.nn.Linear(4, 3),
        ),
    ),
    Network(
        "hard sigmoid",
        (5,),
        "",
        lambda k, x: k.activations.hard_sigmoid(x),
        lambda t: module(lambda m, x: t.nn.functional.hardsigmoid(x)),
        lambda x: 3 * x,
    ),
    Network(
        "layer norm near 1e4",
        (4, 8),
        "subtract a constant",
        lambda k, x: k.layers.LayerNormalization(epsilon=1e-5, name="norm")(x),
        lambda t: module(lambda m, x: m.norm(x), norm=t.nn.LayerNorm(8)),
        lambda x: x + 1e4,
    ),
    Network(
        "softmax over another axis",
        (3, 4),
        "",
        lambda k, x: k.ops.softmax(x, axis=1),
        lambda t: module(lambda m, x: x.softmax(1)),
    ),
    Network(
        "flatten after a convolution",
        (5, 4, 2),
        "",
        lambda k, x: k.layers.Dense(3, name="head")(
            k.layers.Flatten()(k.layers.Conv2D(3, 2, name="conv")(x))
        ),
        lambda t: module(
            lambda m, x: m.head(m.conv(x.movedim(-1, 1)).flatten(1)),
            conv=t.nn.Conv2d(2, 3, 2),
            head=t.nn.Linear(36, 3),
        ),
    ),
    Network(
        "flatten after Conv1D",
        (6, 2),
        "",
        lambda k, x: k.layers.Dense(3, name="head")(
            k.layers.Flatten()(k.layers.Conv1D(3, 2, name="conv")(x))
        ),
        lambda t: module(
            lambda m, x: m.head(m.conv(x.movedim(-1, 1)).flatten(1)),
            conv=t.nn.Conv1d(2, 3, 2),
            head=t.nn.Linear(15, 3),
        ),
    ),
    Network(
        "batch norm between flatten and dense",
        (3, 2, 2),
        "",
        lambda k, x: k.layers.Dense(3, name="head")(
            k.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm")(k.layers.Flatten()(x))
        ),
        lambda t: module(
            lambda m, x: m.head(m.norm(x.movedim(-1, 1).flatten(1))),
            norm=t.nn.BatchNorm1d(12),
            head=t.nn.Linear(12, 3),
        ),
    ),
    Network(
        "int32 in, two outputs",
        (4,),
        "nothing: each artifact is compared",
        lambda k, x: [x * 2, k.ops.cast(x, "float32") / 3],
        lambda t: module(lambda m, x: (x * 2, x / 3)),
        dtype="int32",
    ),
    Network(
        "float64 constants",
        (4,),
        "`np.float32(...)`",
        lambda k, x: k.ops.cast(k.ops.cast(x, "float64") * np.linspace(0, 1, 4), "float32"),
        lambda t: module(lambda m, x: (x.double() * t.linspace(0, 1, 4, dtype=t.float64)).float()),
    ),
    Network(
        "a new axis: `x[:, None]`",
        (4,),
        "",
        lambda k, x: x[:, None] * np.ones((1, 3, 1), np.float32),
        lambda t: module(lambda m, x: x[:, None] * t.ones(1, 3, 1)),
    ),
    Network(
        "unique, non-zero",
        (4,),
        "published with `batched: false`",
        unique,
        lambda t: module(lambda m, x: x + x.nonzero().shape[0]),
    ),
    Network(
        "GRU",
        (10, 3),
        "`unroll=True`",
        lambda k, x: k.layers.GRU(4, name="gru")(x),
        lambda t: module(lambda m, x: m.gru(x)[0][:, -1], gru=t.nn.GRU(3, 4, batch_first=True)),
    ),
    Network(
        "GRU, unrolled",
        (10, 3),
        "",
        lambda k, x: k.layers.GRU(4, unroll=True, name="gru")(x),
    ),
    Network(
        "two-layer LSTM",
        (10, 3),
        "two modules",
        lambda k, x: k.layers.LSTM(4, name="lstm")(x),
        lambda t: module(lambda m, x: m.lstm(x)[0][:, -1], lstm=t.nn.LSTM(3, 4, 2, batch_first=True)),
    ),
    Network(
        "embedding, index out of range",
        (3,),
        "clamp indices, as `models/language`",
        lambda k, x: k.layers.Embedding(7, 3, name="table")(x),
        lambda t: module(lambda m, x: m.table(x), table=t.nn.Embedding(7, 3)),
        lambda x: x + 5,
        dtype="int32",
    ),
    Network(
        "tied embedding",
        (3,),
        "two layers in PyTorch, too",
        lambda k, x: k.layers.Dense(7, use_bias=False, name="output")(
            k.ops.mean(k.layers.Embedding(7, 3, name="table")(x), axis=1)
        ),
        tied,
        dtype="int32",
    ),
    Network(
        "attention with a mask",
        (5, 8),
        "`Dense` and `ops.matmul`, as `models/language`",
        lambda k, x: k.layers.MultiHeadAttention(2, 4, name="mix")(
            x, x, attention_mask=np.tri(5, dtype=bool)[None]
        ),
        lambda t: module(
            lambda m, x: m.mix(x, x, x, attn_mask=t.ones(5, 5).triu(1).bool(), need_weights=False)[0],
            mix=t.nn.MultiheadAttention(8, 2, batch_first=True),
        ),
    ),
    Network(
        "loop over rows",
        (4,),
        "write it for the whole batch",
        torch=lambda t: module(lambda m, x: t.stack([row * 2 for row in x])),
    ),
    Network(
        "dropout left on",
        (64,),
        "`nn.Dropout`; the function is on by default",
        lambda k, x: k.layers.Dropout(0.5)(x, training=True),
        lambda t: module(lambda m, x: t.nn.functional.dropout(x)),
    ),
    Network(
        "7e4 in float16",
        (4,),
        "scale weights, or omit float16 in `precisions`",
        lambda k, x: k.layers.Dense(3, name="head")(x),
        lambda t: module(lambda m, x: m.head(x), head=t.nn.Linear(4, 3)),
        precision="float16",
        weights=lambda name, array: array + np.array([7e4, 8e4, 9e4]) if name == "head/kernel" else array,
    ),
    Network(
        "int8, one large channel",
        (4,),
        "normalize, or omit int8 in `precisions`",
        lambda k, x: k.layers.Dense(3, name="head")(k.layers.Dense(4, name="body")(x)),
        lambda t: module(lambda m, x: m.head(m.body(x)), body=t.nn.Linear(4, 4), head=t.nn.Linear(4, 3)),
        precision="int8",
        weights=lambda name, array: (
            array * {"body/kernel": OUTLIER, "head/kernel": 1 / OUTLIER[:, None]}.get(name, 1)
        ),
    ),
    Network(
        "argmax",
        (5,),
        "return scores",
        lambda k, x: k.ops.cast(k.ops.argmax(x, axis=1), "int32"),
        lambda t: module(lambda m, x: x.argmax(1).int()),
        lambda x: np.abs(np.round(x)),
    ),
    Network(
        "remainder of negative numbers",
        (5,),
        "`(x % 3 + 3) % 3`",
        lambda k, x: k.ops.mod(x, 3),
        lambda t: module(lambda m, x: x % 3),
        lambda x: x - 9,
        dtype="int32",
    ),
    Network(
        "rounding of halves",
        (5,),
        "",
        lambda k, x: k.ops.round(x),
        lambda t: module(lambda m, x: x.round()),
        lambda x: np.round(2 * x) / 2,
    ),
    Network(
        "batch norm in training",
        (3,),
        "batches of 128: Keras's variance is biased",
        lambda k, x: k.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm")(x),
        lambda t: module(lambda m, x: m.norm(x), norm=t.nn.BatchNorm1d(3)),
        trained=True,
    ),
)
