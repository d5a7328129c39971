"""The one interface between the data plane and the runtimes, and the table of runtimes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from serving.server.errors import ArtifactError, BackendError, InvalidRequestError, ServerError
from serving.server.tensors.signature import Signature, Signatures, Tensors, shapes


class Servable(Protocol):
    """A loaded artifact, which needs its files no more: they may be overwritten, cut or removed.

    `run` may be called from any thread: one for each signature at a time.
    """

    @property
    def signatures(self) -> Signatures:
        """What can be called, by key."""

    def run(self, signature: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Compute `outputs` from `inputs`, which fit the signature.

        Raises `InvalidRequestError` where shapes or values of the inputs are at fault, `BackendError` otherwise.
        """

    def close(self) -> None:
        """Give back what the artifact holds. Nothing runs any more."""


Loader = Callable[[Path, str, int], Servable]
"""Load a version's folder: its path, the name of the file to open in it ("": the backend's usual one, or the
folder itself), and intra-op threads. Raises `ArtifactError`."""

BACKENDS = {"onnxruntime": "model.onnx", "litert": "model.tflite", "tensorflow": "saved_model.pb"}
"""The runtimes, each with the file that it looks for in a version's folder."""

OUT_OF_MEMORY = ("bad_alloc", "allocate memory")


def loader(backend: str) -> Loader:
    """The loader of one of `BACKENDS`; only now is its library imported."""
    return cast(Loader, importlib.import_module(f"serving.server.backends.{backend}").load)


def check_exists(path: Path) -> None:
    """Raise `ArtifactError` where the file to open is not in its folder."""
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in path.parent.iterdir())) or "nothing"
        raise ArtifactError(f"{path.parent} has no file {path.name}; it holds {found}")


def refusal(runtime: str, signature: Signature, inputs: Tensors, reason: str) -> ServerError:
    """What a run that failed means to its client: 400 where other shapes could have been sent, else 500."""
    fixed = all(spec.shape is not None and -1 not in spec.shape for spec in signature.inputs)
    if fixed or any(words in reason for words in OUT_OF_MEMORY):
        return BackendError(f"{runtime} failed: {reason}; shapes: {shapes(inputs)}")
    return InvalidRequestError(f"the model refused its input: {reason}; shapes sent: {shapes(inputs)}")
