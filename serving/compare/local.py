"""Clients without an endpoint: the runtime in the generator's process, and no runtime."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil

from models.signature import Arrays
from serving.compare import executorch
from serving.repository import Manifest, version_dir
from serving.server.backends.base import loader
from serving.server.tensors.signature import DEFAULT_SIGNATURE
from serving.settings import Settings
from serving.targets.base import Client, served_manifest

IN_PROCESS, NOTHING = "in process", "no endpoint"
"""The protocols of rows that send no requests."""
BACKENDS = {"tf-serving": "tensorflow", "litert": "litert", "onnxruntime": "onnxruntime"}
LIBRARIES = {
    "tf-serving": "tensorflow",
    "litert": "ai_edge_litert.interpreter",
    "onnxruntime": "onnxruntime",
    "torchserve": "torch",
    "executorch": "executorch.runtime",
}
"""The libraries of the runtimes, which are imported before a model's memory is read."""


class Local(NamedTuple):
    """A client that runs in this process."""

    predict: Callable[[Arrays], Arrays]
    close: Callable[[], None]
    memory: int | None = None
    """Bytes that the model added to this process, read after a first row."""


def connect(settings: Settings, target: str, protocol: str, row: Arrays | None = None) -> Client:
    """Return a client without a server: one of `BACKENDS` on one thread, as in our server, the handler of TorchServe's
    archive, an ExecuTorch program, or nothing, to measure the cost of the generator.

    With a `row` of inputs it reads the memory that the model adds.
    """
    if protocol == NOTHING:
        return Local(lambda _: {}, lambda: None)
    manifest = served_manifest(settings, target)
    path = version_dir(settings.repository, target, settings.model, manifest.version)
    if target == "executorch":
        executorch.require()
    importlib.import_module(LIBRARIES[target])
    before = psutil.Process().memory_info().rss
    client = _opened(target, path, manifest)
    if row is not None:
        client.predict(row)
        client = client._replace(memory=max(0, psutil.Process().memory_info().rss - before))
    return client


def _opened(target: str, path: Path, manifest: Manifest) -> Local:
    outputs = list(manifest.signature["outputs"])
    if target == "torchserve":
        from serving.torchserve.trial import trial

        opened = ExitStack()
        handler = opened.enter_context(trial(path / manifest.serve)).handler
        return Local(
            lambda inputs: dict(zip(outputs, handler.infer(dict(inputs)), strict=True)), opened.close
        )
    if target == "executorch":
        program, names = executorch.Program(path / manifest.serve), list(manifest.signature["inputs"])
        return Local(
            lambda inputs: dict(zip(outputs, program([inputs[name] for name in names]), strict=True)),
            lambda: None,
        )
    servable = loader(BACKENDS[target])(path, manifest.serve, 1)
    return Local(lambda inputs: servable.run(DEFAULT_SIGNATURE, dict(inputs), outputs), servable.close)
