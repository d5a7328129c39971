"""What of a PyTorch network can lie in a .mar: the exported program, compiled code, or the ONNX graph."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import Model, Weights
from pipelines.exporting import onnx
from pipelines.exporting.base import ExportError


@dataclass(frozen=True)
class Form:
    """A file for the handler, and what runs it."""

    file: str
    runtime: str
    write: Callable[[Model, Weights, Path], None]
    instruction_set: dict[str, Any] = field(default_factory=dict)
    """What the CPU must offer: `march` and `simdlen` as the compiler was given them, `machine` as Python names it,
    and which of `torch.backends.cpu.get_cpu_capability()`'s answers will do. Empty where any CPU will."""


def write_exported(model: Model, weights: Weights, path: Path) -> None:
    """`torch.export`'s program: it runs operator by operator, wherever this PyTorch runs."""
    import torch

    from pipelines.exporting.torch_graph import folded, program

    file = io.BytesIO()
    with _quiet():
        # Into memory: the name of a file would be the name of the archive's folder.
        torch.export.save(program(folded(model, weights), model), file)
    path.write_bytes(file.getvalue())


def write_compiled(model: Model, weights: Weights, path: Path) -> None:
    """AOTInductor's library for `X86_64_V3`. Needs g++, half a minute, and such a CPU; raises `ExportError`."""
    import torch

    from pipelines.exporting.torch_graph import folded, program

    wanted = X86_64_V3
    if platform.machine() != wanted["machine"]:
        raise ExportError(
            f"the form aot is compiled for {wanted['march']}, this machine is {platform.machine()}: "
            "take the form exported"
        )
    options = {"cpp.march": wanted["march"], "cpp.simdlen": wanted["simdlen"]}
    # Its cache and its code generator would leave files in /tmp for good.
    with tempfile.TemporaryDirectory() as cache, _quiet(), _environment(TORCHINDUCTOR_CACHE_DIR=cache):
        try:
            torch._inductor.aoti_compile_and_package(
                program(folded(model, weights), model), package_path=str(path), inductor_configs=options
            )
        except Exception as error:
            raise ExportError(f"AOTInductor failed: {str(error)[-1000:]}") from error


X86_64_V3: dict[str, Any] = {
    "machine": "x86_64",
    "march": "x86-64-v3",
    "simdlen": 256,
    "capabilities": ["AVX2", "AVX512"],
}

FORMS = {
    "exported": Form("model.pt2", "PyTorch (torch.export)", write_exported),
    "aot": Form("model.pt2", "PyTorch (AOTInductor)", write_compiled, X86_64_V3),
    "onnx": Form("model.onnx", "ONNX Runtime", onnx.export),
}


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # It warns of weights that are not contiguous, and of instruction sets that differ as they are meant to.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
