"""The interface of an exporter: the files that it writes, and their run outside any server."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import Model, Weights
from models.signature import Arrays
from serving.errors import TandemError

SLICE = 100
"""Rows of a run: thousands would take gigabytes in the first layers of a network for pictures."""
TELLING = r"error|not (yet )?(supported|implemented)"
"""Words in the output of a program that failed which mark the lines with the reason."""


class ExportError(TandemError):
    """A converter failed, or its output is wrong."""


def one_line(error: Exception, longest: int = 500) -> str:
    """Return an error's message, or its type if it has none, on one line, cut to `longest` characters."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, logs and prints of libraries off a terminal that shows progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def traced(model: Model, network: str = "torch_model") -> Iterator[None]:
    """Raise `ExportError` if PyTorch cannot trace the model's network."""
    try:
        yield
    except TandemError:
        raise
    except Exception as error:
        raise ExportError(
            f"models/{model.spec.name}/{network}.py has no graph for any number of rows: {one_line(error)}; "
            "write what loops over rows or branches by values as operations on whole tensors"
        ) from error


def process(what: str, command: Sequence[str | Path], seconds: int, folder: Path | None = None) -> None:
    """Run a program in `folder`. Raises `ExportError` with the end of its output if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what} did not end within {seconds} s") from None
    if done.returncode:
        # Without colours.
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if re.search(TELLING, line, re.IGNORECASE)]
        raise ExportError(f"{what} failed: {' '.join((telling or lines)[-3:])[:600] or 'it says nothing'}")


def run_as_served(backend: str, path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Run an artifact in a backend of our server, on one thread, each batch in a run of its own."""
    from serving.server.backends.base import loader
    from serving.server.tensors.signature import DEFAULT_SIGNATURE

    folder, file = (path, "") if path.is_dir() else (path.parent, path.name)
    servable, names = loader(backend)(folder, file, 1), [tensor.name for tensor in model.spec.task.outputs]
    return [servable.run(DEFAULT_SIGNATURE, dict(inputs), names) for inputs in batches]


@dataclass(frozen=True)
class Exporter:
    """The functions that write an artifact from the weights of either framework and run it in its own runtime."""

    files: dict[str, str]
    """Precision (`float32`, `float16`, `int8`) to the path in the artifact's folder ("" is the folder itself);
    the first is the one that is served, and a model may have fewer: `variants`."""
    write: Callable[[Model, Weights, Path, Arrays], None]
    """Model, weights, the empty folder to fill, and inputs to calibrate quantization on."""
    answer: Callable[[Path, Model, Sequence[Arrays]], list[Arrays]]
    """Load the artifact (the path of one of `files`) in the runtime that will serve it, and give it each batch of
    inputs in a run of its own; the outputs are those of the model's signature."""

    runtime: str = ""
    """The runtime of the artifact in the target's server, as the report names it."""
    backend: str = ""
    """The backend of our server that opens the artifact; "" if none does."""
    instruction_set: Mapping[str, Any] = field(default_factory=dict)
    """The instructions that the CPU must have; empty if any CPU will do."""
    unequal_bytes: str = ""
    """The reason why two exports of the same weights differ byte for byte, where it is known."""
    always_batched: str = ""
    """The reason why its servers batch requests whatever the manifest says; "" if they do not."""

    @property
    def serve(self) -> str:
        """The path of the served variant."""
        return next(iter(self.files.values()))

    def variants(self, model: Model) -> dict[str, str]:
        """Return the files of a model's artifact, by precision; an imported model has float32 only."""
        kept = model.spec.precisions if model.spec.artifact is None else ("float32",)
        return {precision: file for precision, file in self.files.items() if precision in kept}

    def run(self, path: Path, model: Model, inputs: Arrays) -> Arrays:
        """Run one or more rows, in calls of `SLICE` rows."""
        signature = model.spec.signature
        return signature.gathered(self.answer(path, model, signature.calls(inputs, SLICE)))
