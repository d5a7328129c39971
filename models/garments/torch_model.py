"""The network in PyTorch; keras_model.py beside it is the same, line by line."""

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from models.base import ModelSpec

from .spec import BLOCKS, NORM_EPSILON, NORM_MOMENTUM, OFFSET, SCALE, SIZE, STEM, TOP


def build(spec: ModelSpec) -> nn.Module:
    """image float32 [N, H, W, 1], values 0..1 -> logits float32 [N, classes]."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(enlarge=Enlarge())
    parts["stem"] = Convolution(SIZE, 3, STEM, 3, stride=2)
    parts["stem_relu"] = nn.ReLU6()
    size, before = math.ceil(SIZE / 2), STEM
    for number, (factor, kernel, stride, width) in enumerate(BLOCKS):
        parts[f"block_{number}"] = Block(size, before, width, factor, kernel, stride)
        size, before = math.ceil(size / stride), width
    parts["top"] = Convolution(size, before, TOP)
    parts["top_relu"] = nn.ReLU6()
    parts["pool"] = Pool()
    parts["classifier"] = nn.Linear(TOP, spec.task.outputs[0].row[0])
    return Network(parts)


class Network(nn.Sequential):
    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = super().forward(image)  # type: ignore[no-untyped-call]
        return logits


class Enlarge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(0, 1).permute(0, 3, 1, 2)
        x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear")
        return (x * SCALE + OFFSET).repeat(1, 3, 1, 1)


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Convolution(nn.Sequential):
    def __init__(
        self, size: int, before: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        # As Keras's "same" pads pictures of this size: an odd pixel goes to the end.
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        self.pad = nn.ZeroPad2d((total // 2, total - total // 2) * 2)
        self.conv = nn.Conv2d(before, width, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=NORM_EPSILON, momentum=1 - NORM_MOMENTUM)


class Block(nn.Module):
    def __init__(self, size: int, before: int, width: int, factor: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = before * factor
        self.expand = Convolution(size, before, inner) if factor > 1 else None
        self.depthwise = Convolution(size, inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(math.ceil(size / stride), inner, width)
        self.skips = stride == 1 and before == width

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.expand(x)) if self.expand is not None else x
        y = functional.relu6(self.depthwise(y))
        result: Tensor = self.project(y)
        return x + result if self.skips else result
