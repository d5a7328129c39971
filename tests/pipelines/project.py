"""A project as a user has one: the sources, a model of his own, pictures of his own, and the command line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import models.base
from models.data import Dataset, IdxPictures, Rows
from pipelines import data
from tests.pictures import labelled

ROOT = Path(__file__).parents[2]
MODEL = "sample"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (2, 0), (-2, 0), (0, 2), (0, -2)]


@dataclass(frozen=True)
class Project:
    """Sources in a folder of their own, with the model `sample`, a copy of `fashion` with smaller pictures' counts."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Settings of its own, as variables."""

    @classmethod
    def create(cls, folder: Path) -> Project:
        for name in ("models", "pipelines", "serving"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
            )
        shutil.copytree(folder / "models" / "fashion", folder / "models" / MODEL)
        project = cls(folder)
        # A hundred pictures of a class, and chance moves its share more than it moves those of thousands.
        schema = json.loads(project.schema.read_text())
        for feature in schema["feature"]:
            if feature["name"] == "label":
                feature["skew_comparator"]["infinity_norm"]["threshold"] = 0.08
        project.schema.write_text(json.dumps(schema))
        return project

    def train_briefly(self) -> None:
        """Have a profile that a few thousand pictures take seconds for, and limits that its networks keep."""
        spec = self.spec.read_text()
        own = "epochs=2, epoch_rows=1280, peak_learning_rate=4e-3, minimum_score=0.3, batch_size=64"
        own += ", training_loss=0.05, score_difference=0.1, class_regression=0.3, augmentation=FLIP"
        self.spec.write_text(re.sub(r'"quick": Profile\(.*\),', f'"quick": Profile({own}),', spec))

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def spec(self) -> Path:
        return self.folder / "models" / MODEL / "spec.py"

    @property
    def schema(self) -> Path:
        return self.folder / "models" / MODEL / "schema.json"

    @property
    def repository(self) -> Path:
        return self.artifacts / "repository"

    def put(self, train: Rows, test: Rows) -> Dataset:
        """Have these pictures, and a spec that names their digests; returns them as a run with seed 1 loads them."""
        folder = self.artifacts / "data" / MODEL
        folder.mkdir(parents=True, exist_ok=True)
        parts = (train, test)
        arrays = [array for part in parts for array in (part.inputs["image"][..., 0], part.targets)]
        digests = {}
        spec = re.sub(r'name="[a-z-]+",\n( +sha256)', rf'name="{MODEL}",\n\1', self.spec.read_text())
        for name, array in zip(FILES, arrays, strict=True):
            content = idx(array.astype(np.uint8))
            (folder / name).write_bytes(content)
            digests[name] = hashlib.sha256(content).hexdigest()
            spec = re.sub(rf'"{name}": "[0-9a-f]+"', f'"{name}": "{digests[name]}"', spec)
        self.spec.write_text(re.sub(r"\n +(debian_package|urls)=.*", "", spec))
        fashion = models.base.load("fashion")
        source = replace(fashion.spec, data=IdxPictures(MODEL, digests))
        return data.load(replace(fashion, spec=source), self.artifacts, seed=1)

    def tandem(self, *arguments: str, timeout: int = 100) -> subprocess.CompletedProcess[str]:
        """Run the command in this project."""
        return self.python("-m", "pipelines.cli", *arguments, timeout=timeout)

    def python(self, *arguments: str, timeout: int = 100) -> subprocess.CompletedProcess[str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=own
            | {"TANDEM_MODEL": MODEL, "TANDEM_PLATFORM": "process", "PYTHONPATH": str(self.folder)}
            | self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def served(self) -> dict[str, bytes]:
        """Everything that the servers could read."""
        return {str(path): path.read_bytes() for path in sorted(self.repository.rglob("*")) if path.is_file()}


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes as an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def enlarged(sample: Rows) -> tuple[Rows, Rows]:
    """Training and test pictures: each of the sample moved a little in eleven ways, and no picture in both."""
    by_class = np.argsort(sample.targets, kind="stable")
    train, test = (np.sort(np.concatenate([by_class[i::4] for i in own])) for own in ((0, 1, 2), (3,)))
    return tuple(moved(labelled(sample.inputs["image"][own], sample.targets[own])) for own in (train, test))


def moved(pictures: Rows) -> Rows:
    """Each picture moved in each of `SHIFTS` by as many pixels; what comes in is black."""
    padded = np.pad(pictures.inputs["image"], ((0, 0), (2, 2), (2, 2), (0, 0)))
    images = np.concatenate([padded[:, 2 + y : 30 + y, 2 + x : 30 + x] for y, x in SHIFTS])
    labels = np.tile(pictures.targets, len(SHIFTS))
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    keep = np.sort(first)
    return labelled(np.ascontiguousarray(images[keep]), labels[keep])
