"""The runtimes that Tandem ships to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.targets.base import Target

MODULES = {
    "tf-serving": "tf_serving",
    "litert": "open_inference",
    "tfjs": "tfjs",
    "torchserve": "torchserve",
    "onnxruntime": "open_inference",
}
NAMES = tuple(MODULES)


def load(name: str) -> Target:
    """Return a target by its name. Raises `KeyError`."""
    if name not in NAMES:
        raise KeyError(f"there is no target {name!r}; there are: {', '.join(NAMES)}")
    module = importlib.import_module(f"serving.targets.{MODULES[name]}")
    target: Target = module.TARGETS[name] if hasattr(module, "TARGETS") else module.TARGET
    return target
