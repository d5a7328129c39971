"""One picture, every endpoint: what `tandem predict` prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving import targets
from serving.repository import model_dir, read_manifest, served_version, version_dir
from serving.settings import Settings
from serving.targets.base import Images, TargetError


def show(settings: Settings, target: str | None, picture: str | None, write: Callable[[str], None]) -> int:
    """Print class and probability by endpoint; returns 1 where one did not answer."""
    path = Path(picture) if picture else settings.artifacts / "samples" / "picture.png"
    images = read_picture(path, _shape(settings))
    classes = [
        one["class"] for one in json.loads((settings.artifacts / "samples" / "index.json").read_text())[1:]
    ]
    failed = 0
    for name in [target] if target else [name for name in targets.NAMES if name != "tfjs"]:
        try:
            clients = targets.load(name).clients(settings)
        except KeyError as error:
            raise TargetError(str(error.args[0])) from None
        for protocol, client in clients.items():
            label = f"{name} {protocol}"
            try:
                probabilities = client.predict(images).probabilities[0]
                best = int(probabilities.argmax())
                write(f"{label:24}{classes[best]:16}{probabilities[best]:.6f}")
            except TargetError as error:
                failed += 1
                write(f"{label:24}{error}")
            finally:
                client.close()
    return 1 if failed else 0


def read_picture(path: Path, shape: tuple[int, int, int]) -> Images:
    """Read a PNG or JPEG as the endpoints' input: float32 [1, H, W, C], values 0..1. Raises `TargetError`."""
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape
    try:
        with Image.open(path) as image:
            fitted = image.convert("L" if channels == 1 else "RGB").resize((width, height))
    except FileNotFoundError:
        raise TargetError(f"there is no picture {path}; `make deploy` writes the samples") from None
    except UnidentifiedImageError:
        raise TargetError(f"{path} is no picture: expected PNG or JPEG") from None
    return np.asarray(fitted, np.float32).reshape(1, *shape) / np.float32(255)


def _shape(settings: Settings) -> tuple[int, int, int]:
    version = served_version(model_dir(settings.repository, targets.NAMES[0], settings.model))
    if version is None:
        raise TargetError(f"no version of {settings.model} is published; `make deploy` publishes the first")
    manifest = read_manifest(version_dir(settings.repository, targets.NAMES[0], settings.model, version))
    (tensor,) = manifest.signature["inputs"].values()
    height, width, channels = tensor["shape"][1:]
    return height, width, channels
