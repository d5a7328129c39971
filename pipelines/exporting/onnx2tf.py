"""ONNX to SavedModel by onnx2tf, in an environment of its own, which is made when it is first needed: its pins fit no
other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pipelines
from models.base import Model
from pipelines.exporting.base import ExportError, process
from serving import progress
from serving.compare import environments

ROOT = Path(pipelines.__file__).parents[1]
PINS = ROOT / "requirements" / "onnx2tf.txt"
SECONDS = 900
WAY_OUT = "TANDEM_TARGETS=onnxruntime,torchserve leaves the targets out that need it"


class ConverterMissingError(ExportError):
    """A converter could not be installed: what it would have reached is not known."""


def convert(path: Path, model: Model, folder: Path) -> None:
    """Write a SavedModel into `folder`: its signature `serving_default` has inputs named as in the file at `path`, and
    outputs `output_0`, `output_1` and so on. The file is rewritten. Raises `ExportError`."""
    options: list[str | Path] = ["--non_verbose", "--output_signaturedefs", "-i", path, "-o", folder]
    # Inputs keep their layout: it would turn those of pictures.
    options += ["--keep_shape_absolutely_input_names", *(tensor.name for tensor in model.spec.inputs)]
    # It looks for files to help it in its working directory.
    process("onnx2tf", [python(), "-I", "-m", "onnx2tf", *options], SECONDS, path.parent)
    if not (folder / "saved_model.pb").exists():
        raise ExportError("onnx2tf failed: it wrote nothing")


def python() -> Path:
    """The interpreter of its environment, which is made where it is not there. Raises `ConverterMissingError`."""
    venv = Path(sys.prefix).with_name(f"{Path(sys.prefix).name}-onnx2tf")

    def make() -> None:
        progress.note(f"making the environment of onnx2tf in {venv.name}, once: 1.7 GB")
        made = subprocess.run(
            [ROOT / "requirements" / "install", venv, PINS],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            said = (made.stderr or made.stdout).strip()[-1000:]
            raise ConverterMissingError(
                f"the environment of onnx2tf could not be made: {said}\nMend that and run this again, or {WAY_OUT}"
            )

    environments.once(venv, PINS.read_text(), make)
    return venv / "bin" / "python"
