"""PyTorch to TorchServe: a .mar that holds the network in one of three forms, the handler, and its signature."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import torch_forms
from pipelines.exporting.base import Exporter, traced
from serving.torchserve import archive
from serving.torchserve.archive import HANDLER
from serving.torchserve.clients import npy_body, outputs
from serving.torchserve.trial import trial

CONFIGURATION = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1, "responseTimeout": 30}
"""No batching: it waits for company even when there is none, which costs a lone caller two thirds more latency
and gains a quarter at eight callers; `tandem compare --variants` has it as a row."""


def write(form: str, model: Model, weights: Weights, directory: Path, _calibration: Arrays) -> None:
    """Write `model.mar` with one of `torch_forms.FORMS` in it. Raises `ExportError`."""
    own = torch_forms.FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / own.file
        with traced(model):
            own.write(model, weights, file)
        pack(model, directory / EXPORTER.serve, {own.file: file.read_bytes()}, form)


def pack(
    model: Model, path: Path, files: dict[str, bytes], form: str = "exported", handler: str = HANDLER.name
) -> None:
    """Put files of a form, handler, signature and serving configuration into an archive.

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
    signature = model.spec.signature.to_json() | {
        "form": form,
        "runtime": torch_forms.FORMS[form].runtime,
        "instruction_set": torch_forms.FORMS[form].instruction_set,
    }
    written = {
        archive.MANIFEST: json.dumps(manifest, indent=2).encode(),
        configuration: "".join(f"{key}: {value}\n" for key, value in CONFIGURATION.items()).encode(),
        archive.SIGNATURE: json.dumps(signature, indent=2).encode(),
        HANDLER.name: HANDLER.read_bytes(),
    }
    archive.write_archive(path, files | written)


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Unpack the archive and call the handler in it as TorchServe's worker would.

    Raises `TargetError` with what the handler answered.
    """
    with trial(path) as archive:
        signature = model.spec.signature
        return [outputs(archive.call(npy_body(inputs, signature.batched)), signature) for inputs in batches]


FORMS = {
    form: Exporter(
        target="torchserve",
        files={"float32": "model.mar"},
        write=partial(write, form),
        answer=answer,
        runtime=own.runtime,
        instruction_set=own.instruction_set,
        unequal_bytes="the C++ compiler's library is not the same each time" if form == "aot" else "",
    )
    for form, own in torch_forms.FORMS.items()
}
EXPORTER = FORMS["exported"]
