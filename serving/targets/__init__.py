"""The runtimes that Tandem ships to, one file each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.targets.base import Target

NAMES = ("tf-serving", "litert", "tfjs", "torchserve", "onnxruntime")


def load(name: str) -> Target:
    """Load a target by its name. Raises `KeyError` where there is none."""
    if name not in NAMES:
        raise KeyError(f"there is no target {name!r}; there are: {', '.join(NAMES)}")
    target: Target = importlib.import_module(f"serving.targets.{name.replace('-', '_')}").TARGET
    return target
