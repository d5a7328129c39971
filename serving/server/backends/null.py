"""A model without a runtime: zeros of the manifest's signature, to measure the cost of the server alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.repository import read_manifest
from serving.server.tensors.signature import DEFAULT_SIGNATURE, Signature, Tensors, TensorSpec


def load(directory: Path, _file: str, _threads: int) -> NullServable:
    """Return a servable with the signature of the manifest."""
    inputs, outputs = (_specs(read_manifest(directory).signature[key]) for key in ("inputs", "outputs"))
    return NullServable(Signature(inputs, outputs))


class NullServable:
    """Answers zeros, with as many rows as the input."""

    def __init__(self, signature: Signature) -> None:
        self.signatures = {DEFAULT_SIGNATURE: signature}

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        rows = len(next(iter(inputs.values())))
        specs = {spec.name: spec for spec in self.signatures[signature].outputs}
        return {name: np.zeros((rows, *(specs[name].shape or ())[1:]), specs[name].dtype) for name in outputs}

    def close(self) -> None:
        pass


def _specs(tensors: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, own["dtype"], tuple(-1 if isinstance(size, str) else size for size in own["shape"]))
        for name, own in tensors.items()
    )
