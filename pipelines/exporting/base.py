"""What every exporter has: the files that it writes, and a way to run them outside any server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Model, Weights
from serving.targets.base import Images, Outputs

SLICE = 100
"""Pictures a run: a batch of thousands would cost gigabytes in the first layers."""


class ExportError(Exception):
    """A converter failed, or wrote something that is not what was asked for."""


@dataclass(frozen=True)
class Exporter:
    """One artifact: how it is written for a target from bridged weights, and how its own runtime runs it.

    Any framework's weights fit, because the bridge is exact: an exporter builds the network of the framework
    whose converter it uses, sets the weights, and converts.
    """

    target: str
    variants: dict[str, str]
    """Precision (`float32`, `float16`, `int8`) to the path in the artifact's folder ("" is the folder itself);
    the first is the one that is served."""
    write: Callable[[Model, Weights, Path, Images], None]
    """Model, weights, the empty folder to fill, and pictures to calibrate quantization on."""
    answer: Callable[[Path, Sequence[Images]], list[Outputs]]
    """Load the artifact (the path of one of `variants`) in the runtime that will serve it, and give it each batch
    of pictures in a run of its own."""

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
        return next(iter(self.variants.values()))

    def run(self, path: Path, images: Images) -> Outputs:
        """Answer any number of pictures but none."""
        found = self.answer(path, [images[start : start + SLICE] for start in range(0, len(images), SLICE)])
        return Outputs(
            np.concatenate([one.logits for one in found]),
            np.concatenate([one.probabilities for one in found]),
        )
