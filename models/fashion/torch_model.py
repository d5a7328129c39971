"""The network in PyTorch; keras_model.py beside it is the same, line by line."""

import torch
from torch import Tensor, nn

from models.base import ModelSpec

from .spec import MEAN, NORM_EPSILON, NORM_MOMENTUM, STD, WIDTHS


def build(spec: ModelSpec) -> nn.Module:
    """image float32 [N, H, W, C], values 0..1 -> logits float32 [N, classes]."""
    return Network(channels=spec.inputs[0].row[2], classes=spec.task.outputs[0].row[0])


class Network(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)
        self.stem = Convolution(channels, WIDTHS[0], stride=2)
        self.blocks = nn.ModuleList(
            Residual(before, width, stride=1 if number == 0 else 2)
            for number, (before, width) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        )
        self.classifier = nn.Linear(WIDTHS[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        x = (image.permute(0, 3, 1, 2) - self.mean) / self.std
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        logits: Tensor = self.classifier(x)
        return logits


class Convolution(nn.Sequential):
    def __init__(self, before: int, width: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, size, stride=stride, padding=size // 2, bias=False)
        # PyTorch's momentum is the weight of the new batch, Keras's that of the old average.
        self.norm = nn.BatchNorm2d(width, eps=NORM_EPSILON, momentum=1 - NORM_MOMENTUM)


class Residual(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if stride == 1 else Convolution(before, width, size=1, stride=stride)
        self.first = Convolution(before, width, stride=stride)
        self.second = Convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = torch.relu(self.first(x))
        x = self.second(x)
        return torch.relu(x + shortcut)
