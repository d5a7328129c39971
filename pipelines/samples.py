"""The sample pictures and request bodies that the curl lines send and the page shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.base import ModelSpec
from pipelines.data import Pictures
from serving.repository import write_atomically
from serving.targets.open_inference_client import inference_request


def write(spec: ModelSpec, test: Pictures, folder: Path) -> None:
    """Write one picture a class as PNG with an index, and the first test picture in every request form."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, object]] = []
    for position, label in [(0, int(test.labels[0])), *_one_a_class(spec, test)]:
        name = f"class-{label}.png" if index else "picture.png"
        Image.fromarray(test.images[position]).save(folder / name)
        index.append({"file": name, "label": label, "class": spec.classes[label]})
    write_atomically(folder / "index.json", json.dumps(index, indent=1) + "\n")

    picture = test.floats()[:1]
    np.save(folder / "picture.npy", picture)
    # Four decimals hold a pixel's 256 levels apart, but parity is checked to 1e-5: write every digit.
    write_atomically(folder / "instances.json", json.dumps({"instances": picture.tolist()}) + "\n")
    write_atomically(folder / "inference.json", json.dumps(inference_request(picture)) + "\n")


def _one_a_class(spec: ModelSpec, test: Pictures) -> list[tuple[int, int]]:
    """Position and label of a picture of each class, other than the first."""
    return [
        (int(np.flatnonzero(test.labels[1:] == label)[0]) + 1, label) for label in range(len(spec.classes))
    ]
