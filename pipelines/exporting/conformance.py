"""What an artifact must be beyond its answers to test pictures: right for any number of rows, for inputs that no test
picture is like, and for what it says of itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE, TensorSpec
from serving.targets.base import Images, Outputs

SIZES = (1, 3, 64)
"""Rows a run."""
NOISE = 1e3
"""Standard deviation of the large noise: a thousand times what a picture has."""

Answer = Callable[[Sequence[Images]], Sequence[Outputs]]


def batches(images: Images) -> list[Images]:
    """Runs of 1, 3 and 64 of the images, and then of zeros, ones and large noise, three rows each."""
    ends = np.cumsum(SIZES)
    own = [
        np.resize(images, (int(end), *images.shape[1:]))[-size:]
        for end, size in zip(ends, SIZES, strict=True)
    ]
    shape = (3, *images.shape[1:])
    noise = np.random.default_rng(3).normal(scale=NOISE, size=shape).astype(np.float32)
    return [*own, np.zeros(shape, np.float32), np.ones(shape, np.float32), noise]


def difference(answer: Answer, expected: Sequence[NDArray[np.float32]], runs: Sequence[Images]) -> float:
    """The largest difference of logits from `expected`, run by run; relative to a row's largest where that is above 1.

    Infinite where a run answers with another number of rows, or with NaN.
    """
    worst = 0.0
    for right, outputs in zip(expected, answer(runs), strict=True):
        if outputs.logits.shape != right.shape:
            return float("inf")
        scale = np.maximum(1, np.abs(right).max(axis=1, keepdims=True))
        apart = np.abs(outputs.logits.astype(np.float64) - right) / scale
        worst = max(worst, float(np.where(np.isnan(apart), np.inf, apart).max()))
    return worst


@contextmanager
def alone(folder: Path, file: str, whole: bool) -> Iterator[Path]:
    """The artifact's path in an empty folder: only `file` goes along, or the `whole` folder, as it is published."""
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "artifact"
        if whole:
            shutil.copytree(folder, empty)
        else:
            empty.mkdir()
            shutil.copy(folder / file, empty / file)
        yield empty / file


def untruths(backend: str, folder: Path, file: str, signature: Mapping[str, Any]) -> list[str]:
    """What an artifact says of its inputs and outputs that its manifest does not: names, dtypes, free dimensions.

    `folder` holds the artifact and nothing else; `backend` is the one of our server that opens it.
    """
    servable = loader(backend)(folder, file, 1)
    try:
        own = servable.signatures[DEFAULT_SIGNATURE]
    finally:
        servable.close()
    found = {kind: _forms(specs) for kind, specs in (("inputs", own.inputs), ("outputs", own.outputs))}
    return [
        f"{kind} {found[kind]}, expected {expected}"
        for kind in ("inputs", "outputs")
        if (expected := {n: (t["dtype"], tuple(t["shape"])) for n, t in signature[kind].items()})
        != found[kind]
    ]


def _forms(specs: Sequence[TensorSpec]) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    return {spec.name: (spec.dtype, spec.shape) for spec in specs}
