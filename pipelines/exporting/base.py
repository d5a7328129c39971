"""What every exporter has: the files that it writes, and a way to run them outside any server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.base import Model, Weights
from serving.targets.base import Images, Outputs


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
    run: Callable[[Path, Images], Outputs]
    """Run the artifact (the path of one of `variants`) on pictures with the runtime that will serve it."""

    unequal_bytes: str = ""
    """Why two exports of the same weights are not equal byte for byte; "" where they are."""

    @property
    def serve(self) -> str:
        """The path of the variant that is served."""
        return next(iter(self.variants.values()))
