"""The network in PyTorch; keras_model.py beside it is the same, line by line."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import ModelSpec

from .spec import BLOCKS, BYTES, HEADS, HIDDEN, LENGTH, MASKED, NORM_EPSILON, WIDTH


def build(spec: ModelSpec) -> nn.Module:
    """text int32 [N, L], UTF-8 bytes and zeros -> logits float32 [N, classes]."""
    return Network(classes=spec.task.outputs[0].row[0])


class Network(nn.Module):
    index: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(LENGTH), persistent=False)
        self.bytes = nn.Embedding(BYTES, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH, eps=NORM_EPSILON)
        self.classifier = nn.Linear(WIDTH, classes)

    def forward(self, text: Tensor) -> Tensor:
        byte = text.clamp(0, BYTES - 1)
        mask = byte.clamp(max=1).to(torch.float32).unsqueeze(-1)
        x = self.bytes(byte)
        x = x + self.positions(self.index)
        ignored = ((1.0 - mask) * MASKED).reshape(-1, 1, 1, LENGTH)
        for block in self.blocks:
            x = block(x, ignored)
        x = self.norm(x)
        x = (x * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        logits: Tensor = self.classifier(x)
        return logits


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(WIDTH, eps=NORM_EPSILON)
        self.attention = Attention()
        self.second_norm = nn.LayerNorm(WIDTH, eps=NORM_EPSILON)
        self.widen = nn.Linear(WIDTH, HIDDEN)
        self.narrow = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        x = x + self.attention(self.first_norm(x), ignored)
        hidden = functional.gelu(self.widen(self.second_norm(x)), approximate="none")
        result: Tensor = x + self.narrow(hidden)
        return result


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        query, key, value = (heads(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5
        weights = (scores + ignored).softmax(dim=-1)
        mixed = (weights @ value).permute(0, 2, 1, 3)
        mixed = mixed.reshape(-1, LENGTH, WIDTH)
        result: Tensor = self.output(mixed)
        return result


def heads(x: Tensor) -> Tensor:
    """[N, L, WIDTH] -> [N, HEADS, L, WIDTH / HEADS]."""
    return x.reshape(-1, LENGTH, HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)
