"""PyTorch to TorchServe: a .mar that holds the ONNX graph, the handler that runs it, and its signature."""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import onnx
from pipelines.exporting.base import Exporter, ExportError
from serving.torchserve import archive
from serving.torchserve.clients import npy_body, outputs

HANDLER = Path(archive.__file__).with_name("handler.py")
CONFIGURATION = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1, "responseTimeout": 30}
"""No batching: it waits for company even when there is none, which costs a lone caller two thirds more latency
and gains a quarter at eight callers (tests/benchmarks/torchserve_forms.py)."""


def write(model: Model, weights: Weights, directory: Path, _calibration: Arrays) -> None:
    """Write `model.mar`; equal weights give equal bytes."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        onnx.export(model, weights, graph)
        pack(model, directory / EXPORTER.serve, {graph.name: graph.read_bytes()})


def pack(model: Model, path: Path, files: dict[str, bytes], handler: str = HANDLER.name) -> None:
    """Put files, handler, signature and serving configuration into an archive.

    torch-model-archiver makes the manifest only: its packing goes through /tmp/<model name>, which it
    deletes first, and stamps the time into the archive.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    configuration = "model-config.yaml"
    config = ModelArchiverConfig(
        model_name=model.spec.name, handler=handler, version="0", config_file=configuration
    )
    manifest = json.loads(ModelExportUtils.generate_manifest_json(config)) | {"createdOn": ""}
    written = {
        archive.MANIFEST: json.dumps(manifest, indent=2).encode(),
        configuration: "".join(f"{key}: {value}\n" for key, value in CONFIGURATION.items()).encode(),
        archive.SIGNATURE: json.dumps(model.spec.signature.to_json(), indent=2).encode(),
        HANDLER.name: HANDLER.read_bytes(),
    }
    archive.write_archive(path, files | written)


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Unpack the archive and call the handler in it as TorchServe's worker would.

    Raises `ExportError` with what the handler answered.
    """
    results: list[Arrays] = []
    with tempfile.TemporaryDirectory() as folder, _unchanged_logging():
        try:
            with zipfile.ZipFile(path) as packed:
                packed.extractall(folder)
        except zipfile.BadZipFile as error:
            raise ExportError(f"{path} is no archive: {error}") from error
        handler = _load(Path(folder) / HANDLER.name).Handler()
        handler.initialize(_context(folder, 0))
        for inputs in batches:
            context = _context(folder, 1)
            said = handler.handle([{"body": npy_body(inputs)}], context)[0]
            if context.get_response_status(0)[0] != 200:
                raise ExportError(f"{path.name}: its handler answered {said.decode()[:300]}")
            results.append(outputs(said, model.spec.signature))
    return results


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("packed_handler", path)
    if spec is None or spec.loader is None:
        raise ExportError(f"the archive holds no {path.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _context(folder: str, requests: int) -> Any:  # noqa: ANN401
    from ts.context import Context, RequestProcessor

    context = Context("model", folder, None, requests, None, "")
    context.request_processor = [RequestProcessor({"host": "localhost"}) for _ in range(requests)]
    return context


@contextmanager
def _unchanged_logging() -> Iterator[None]:
    level = logging.root.level
    try:
        yield
    finally:
        logging.root.setLevel(level)


EXPORTER = Exporter(target="torchserve", files={"float32": "model.mar"}, write=write, answer=answer)
