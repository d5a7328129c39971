"""The one interface between the data plane and the runtimes, and the table of runtimes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from serving.server.tensors.signature import Signatures, Tensors


class Servable(Protocol):
    """A loaded artifact. `run` may be called from any thread: one for each signature at a time."""

    @property
    def signatures(self) -> Signatures:
        """What can be called, by key."""

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute `outputs` from `inputs`, which fit the signature.

        Raises `InvalidRequestError` where the values of the inputs are at fault, `BackendError` otherwise.
        """

    def close(self) -> None:
        """Give back what the artifact holds. Nothing runs any more."""


Loader = Callable[[Path, str, int], Servable]
"""Load a version's folder: its path, the name of the file to open in it ("": the backend's usual one, or the
folder itself), and intra-op threads. Raises `ArtifactError`."""

BACKENDS = ("onnxruntime", "litert", "tensorflow")


def loader(backend: str) -> Loader:
    """The loader of one of `BACKENDS`; only now is its library imported."""
    return cast(Loader, importlib.import_module(f"serving.server.backends.{backend}").load)
