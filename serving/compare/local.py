"""Clients without an endpoint: the runtime in the generator's process, and no runtime."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from models.signature import Arrays
from serving.repository import version_dir
from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE
from serving.settings import Settings
from serving.targets.base import Client, served_manifest

IN_PROCESS, NOTHING = "in process", "no endpoint"
"""The protocols of rows that send no requests."""
BACKENDS = {"tf-serving": "tensorflow", "litert": "litert", "onnxruntime": "onnxruntime"}


class Local(NamedTuple):
    """A client that runs in this process."""

    predict: Callable[[Arrays], Arrays]
    close: Callable[[], None]


def connect(settings: Settings, target: str, protocol: str) -> Client:
    """Return a client without a server: one of `BACKENDS` on one thread, as in our server, the handler of TorchServe's
    archive, or nothing, to measure the cost of the generator."""
    if protocol == NOTHING:
        return Local(lambda _: {}, lambda: None)
    manifest = served_manifest(settings, target)
    path = version_dir(settings.repository, target, settings.model, manifest.version)
    outputs = list(manifest.signature["outputs"])
    if target == "torchserve":
        from serving.torchserve.trial import trial

        opened = ExitStack()
        handler = opened.enter_context(trial(path / manifest.serve)).handler
        return Local(
            lambda inputs: dict(zip(outputs, handler.infer(dict(inputs)), strict=True)), opened.close
        )
    servable = loader(BACKENDS[target])(path, manifest.serve, 1)
    return Local(lambda inputs: servable.run(DEFAULT_SIGNATURE, dict(inputs), outputs), servable.close)
