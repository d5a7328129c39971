"""The network in PyTorch; keras_model.py beside it is the same, line by line."""

import torch
from torch import Tensor, nn

from models.base import ModelSpec


def build(spec: ModelSpec) -> nn.Module:
    """image float32 [N, H, W, C], values 0..1 -> logits float32 [N, classes]."""
    return Network(spec)


class Network(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.scale, self.shift = 1 / spec.std, -spec.mean / spec.std
        self.stem = Convolution(spec, spec.image_shape[2], spec.widths[0], stride=2)
        widths = zip((spec.widths[0], *spec.widths), spec.widths, strict=False)
        for number, (before, width) in enumerate(widths, start=1):
            self.add_module(f"block{number}", Residual(spec, before, width, stride=1 if number == 1 else 2))
        self.blocks = [f"block{number}" for number in range(1, len(spec.widths) + 1)]
        self.classifier = nn.Linear(spec.widths[-1], len(spec.classes))

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2) * self.scale + self.shift
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = getattr(self, block)(x)
        x = x.mean(dim=(2, 3))
        logits: Tensor = self.classifier(x)
        return logits


class Convolution(nn.Sequential):
    def __init__(self, spec: ModelSpec, before: int, width: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, size, stride, padding=size // 2, bias=False)
        # PyTorch's momentum is the weight of the new batch, Keras's that of the old average.
        self.norm = nn.BatchNorm2d(width, spec.batch_norm_epsilon, 1 - spec.batch_norm_momentum)


class Residual(nn.Module):
    def __init__(self, spec: ModelSpec, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut = (
            nn.Identity() if stride == 1 else Convolution(spec, before, width, size=1, stride=stride)
        )
        self.first = Convolution(spec, before, width, stride=stride)
        self.second = Convolution(spec, width, width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = torch.relu(self.first(x))
        x = self.second(x)
        return torch.relu(x + shortcut)
