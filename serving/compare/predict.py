"""`tandem predict`: one row to every endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import models.base
from models.signature import Arrays, Signature, Tensor, encode_text
from serving import targets
from serving.settings import Settings
from serving.targets.base import TargetError, sample_folder, served_manifest, unreachable
from serving.targets.tf_serving_client import array_of


def show(settings: Settings, target: str | None, given: str | None, write: Callable[[str], None]) -> int:
    """Print every endpoint's answer; returns 1 if one failed.

    `given` is a picture's file, a text, or JSON: one row of the only input, or {<input>: row}; None is the sample.
    """
    manifest = served_manifest(settings, targets.NAMES[0])
    signature, task = Signature.from_json(manifest.signature), models.base.load(settings.model).spec.task
    folder = sample_folder(settings, manifest.version)
    inputs = _sample(folder, signature) if given is None else read(given, signature)
    failed = 0
    closed = unreachable(settings, manifest.version)
    if target in closed:
        raise TargetError(f"{target} is not reached: {closed[target]}")
    for name in [target] if target else [n for n in targets.NAMES if n != "tfjs" and n not in closed]:
        try:
            clients = targets.load(name).clients(settings)
        except KeyError as error:
            raise TargetError(str(error.args[0])) from None
        for protocol, client in clients.items():
            with closing(client):
                try:
                    outputs = client.predict(inputs)
                    if not signature.batched:
                        outputs = {name: np.asarray(array)[np.newaxis] for name, array in outputs.items()}
                    told = task.told(outputs)
                except TargetError as error:
                    failed, told = failed + 1, str(error)
            write(f"{f'{name} {protocol}':24}{told}")
    return 1 if failed else 0


def read(given: str, signature: Signature) -> dict[str, NDArray[Any]]:
    """Parse a user's input as one row of every input. Raises `TargetError`."""
    (first, *others) = signature.inputs
    if not others and first.content == "picture":
        return {first.name: read_picture(Path(given), first)}
    if not others and first.content == "text":
        return {first.name: encode_text(given, first.row[0])[np.newaxis]}
    form = " ".join(f'"{t.name}": {t.dtype} {list(t.row)}' for t in signature.inputs)
    try:
        values = json.loads(given)
    except ValueError as error:
        raise TargetError(f"expected JSON {{{form}}}, it cannot be read: {error}") from None
    if not others and not isinstance(values, dict):
        values = {first.name: values}
    if not isinstance(values, dict) or set(values) != {tensor.name for tensor in signature.inputs}:
        raise TargetError(f"expected JSON {{{form}}}, got {given[:80]}")
    rows = {tensor.name: _row(values[tensor.name], tensor) for tensor in signature.inputs}
    return signature.calls(rows, 1)[0]


def read_picture(path: Path, tensor: Tensor) -> NDArray[np.float32]:
    """Read a PNG or JPEG as an input: float32 [1, H, W, C], values 0..1. Raises `TargetError`."""
    from PIL import Image, UnidentifiedImageError

    height, width, channels = tensor.row
    try:
        with Image.open(path) as image:
            fitted = image.convert("L" if channels == 1 else "RGB").resize((width, height))
    except FileNotFoundError:
        raise TargetError(f"there is no picture {path}; `make deploy` writes the samples") from None
    except UnidentifiedImageError:
        raise TargetError(f"{path} is no picture: expected PNG or JPEG") from None
    return np.asarray(fitted, np.float32).reshape(1, *tensor.row) / np.float32(255)


def _row(values: object, tensor: Tensor) -> NDArray[Any]:
    if tensor.content == "text" and isinstance(values, str):
        return encode_text(values, tensor.row[0])[np.newaxis]
    expected = f"{tensor.name}: expected {tensor.dtype} {list(tensor.row)}"
    try:
        array = array_of(values, tensor)
    except (ValueError, TypeError, OverflowError):
        raise TargetError(f"{expected}, got something else") from None
    if not tensor.admits(array.shape):
        raise TargetError(f"{expected}, got the shape {list(array.shape)}")
    return array[np.newaxis]


def _sample(folder: Path, signature: Signature) -> Arrays:
    request = json.loads((folder / "instances.json").read_text())
    if not signature.batched:
        return {tensor.name: array_of(request["inputs"][tensor.name], tensor) for tensor in signature.inputs}
    (first, *others) = signature.inputs
    row = request["instances"][0] if others else {first.name: request["instances"][0]}
    return {tensor.name: _row(row[tensor.name], tensor) for tensor in signature.inputs}
