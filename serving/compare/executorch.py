"""ExecuTorch programs (.pte) in this process, by its own Python bindings.

Its packages lie in a folder of their own in this environment, installed when they are first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import serving
from serving.compare import environments
from serving.targets.base import TargetError

PINS = Path(serving.__file__).parents[1] / "requirements" / "executorch.txt"


def require() -> None:
    """Install ExecuTorch if it is missing, and make it importable. Raises `InstallError`."""
    environments.extend(PINS, Path(sys.prefix) / "executorch")


class Program:
    """A .pte file's method `forward`, on one thread."""

    def __init__(self, path: Path) -> None:
        """Raises `InstallError`, and `TargetError` where ExecuTorch cannot load the file."""
        require()
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        # Before XNNPACK makes its threads, one for each core: Python has no other way than this one of its tests.
        portable_lib._unsafe_reset_threadpool(1)
        try:
            self._program = Runtime.get().load_program(path.read_bytes())
            self._forward: Any = self._program.load_method("forward")
        except RuntimeError as error:
            raise TargetError(f"ExecuTorch cannot load {path}: {error}") from error

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for these inputs, both in the network's order. Raises `TargetError` for more rows than
        memory is planned for."""
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        try:
            outputs = self._forward.execute(tensors)
        except RuntimeError as error:
            shapes = [list(array.shape) for array in inputs]
            raise TargetError(f"ExecuTorch refuses inputs of {shapes}: {error}") from error
        return [output.numpy() for output in outputs]
