"""ONNX to SavedModel by onnx2tf, in an environment of its own, which is made when it is first needed: its pins fit no
other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pipelines
from models.base import Model
from pipelines.exporting.base import ExportError
from serving import progress

ROOT = Path(pipelines.__file__).parents[1]
PINS = ROOT / "requirements" / "onnx2tf.txt"
SCRIPT = Path(__file__).with_name("onnx2tf_converter.py")
SECONDS = 900
WAY_OUT = "TANDEM_TARGETS=onnxruntime,torchserve leaves the targets out that need it"


def convert(path: Path, model: Model, folder: Path) -> Path:
    """Write a SavedModel into `folder`: its signature `serving_default` has inputs named as in the file at `path`, and
    outputs `output_0`, `output_1` and so on. The file is rewritten. Raises `ExportError`."""
    names = [tensor.name for tensor in model.spec.inputs]
    # Without the script's own folder among its modules: files in it are named as libraries are.
    command = [str(python()), "-P", str(SCRIPT), str(path), str(folder), *names]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            env=environment | {"TF_CPP_MIN_LOG_LEVEL": "2"},
            # It looks for files to help it in its working directory.
            cwd=path.parent,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"onnx2tf did not end within {SECONDS} s") from None
    if done.returncode or not (folder / "saved_model.pb").exists():
        raise ExportError(f"onnx2tf cannot convert this graph: {_reason(done.stdout + done.stderr)}")
    return folder


def environment() -> Path:
    """Where its environment lies, beside the one that runs this."""
    own = Path(sys.prefix)
    return own.with_name(f"{own.name}-onnx2tf")


def python() -> Path:
    """The interpreter of its environment, which is made where it is not there. Raises `ExportError`."""
    venv = environment()
    done = venv / ".done"
    if not done.exists() or done.read_text() != PINS.read_text():
        progress.note(f"making the environment of onnx2tf in {venv.name}, once: 1.7 GB")
        made = subprocess.run(
            [ROOT / "requirements" / "install", venv, PINS],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            shutil.rmtree(venv, ignore_errors=True)
            said = (made.stderr or made.stdout).strip()[-1000:]
            raise ConverterMissingError(
                f"the environment of onnx2tf could not be made: {said}\nMend that and run this again, or {WAY_OUT}"
            )
        done.write_text(PINS.read_text())
    return venv / "bin" / "python"


class ConverterMissingError(ExportError):
    """A converter could not be installed: what it would have reached is not known."""


def _reason(said: str) -> str:
    """The end of what it said, without colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()]
    telling = [
        line for line in lines if re.search(r"error|not (yet )?(supported|implemented)", line, re.IGNORECASE)
    ]
    return " ".join((telling or [line for line in lines if line])[-3:])[:600] or "it says nothing"
