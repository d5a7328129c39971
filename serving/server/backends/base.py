"""The interface of the runtimes to the data plane, and the table of runtimes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from serving.server.errors import ArtifactError, BackendError, InvalidRequestError, ServerError
from serving.server.tensors.signature import Signature, Signatures, Tensors, shapes


class Servable(Protocol):
    """A loaded artifact, independent of its files: they may be changed or removed.

    `run` may be called from any thread, by one thread at a time for each signature.
    """

    @property
    def signatures(self) -> Signatures:
        """The signatures that can be called, by key."""

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute `outputs` from `inputs`, which fit the signature.

        Raises `InvalidRequestError` if shapes or values of the inputs are at fault, `BackendError` otherwise.
        """

    def close(self) -> None:
        """Release the artifact. No run is under way."""


Loader = Callable[[Path, str, int], Servable]
"""Load a version: its folder, the file in it ("": the backend's default), intra-op threads. Raises `ArtifactError`."""

BACKENDS = {"onnxruntime": "model.onnx", "litert": "model.tflite", "tensorflow": "saved_model.pb"}
"""The runtimes, each with its default file in a version's folder."""


def loader(backend: str) -> Loader:
    """Return the loader of one of `BACKENDS`; imports its library."""
    return cast(Loader, importlib.import_module(f"serving.server.backends.{backend}").load)


def check_exists(path: Path) -> None:
    """Raise `ArtifactError` if the file does not exist."""
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in path.parent.iterdir())) or "nothing"
        raise ArtifactError(f"{path.parent} has no file {path.name}; it holds {found}")


def refusal(runtime: str, signature: Signature, inputs: Tensors, reason: str) -> ServerError:
    """Return the error of a failed run: 400 if the client could have sent other shapes, else 500."""
    fixed = all(spec.shape is not None and -1 not in spec.shape for spec in signature.inputs)
    if fixed or "bad_alloc" in reason or "allocate memory" in reason:
        return BackendError(f"{runtime} failed: {reason}; shapes: {shapes(inputs)}")
    return InvalidRequestError(f"the model refused its input: {reason}; shapes sent: {shapes(inputs)}")
