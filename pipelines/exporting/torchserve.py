"""PyTorch to TorchServe: a .mar that holds the network in one of three forms, the handler, and its signature. The
forms are the exported program, compiled code, and the ONNX graph."""

from __future__ import annotations

import io
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from models.base import Model, Weights
from models.signature import Arrays
from pipelines.exporting import keras_on_torch, onnx
from pipelines.exporting.base import Exporter, ExportError, quiet, traced
from pipelines.training.keras_on_torch import NAME as KERAS_ON_TORCH
from serving.targets.torchserve_client import npy_body, outputs
from serving.torchserve import archive
from serving.torchserve.archive import HANDLER
from serving.torchserve.trial import trial

CONFIGURATION = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1, "responseTimeout": 30}
"""No batching: it waits for company even when there is none, which costs a lone caller two thirds more latency
and gains a quarter at eight callers; `tandem compare --variants` has it as a row."""
X86_64_V3: dict[str, Any] = {
    "machine": "x86_64",
    "march": "x86-64-v3",
    "simdlen": 256,
    "capabilities": ["AVX2", "AVX512"],
}
"""The instructions that the CPU must have: the compiler's `march` and `simdlen`, Python's `machine`, and the accepted
answers of `torch.backends.cpu.get_cpu_capability()`."""


def write(
    form: str,
    file: str,
    fill: Callable[[Model, Weights, Path], None],
    model: Model,
    weights: Weights,
    directory: Path,
    _calibration: Arrays,
) -> None:
    """Write `model.mar` with the file of a form in it, which `fill` writes. Raises `ExportError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        with traced(model):
            fill(model, weights, path)
        pack(model, directory / EXPORTER.serve, {file: path.read_bytes()}, form)


def write_exported(model: Model, weights: Weights, path: Path) -> None:
    """`torch.export`'s program: it runs operator by operator, wherever this PyTorch runs."""
    import torch

    from pipelines.exporting.torch_graph import folded, program

    file = io.BytesIO()
    with quiet():
        # Into memory: the name of a file would be the name of the archive's folder.
        torch.export.save(program(folded(model, weights), model), file)
    path.write_bytes(file.getvalue())


def write_compiled(model: Model, weights: Weights, path: Path) -> None:
    """AOTInductor's library for `X86_64_V3`. Needs g++, half a minute, and such a CPU; raises `ExportError`."""
    import torch

    from pipelines.exporting.torch_graph import folded, program

    march, machine = X86_64_V3["march"], platform.machine()
    if machine != X86_64_V3["machine"]:
        raise ExportError(
            f"the form aot is compiled for {march}, this machine is {machine}: take the form exported"
        )
    options = {"cpp.march": march, "cpp.simdlen": X86_64_V3["simdlen"]}
    # Its cache and its code generator would leave files in /tmp for good.
    with (
        tempfile.TemporaryDirectory() as cache,
        patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache),
        quiet(),
    ):
        try:
            torch._inductor.aoti_compile_and_package(
                program(folded(model, weights), model), package_path=str(path), inductor_configs=options
            )
        except Exception as error:
            raise ExportError(f"AOTInductor failed: {str(error)[-1000:]}") from error


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
    config = ModelArchiverConfig(model.spec.name, handler, version="0", config_file=configuration)
    manifest = json.loads(ModelExportUtils.generate_manifest_json(config)) | {"createdOn": ""}
    signature = model.spec.signature.to_json() | {
        "form": form,
        "runtime": FORMS[form].runtime,
        "instruction_set": FORMS[form].instruction_set,
    }
    written = {
        archive.MANIFEST: json.dumps(manifest, indent=2).encode(),
        configuration: "".join(f"{key}: {value}\n" for key, value in CONFIGURATION.items()).encode(),
        archive.SIGNATURE: json.dumps(signature, indent=2).encode(),
        **{f"{HANDLER.name}/{path.name}": path.read_bytes() for path in HANDLER.glob("*.py")},
    }
    archive.write_archive(path, files | written)


def answer(path: Path, model: Model, batches: Sequence[Arrays]) -> list[Arrays]:
    """Unpack the archive and call the handler in it as TorchServe's worker would. Raises `TargetError` with what
    the handler answered."""
    with trial(path) as archive:
        signature = model.spec.signature
        return [outputs(archive.call(npy_body(inputs, signature.batched)), signature) for inputs in batches]


EXPORTER = Exporter(
    files={"float32": "model.mar"},
    write=partial(write, "exported", "model.pt2", write_exported),
    answer=answer,
    runtime="PyTorch (torch.export)",
)
FORMS = {
    "exported": EXPORTER,
    "aot": replace(
        EXPORTER,
        write=partial(write, "aot", "model.pt2", write_compiled),
        runtime="PyTorch (AOTInductor)",
        instruction_set=X86_64_V3,
        unequal_bytes="the C++ compiler's library is not the same each time",
    ),
    "onnx": replace(
        EXPORTER, write=partial(write, "onnx", "model.onnx", onnx.export), runtime="ONNX Runtime"
    ),
    KERAS_ON_TORCH: replace(EXPORTER, write=partial(write, "exported", "model.pt2", keras_on_torch.write)),
}
