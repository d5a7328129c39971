"""Decode pictures: PNG or JPEG bytes to float32 [N, H, W, C], 0..1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.server.errors import InvalidRequestError, TooLargeError
from serving.server.tensors.signature import TensorSpec

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MAX_PIXELS = 16_777_216
"""4096 x 4096. The size is in the header, before anything is decoded."""
MAX_PIXELS_TOGETHER = 16 * MAX_PIXELS
"""Limit for one request: decoding takes seconds and cannot be interrupted."""

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is higher, and would only warn.


def decode(encoded: Sequence[bytes], spec: TensorSpec) -> NDArray[np.float32]:
    """Decode pictures for an input of shape [-1, H, W, C], and resize them to its size.

    Raises `InvalidRequestError` for an invalid or too large picture, or different sizes if H or W is free (-1);
    `TooLargeError` if all pictures together are too large.
    """
    what = f"input {spec.name!r}"
    if spec.picture_size is None:
        raise InvalidRequestError(f"{what} takes no pictures: it is {spec.dtype} {spec.shape}")
    height, width, channels = spec.picture_size
    # With a free size, every pixel goes into the tensor.
    most = MAX_PIXELS if -1 in (height, width) else MAX_PIXELS_TOGETHER
    arrays: list[NDArray[np.float32]] = []
    pixels = 0
    for index, data in enumerate(encoded):
        with _opened(data, f"picture {index} of {what}") as picture:
            pixels += picture.width * picture.height
            if pixels > most:
                limit = f"{what}: at most {most} pixels are decoded for one request"
                got = f"the {index + 1} pictures up to this have {pixels}"
                raise TooLargeError(f"{limit}, {got}; send fewer at once")
            arrays.append(_pixels(picture, height, width, channels))
    if len({array.shape for array in arrays}) > 1:
        sizes = ", ".join(sorted({f"{a.shape[1]}x{a.shape[0]}" for a in arrays}))
        raise InvalidRequestError(f"{what}: expected pictures of one size, got {sizes}")
    return np.stack(arrays)


@contextmanager
def _opened(data: bytes, what: str) -> Iterator[Image.Image]:
    """Open a picture. Raises `InvalidRequestError` if it is invalid or too large."""
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width}x{picture.height}"
                raise InvalidRequestError(f"{what} is {size}: at most {MAX_PIXELS} pixels are decoded")
            yield picture
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        got = f"{len(data)} bytes that begin with {data[:8]!r} ({type(error).__name__})"
        raise InvalidRequestError(f"{what} is no picture: expected PNG or JPEG bytes, got {got}") from error


def _pixels(picture: Image.Image, height: int, width: int, channels: int) -> NDArray[np.float32]:
    full = 255.0
    converted: Image.Image
    if picture.mode.startswith("I"):  # 16-bit gray, which convert() would clip
        converted, full = picture.convert("F"), 65535.0
    else:
        converted = picture.convert(MODES[channels])
    size = (width if width != -1 else picture.width, height if height != -1 else picture.height)
    if converted.size != size:
        converted = converted.resize(size, Image.Resampling.BILINEAR)
    array = np.asarray(converted, np.float32) / np.float32(full)
    if array.ndim == 2:
        array = np.repeat(array[:, :, np.newaxis], channels, axis=2)
    return array
