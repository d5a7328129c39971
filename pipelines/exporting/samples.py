"""The samples of a version: the curl lines send them, and the page shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.base import ModelSpec
from models.classification import Classification
from models.data import Rows
from models.inference import Inference
from models.signature import decode_text
from serving.repository import write_atomically
from serving.targets.open_inference_client import inference_request
from serving.targets.tf_serving_client import plain, row_request

SAMPLES = 10
"""Rows that the page offers of a model without classes; of others it has one of each class."""


def write(spec: ModelSpec, test: Rows, folder: Path) -> None:
    """Write the first test row in every request form, and several rows with their right answers as `index.json`."""
    from PIL import Image

    folder.mkdir(parents=True)
    chosen = test.take(np.array([0, *_others(spec, test)]))
    inputs = chosen.served(spec.signature)
    first = spec.signature.calls(inputs, 1)[0]
    # Four decimals hold a pixel's 256 levels apart, but parity is checked to 1e-5: write every digit.
    request = row_request(first, spec.signature.batched)
    write_atomically(folder / "instances.json", json.dumps(request) + "\n")
    write_atomically(folder / "inference.json", json.dumps(inference_request(first, spec.signature)) + "\n")
    index = []
    for number, target in enumerate(chosen.targets):
        sample: dict[str, Any] = {"answer": _answer(spec, number, target)}
        for tensor in spec.inputs:
            values = inputs[tensor.name][number]
            if spec.signature.picture:
                sample["file"] = f"picture-{number}.png" if number else "picture.png"
                pixels = np.rint(values * 255).astype(np.uint8)
                Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
                    folder / sample["file"]
                )
            elif tensor.content == "text":
                sample[tensor.name] = decode_text(values)
            else:
                sample[tensor.name] = plain(np.asarray(values, inputs[tensor.name].dtype))
        index.append(sample)
    write_atomically(folder / "index.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def _others(spec: ModelSpec, test: Rows) -> list[int]:
    """Return positions of a row of each class, without row 0; of the next rows if there are no classes."""
    if not isinstance(spec.task, Classification):
        return list(range(1, min(SAMPLES, len(test))))
    found = (np.flatnonzero(test.targets[1:] == label) for label in range(len(spec.task.classes)))
    return [int(places[0]) + 1 for places in found if len(places)]


def _answer(spec: ModelSpec, number: int, target: Any) -> str:  # noqa: ANN401
    if isinstance(spec.task, Classification):
        return spec.task.classes[int(target)]
    if isinstance(spec.task, Inference):
        return f"sample {number + 1}"
    return ", ".join(f"{value:.6g}" for value in target)
