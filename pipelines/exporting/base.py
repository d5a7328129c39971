"""What every exporter has: the files that it writes, and a way to run them outside any server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import Model, Weights
from models.signature import Arrays
from serving.errors import TandemError

SLICE = 100
"""Rows a run: a batch of thousands would cost gigabytes in the first layers of a picture's network."""


class ExportError(TandemError):
    """A converter failed, or wrote something that is not what was asked for."""


@contextmanager
def traced(model: Model) -> Iterator[None]:
    """Raises `ExportError` where PyTorch cannot take the graph of the model's network."""
    try:
        yield
    except TandemError:
        raise
    except Exception as error:
        raise ExportError(
            f"models/{model.spec.name}/torch_model.py has no graph for any number of rows: "
            f"{' '.join(str(error).split())[:400]}; write what loops over rows or branches by values as operations "
            "on whole tensors"
        ) from error


@dataclass(frozen=True)
class Exporter:
    """One artifact: how it is written for a target from bridged weights, and how its own runtime runs it.

    Any framework's weights fit, because the bridge is exact: an exporter builds the network of the framework
    whose converter it uses, sets the weights, and converts.
    """

    target: str
    files: dict[str, str]
    """Precision (`float32`, `float16`, `int8`) to the path in the artifact's folder ("" is the folder itself);
    the first is the one that is served, and a model may have fewer: `variants`."""
    write: Callable[[Model, Weights, Path, Arrays], None]
    """Model, weights, the empty folder to fill, and inputs to calibrate quantization on."""
    answer: Callable[[Path, Model, Sequence[Arrays]], list[Arrays]]
    """Load the artifact (the path of one of `files`) in the runtime that will serve it, and give it each batch of
    inputs in a run of its own; the outputs are those of the model's signature."""

    runtime: str = ""
    """What runs the artifact in the target's server, for whoever reads a row of figures."""
    backend: str = ""
    """Which of our server's backends opens the artifact; "" where none does."""
    instruction_set: Mapping[str, Any] = field(default_factory=dict)
    """What the CPU must offer; empty where any will do."""
    unequal_bytes: str = ""
    """Why two exports of the same weights are not equal byte for byte, where that is known."""
    always_batched: str = ""
    """Why its servers may let requests share a run whatever the manifest says, where that is so."""

    @property
    def serve(self) -> str:
        """The path of the variant that is served."""
        return next(iter(self.files.values()))

    def variants(self, model: Model) -> dict[str, str]:
        """The files that are written of a model, by precision; of an imported one, what it is itself."""
        kept = model.spec.precisions if model.spec.artifact is None else ("float32",)
        return {precision: file for precision, file in self.files.items() if precision in kept}

    def run(self, path: Path, model: Model, inputs: Arrays) -> Arrays:
        """Answer any number of rows but none."""
        signature = model.spec.signature
        return signature.gathered(self.answer(path, model, signature.calls(inputs, SLICE)))
