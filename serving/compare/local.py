"""What a request costs without an endpoint: the runtime in the generator's own process, and nothing at all."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from models.signature import Arrays
from serving.repository import Manifest, version_dir
from serving.server.backends.base import Servable, loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE
from serving.settings import Settings
from serving.targets.base import Client, TargetError, served_manifest

IN_PROCESS, NOTHING = "in process", "no endpoint"
"""The protocols of rows that send no requests."""
BACKENDS = {"tf-serving": "tensorflow", "litert": "litert", "onnxruntime": "onnxruntime"}


def connect(settings: Settings, target: str, protocol: str) -> Client:
    """What answers in this process. Raises `TargetError` where the target's artifact runs in no process of ours."""
    if protocol == NOTHING:
        return Nothing()
    manifest = served_manifest(settings, target)
    if target == "torchserve":
        return InHandler(settings, manifest)
    if target not in BACKENDS:
        raise TargetError(f"{target} runs in no process of ours")
    folder = version_dir(settings.repository, target, settings.model, manifest.version)
    return InBackend(loader(BACKENDS[target])(folder, manifest.serve, 1), manifest)


class Nothing:
    """Answers at once: what is left is what the generator costs."""

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """No output."""
        return {}

    def close(self) -> None:
        """Nothing to close."""


class InBackend:
    """The runtime as our server calls it, on one thread."""

    def __init__(self, servable: Servable, manifest: Manifest) -> None:
        self._servable, self._outputs = servable, list(manifest.signature["outputs"])

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Every output of the signature."""
        return self._servable.run(DEFAULT_SIGNATURE, dict(inputs), self._outputs)

    def close(self) -> None:
        """Give the model back."""
        self._servable.close()


class InHandler:
    """The handler of TorchServe's archive as its worker calls it, from arrays to arrays."""

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        from serving.torchserve.trial import trial

        folder = version_dir(settings.repository, "torchserve", settings.model, manifest.version)
        self._open = ExitStack()
        self._handler = self._open.enter_context(trial(folder / manifest.serve)).handler
        self._outputs = list(manifest.signature["outputs"])

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Every output of the signature."""
        return dict(zip(self._outputs, self._handler.infer(dict(inputs)), strict=True))

    def close(self) -> None:
        """Remove what was unpacked."""
        self._open.close()
